"""What nodes of a cluster are refused for, in the words of what differs."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pleura import __version__
from pleura.cluster.asked import refuse_other_nodes
from pleura.cluster.connection import ClusterOptions
from pleura.errors import InputError

DATASET: Any = SimpleNamespace(folder=Path("siim"), data_hash="ab12")
LOCAL = ClusterOptions("local")


def test_nodes_with_the_same_are_taken() -> None:
    refuse_other_nodes(__version__, "ab12", DATASET, LOCAL)


def test_another_pleura_is_named_and_nothing_is_said_of_the_dataset() -> None:
    with pytest.raises(InputError, match=rf"nodes have pleura 0\.0\.1; install pleura {__version__} there$"):
        refuse_other_nodes("0.0.1", "ab12", DATASET, LOCAL)


def test_another_dataset_is_named_and_nothing_is_said_of_the_version() -> None:
    with pytest.raises(InputError, match=r"nodes have another dataset as siim; keep the data where all nodes see it$"):
        refuse_other_nodes(__version__, "cd34", DATASET, LOCAL)
