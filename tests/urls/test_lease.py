"""Who may write below a URL: one at a time, and a process that died not for long."""

from __future__ import annotations

import json
import threading
import time

import pytest
from stores import BUCKET

from pleura.errors import InputError, OutputError, StoreError
from pleura.urls import lease
from pleura.urls.lease import NAME, Lease
from pleura.urls.store import exists, get, put
from pleura.urls.url import Url


@pytest.fixture
def out(s3, request) -> Url:
    return Url("s3", (BUCKET, f"lease-{request.node.name}"))


@pytest.fixture(autouse=True)
def it_runs_out_soon(monkeypatch):
    monkeypatch.setattr(lease, "RENEW_S", 0.2)
    monkeypatch.setattr(lease, "LEASE_S", 2.0)


def test_a_second_process_is_refused_while_the_first_renews(out):
    with Lease(out, "first", "writes there"):
        with pytest.raises(OutputError, match="another process x; wait for it or stop it"), Lease(out, "2", "x"):
            pass
        with pytest.raises(OutputError, match="another process"), Lease(out, "second", "writes there"):
            pass
        assert json.loads(get(out / NAME))["owner"] == "first"
    assert not exists(out / NAME)


def test_what_a_dead_process_left_is_taken_over_after_a_while_and_at_once_by_the_same_machine(out):
    put(out / NAME, b'{"owner": "dead", "renewed": 3}')
    began = time.monotonic()
    with Lease(out, "other", "writes there"):
        assert time.monotonic() - began >= 2
    put(out / NAME, b'{"owner": "dead", "renewed": 3}')
    began = time.monotonic()
    with Lease(out, "dead", "writes there"):
        assert time.monotonic() - began < 2


def test_who_has_lost_it_writes_no_more(out):
    with Lease(out, "first", "writes there") as held:
        held.check()
        put(out / NAME, b'{"owner": "second", "renewed": 0}')
        time.sleep(1)
        with pytest.raises(OutputError, match="another process writes there, or this one could not renew"):
            held.check()
    assert json.loads(get(out / NAME))["owner"] == "second"


def test_who_could_not_renew_it_for_long_writes_no_more(out, monkeypatch):
    monkeypatch.setattr(lease, "RENEW_S", 60)
    with Lease(out, "first", "writes there") as held:
        time.sleep(2.1)
        with pytest.raises(OutputError, match="could not renew"):
            held.check()


def test_of_many_that_begin_at_once_one_gets_it(out):
    got, ends = [], threading.Event()

    def try_it(name: str) -> None:
        try:
            with Lease(out, name, "writes there"):
                got.append(name)
                ends.wait(30)
        except OutputError:
            pass

    threads = [threading.Thread(target=try_it, args=(f"{number}",)) for number in range(6)]
    for thread in threads:
        thread.start()
    time.sleep(6)
    ends.set()
    for thread in threads:
        thread.join()
    assert len(got) == 1


def test_a_lease_that_may_not_be_read_is_somebodys(out, monkeypatch):
    put(out / NAME, b'{"owner": "other", "renewed": 3}')

    def denied(*_: object) -> bytes:
        raise InputError("access denied")

    monkeypatch.setattr(lease, "get", denied)
    with pytest.raises(StoreError, match="access denied"), Lease(out, "second", "writes there"):
        pass
    monkeypatch.undo()
    assert json.loads(get(out / NAME))["owner"] == "other"


@pytest.mark.skipif(not hasattr(time, "CLOCK_BOOTTIME"), reason="this system has no clock that counts its sleep")
def test_a_machine_that_slept_has_lost_it(out, monkeypatch):
    monkeypatch.setattr(lease, "RENEW_S", 60)
    with Lease(out, "first", "writes there") as held:
        held.check()
        real = time.clock_gettime
        monkeypatch.setattr(time, "clock_gettime", lambda clock: real(clock) + 10 * (clock == time.CLOCK_BOOTTIME))
        with pytest.raises(OutputError, match="could not renew"):
            held.check()
    monkeypatch.undo()


def test_a_refusal_names_the_object_that_can_be_removed(out):
    with (
        Lease(out, "first", "writes there"),
        pytest.raises(OutputError, match=rf"if there is none remove {out}/\.lock"),
        Lease(out, "second", "writes there"),
    ):
        pass
