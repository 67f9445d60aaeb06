"""What the tests of training share: one run of a short recipe, to read or to copy."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from trainings import smoke

from pleura.data.dataset import Dataset
from pleura.training.train import train


@pytest.fixture(scope="session")
def finished(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The fold of a finished run of `smoke()`. Not to be written to."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pleura.training.monitor.Monitor.draw_curves", lambda *_: None)
        return train(smoke(), Dataset(dataset), tmp_path_factory.mktemp("finished"))


@pytest.fixture
def begun(finished: Path, tmp_path: Path) -> Path:
    """A copy of the run of `finished`, to go on with: the folder above its fold."""
    shutil.copytree(finished.parent, tmp_path / "begun")
    return tmp_path / "begun"
