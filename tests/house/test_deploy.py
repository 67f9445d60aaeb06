"""What deploy/ starts is what the command line takes, and all of it is locked down."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from pleura.cli import app

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
COMMANDS: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))


def takes(words: list[str]) -> dict[str, Any]:
    """The options of a command line. Raises: click's errors for one that it does not take."""
    return dict(COMMANDS[words[0]].make_context(words[0], words[1:]).params)


def settings(unit: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for key, value in re.findall(r"^(\w+)=(.*)$", unit.read_text(encoding="utf-8"), re.MULTILINE):
        found.setdefault(key, []).append(value)
    return found


@pytest.mark.parametrize("name", ["listen", "serve"])
def test_unit_starts_a_command_with_options_that_it_takes(name: str) -> None:
    unit = settings(DEPLOY / f"pleura-{name}.service")
    (options,) = re.findall(rf"^PLEURA_{name.upper()}=(.*)$", (DEPLOY / f"{name}.conf").read_text(), re.MULTILINE)
    (start,) = unit["ExecStart"]
    program, *words = shlex.split(start.replace(f"$PLEURA_{name.upper()}", options))
    assert program == "/opt/pleura/bin/pleura"
    assert takes(words)
    assert unit["DynamicUser"] == unit["NoNewPrivileges"] == ["yes"]
    assert unit["ProtectSystem"] == ["strict"]
    assert unit["KillMode"] == ["mixed"]


@pytest.mark.parametrize("name", ["listen", "serve"])
def test_service_of_the_compose_file_starts_a_command_with_options_that_it_takes(name: str) -> None:
    service = COMPOSE["services"][name]
    assert takes(service["command"])
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]


def test_archive_of_the_compose_file_and_the_listener_know_each_other() -> None:
    archive = json.loads((DEPLOY / "orthanc.json").read_text(encoding="utf-8"))
    listener = takes(COMPOSE["services"]["listen"]["command"])
    pleura = archive["DicomModalities"]["pleura"]
    assert (pleura["AET"], pleura["Host"], pleura["Port"]) == (listener["ae_title"], "listen", listener["port"])
    assert listener["send_to"] == [f"orthanc:{archive['DicomPort']}:{archive['DicomAet']}"]
    assert listener["allow_ae"] == [archive["DicomAet"]]


def test_container_runs_as_nobody_in_particular_and_says_whether_it_works() -> None:
    lines = (DEPLOY / "Containerfile").read_text(encoding="utf-8").splitlines()
    assert "USER 10001" in lines
    assert any(line.startswith("HEALTHCHECK ") for line in lines)
    status_port = takes(COMPOSE["services"]["listen"]["command"])["status_port"]
    assert f"http://127.0.0.1:{status_port}/healthz" in (DEPLOY / "healthcheck.py").read_text(encoding="utf-8")


def test_job_of_the_kubernetes_file_starts_a_command_with_options_that_it_takes() -> None:
    job, policy = yaml.safe_load_all((DEPLOY / "kuberay.yaml").read_text(encoding="utf-8"))
    program, *words = shlex.split(job["spec"]["entrypoint"])
    assert program == "pleura"
    assert takes(words)["ray"] == "auto"
    assert policy["spec"]["policyTypes"] == ["Ingress"]


def test_nodes_of_the_kubernetes_file_are_alike_locked_and_ask_for_a_token() -> None:
    job, _ = yaml.safe_load_all((DEPLOY / "kuberay.yaml").read_text(encoding="utf-8"))
    cluster = job["spec"]["rayClusterSpec"]
    assert f"ray=={cluster['rayVersion']}\n" in (DEPLOY.parent / "constraints.txt").read_text(encoding="utf-8")
    assert cluster["authOptions"] == {"mode": "token"}
    head, *workers = (group["template"]["spec"] for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]))
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert workers
    for pod in (head, *workers):
        (node,) = pod["containers"]
        assert node["image"] == head["containers"][0]["image"]
        assert node["resources"]["requests"] == node["resources"]["limits"]
        assert node["securityContext"]["allowPrivilegeEscalation"] is False
        assert pod["securityContext"]["runAsUser"] == 10001
    assert "USER 10001" in (DEPLOY / "cluster.Containerfile").read_text(encoding="utf-8").splitlines()


def test_file_for_machines_is_one_that_ray_up_takes() -> None:
    util = pytest.importorskip("ray.autoscaler._private.util")
    given = util.prepare_config(yaml.safe_load((DEPLOY / "ray-machines.yaml").read_text(encoding="utf-8")))
    util.validate_config(given)
    starts = [*given["head_start_ray_commands"], *given["worker_start_ray_commands"]]
    assert all("RAY_AUTH_MODE=token" in line for line in starts if " ray start " in line)
    assert "~/.ray/auth_token" in given["file_mounts"]
