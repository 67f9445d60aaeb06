"""Where a command works: addresses and resources that cannot be are refused in words, before Ray is started."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import pytest
from rays import needs_ray

from pleura.cluster.connection import ClusterOptions
from pleura.cluster.predict import predict_on_cluster
from pleura.errors import InputError
from pleura.inference.part import BatchSettings


@pytest.mark.parametrize("address", ["local", "auto", "10.0.0.5:6379", "head.example:6379", "[::1]:6379"])
def test_an_address_is_a_word_or_a_host_with_its_port(address):
    assert ClusterOptions(address).address == address


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"address": "ray://head:10001"}, "is none of local, auto and HOST:PORT"),
        ({"address": "remote"}, "is none of local, auto and HOST:PORT"),
        ({"address": "local", "cpus": 0}, "--ray-cpus is more than 0, not 0"),
        ({"address": "local", "cpus": float("inf")}, "--ray-cpus is more than 0, not inf"),
        ({"address": "local", "gpus": 1.5}, "--ray-gpus is a part of one GPU, such as 0.25, or a whole number"),
        ({"address": "local", "gpus": -1}, "--ray-gpus is a part of one GPU"),
    ],
)
def test_what_no_worker_can_have_is_refused(options, reason):
    with pytest.raises(InputError, match=reason):
        ClusterOptions(**options)


def test_an_option_of_the_cluster_alone_is_wrong_usage(pleura, tmp_path):
    done = pleura("predict", tmp_path, "--out", tmp_path / "out", "--workers", 2)
    assert done.returncode == 2
    assert "does nothing alone; add --ray local" in " ".join(done.stderr.replace("│", " ").split())


def test_a_gpu_that_no_worker_is_given_is_refused(pleura, tmp_path, monkeypatch):
    monkeypatch.setattr("pleura.inference.device._chosen", "cuda")
    settings = BatchSettings((str(tmp_path),), tmp_path / "out", "default")
    with pytest.raises(InputError, match=r"--device cuda: workers have no GPU; .* such as --ray-gpus 1"):
        predict_on_cluster(Path("default"), None, settings, ClusterOptions("local"))


@needs_ray
def test_an_address_where_nobody_listens_is_refused_at_once(pleura, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
        began = time.monotonic()
        done = pleura("predict", tmp_path, "--out", tmp_path / "out", "--ray", address)
    assert done.returncode == 1
    assert f"--ray {address}: cannot be reached (Connection refused); is it up, " in done.stderr
    assert time.monotonic() - began < 60
