"""One store for the tests of this folder; each has keys of its own in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from stores import HAS_STORE, Store, drivers_are_forgotten, store


@pytest.fixture(scope="session")
def _s3() -> Iterator[Store | None]:
    if not HAS_STORE:
        yield None
        return
    with store() as made:
        yield made


@pytest.fixture
def s3(_s3: Store | None, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A store with an empty log, which this process is told of too."""
    if _s3 is None:
        pytest.skip("needs moto, flask, flask-cors and s3fs, of pleura[dev]")
    drivers_are_forgotten()
    for name, value in _s3.environment.items():
        monkeypatch.setenv(name, value)
    _s3.requests.clear()
    return _s3


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Where a command keeps what is its own."""
    return tmp_path / "home"
