"""A model without its net, and radiographs to send."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="the service is pleura[serve]")

from PIL import Image
from served import Seen, Served, serving

from pleura.data.radiograph import read_radiograph
from pleura.inference.predictor import Predictor


@pytest.fixture(scope="session")
def predictor() -> Predictor:
    return Predictor.load("default", device="cpu")


@pytest.fixture
def seen(predictor: Predictor) -> Seen:
    return Seen(predictor)


@pytest.fixture(scope="module")
def served(predictor: Predictor) -> Iterator[Served]:
    """A service with the usual limits."""
    with serving(Seen(predictor)) as service:
        yield service


@pytest.fixture(scope="session")
def files(phantoms: Path) -> dict[str, bytes]:
    """One phantom as DICOM, PNG and JPEG."""
    path = sorted((phantoms / "dicom").iterdir())[0]
    grey = Image.fromarray((read_radiograph(path).image * 255).astype("uint8"))
    made = {"dicom": path.read_bytes()}
    for kind in ("png", "jpeg"):
        buffer = io.BytesIO()
        grey.save(buffer, kind)
        made[kind] = buffer.getvalue()
    return made
