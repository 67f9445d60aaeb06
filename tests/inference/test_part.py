"""A part of a batch: each object's bytes belong to its own radiograph, and few are held at once."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pleura.data import radiograph
from pleura.data.ids import Identified
from pleura.errors import InputError
from pleura.inference.part import BatchSettings, read_part
from pleura.urls import store
from pleura.urls.url import Url


def test_objects_of_a_part_are_read_one_by_one_and_few_bytes_are_fetched_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    fetched: list[str] = []
    read: list[tuple[str, bytes]] = []
    most = 0

    def got(url: Url, _: int | None) -> bytes | InputError:
        fetched.append(url.name)
        return InputError("it is gone") if url.name == "2" else url.name.encode()

    def read_content(url: Url, content: bytes) -> Any:
        nonlocal most
        read.append((url.name, content))
        most = max(most, len(fetched) - len(read))
        raise InputError("not a radiograph")

    monkeypatch.setattr(store, "_got", got)
    monkeypatch.setattr(store, "AHEAD_BYTES", 25)
    monkeypatch.setattr(radiograph, "_read_content", read_content)
    # The fifth is too large: it is refused without being fetched, and takes no other's bytes.
    sizes = [10, 10, 10, 10, 10**13, 10, 10, 10]
    cases = [
        Identified(f"{number}", Url("s3", ("bucket", f"{number}"), size=size), f"{number}")
        for number, size in enumerate(sizes)
    ]
    done = read_part(cast(Any, SimpleNamespace()), BatchSettings(("s3://bucket",), Path("out"), "model"), cases)
    reasons = [reason for _, reason in done.failed]
    assert done.read == []
    assert [reason == "not a radiograph" for reason in reasons] == [number not in (2, 4) for number in range(8)]
    assert reasons[2] == "it is gone"
    assert "more than" in reasons[4]
    assert read == [(name, name.encode()) for name in "013567"]
    assert "4" not in fetched
    assert most <= 3
