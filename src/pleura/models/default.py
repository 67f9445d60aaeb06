"""The model that comes with pleura: where it lies, and the word `default` that names it.

It lies in the package, which belongs to pip: nothing is written into it or beside it.
"""

from __future__ import annotations

import os
from pathlib import Path

from pleura.errors import CheckpointError, OutputError
from pleura.urls.url import is_url, place_of

DEFAULT = "default"
FILE = Path(__file__).with_name("default.safetensors")


def default_model() -> Path:
    """Return the checkpoint that comes with pleura. Raises: CheckpointError if this installation has none."""
    if not FILE.is_file():
        raise CheckpointError(
            f"{FILE}: the model that comes with pleura is missing; install pleura again, or name a checkpoint of yours"
        )
    return FILE


def default_export() -> Path:
    """Return where the same model lies as a file that runs without PyTorch; it may not be there."""
    return FILE.with_suffix(".onnx")


def named(model: Path | str) -> Path:
    """Return the path of a model as it was typed: `./default` is a file or folder of that name, `default` the word.

    A Path drops the `./`, so that only a text can distinguish them: the former becomes absolute.
    Raises: CheckpointError for what is no path.
    """
    if not isinstance(model, str | os.PathLike):
        raise CheckpointError(f"a model is named by its path, a str or Path, not by {type(model).__name__}")
    path = Path(model)
    return path.absolute() if path == Path(DEFAULT) and str(model) != DEFAULT else path


def as_typed(path: Path) -> str:
    """Return how to type a path where a model is named: never as the word `default`."""
    return f"./{path}" if path == Path(DEFAULT) else str(path)


def model_path(model: Path | str) -> Path:
    """Return the path that a user means; `default` is the model that comes with pleura, whatever else is there.

    Raises: CheckpointError if that model is missing, or for a URL.
    """
    path = named(model)
    if is_url(path):
        raise CheckpointError(
            f"{place_of(path)}: is a URL, which options of commands take and nothing else; name a file of this machine"
        )
    return default_model() if path == Path(DEFAULT) else path


def is_default(path: Path) -> bool:
    """Whether a path is the very file that comes with pleura; a copy of it is not."""
    return path.is_file() and FILE.is_file() and path.samefile(FILE)


def keep_default(path: Path, way_out: str) -> None:
    """Refuse to change the model that comes with pleura. Raises: OutputError if `path` is its file."""
    if is_default(path):
        raise OutputError(f"{path}: is the model that comes with pleura, and stays as it is; {way_out}")
