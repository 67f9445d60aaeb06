"""One cluster for all tests: a node takes many seconds to start."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def _cluster():
    from rays import nodes

    with nodes(2) as made:
        yield made


@pytest.fixture
def cluster(_cluster):
    """Two nodes, of which a test may kill the second."""
    _cluster.mend()
    return _cluster
