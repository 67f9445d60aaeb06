"""The model that a command was asked to run, and how, so that workers load it as the command would."""

from __future__ import annotations

import os
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pleura import __version__
from pleura.cluster.connection import ClusterOptions
from pleura.data.dataset import Dataset
from pleura.errors import InputError
from pleura.inference.device import CPU, named_device, use_device
from pleura.inference.engines.choice import named_engine
from pleura.inference.precision import named_precision
from pleura.inference.predictor import Predictor
from pleura.urls.copies import said
from pleura.urls.kept import MODEL_FILES, keep
from pleura.urls.url import Place, Url, place_of


@dataclass(frozen=True)
class Asked:
    """The model, and how it is to run, as somebody has said."""

    model: str
    tta: str | None
    device: str | None
    precision: str | None
    engine: str | None

    @classmethod
    def of(cls, model: Path, tta: str | None, options: ClusterOptions) -> Asked:
        """Return what the options of a command say. Raises: InputError as `device_of_workers`."""
        return cls(as_named(model), tta, device_of_workers(options), named_precision(), named_engine())

    def load(self) -> Predictor:
        """Load the model, in a worker. Raises: CheckpointError, InputError."""
        use_device(self.device or "auto")
        return Predictor.load(self.path, self.tta, self.device, self.precision, self.engine)

    @property
    def path(self) -> Path:
        """Where this machine has the model. Raises: InputError, OutputError, StoreError."""
        return found(self.model, MODEL_FILES)


def as_named(path: Place) -> str:
    """Return what workers find a path by: a copy of this machine goes by its URL, of which they make their own.

    Raises: InputError for a URL that is of one process.
    """
    name = said(str(path))
    if name.startswith("memory://"):
        raise InputError(f"{name}: memory is of one process, and workers have others; take another URL with --ray")
    return name


def found(name: str, files: Collection[str]) -> Path:
    """Return the path of what `as_named` has named: of a URL a copy that this machine keeps, made by the first worker.

    files: as `kept`. Raises: InputError, OutputError, StoreError.
    """
    place = place_of(name, is_recorded=True)
    return keep(place, files) if isinstance(place, Url) else place


def device_of_workers(options: ClusterOptions) -> str | None:
    """Return the device that workers name; None: the GPU that Ray gives each.

    Raises: InputError for a GPU without --ray-gpus.
    """
    # Not `auto`: a worker that was given no GPU would take one that others were given.
    device = named_device() or (None if options.gpus else "cpu")
    if not options.gpus and device not in CPU:
        raise InputError(f"--device {device}: workers have no GPU; say how much of one each has, such as --ray-gpus 1")
    return device


def go_to(folder: str) -> None:
    """Begin relative paths in the folder of the command, where a node has it."""
    with suppress(OSError):  # absolute paths need it not; where relative ones do, no file is seen
        os.chdir(folder)


def refuse_other_nodes(pleura: str, data_sha256: str, dataset: Dataset, options: ClusterOptions) -> None:
    """Raises: InputError if workers have another pleura, or another dataset, than the command; it says which."""
    if pleura != __version__:
        raise InputError(f"--ray {options.address}: its nodes have pleura {pleura}; install pleura {__version__} there")
    if data_sha256 != dataset.data_hash:
        raise InputError(
            f"--ray {options.address}: its nodes have another dataset as {dataset.folder}; keep the data where all "
            "nodes see it"
        )
