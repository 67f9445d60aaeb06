"""Finds faults in recipes, datasets, folds, masks, predictions and models.

The content of a path decides what it is and which checks apply; every fault comes with a way out.
"""

from __future__ import annotations

from pathlib import Path

from pleura.data.columns import FOLD, RUNS, find_column
from pleura.data.dataset import CARD
from pleura.data.masks import mask_files
from pleura.doctor import masks
from pleura.doctor.examination import Against, Examination
from pleura.doctor.predictions import examine_predictions
from pleura.doctor.tables import check_folds, examine_folds, examine_masks_csv, header_of
from pleura.errors import InputError, excerpt
from pleura.models.default import model_path
from pleura.models.exported import is_exported

__all__ = ["Against", "Examination", "check_folds", "examine"]

KINDS = (
    "a recipe (.yaml), a dataset folder, a run, mask PNGs or DICOM-SEG, masks as .npy, a csv of folds or of masks, "
    "a model (.safetensors, .onnx, .xml, .pth)"
)
_ZIP, _PICKLE, _NUMPY, _PNG, _DICOM = b"PK\x03\x04", b"\x80", b"\x93NUMPY", b"\x89PNG", b"DICM"


OF = {
    "patients": ("folds",),
    "masks": ("folds",),
    "images": ("masks",),
    "truth": ("predict",),
    "data": ("run", "checkpoint", "exported"),
}
"""Part of `Against` -> the paths that it applies to, by a word in their kind."""


def examine(path: Path, against: Against | None = None) -> Examination:
    """Find what a path is, and run the checks that apply to it; a part of `against` without effect is a warning.

    Raises: InputError if it is missing or nothing that is known, or a file of `against` cannot be used;
    CheckpointError for a damaged checkpoint.
    """
    against, path = against or Against(), model_path(path)
    found = _examined(path, against)
    for name, kinds in OF.items():
        if getattr(against, name) is not None and not any(word in found.kind for word in kinds):
            found.warn(
                f"--{name} does nothing: this is {found.kind}",
                "leave it out; pleura doctor --help has what it applies to",
            )
    return found


def _examined(path: Path, against: Against) -> Examination:
    if path.is_dir():
        return _folder(path, against)
    try:
        with path.open("rb") as file:
            start = file.read(4096)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); name {KINDS}") from error
    if (
        start[8:9] == b"{"
        or start.startswith((_ZIP, _PICKLE))
        or path.suffix.lower() in (".pth", ".pt", ".safetensors")
    ):
        from pleura.doctor.checkpoints import examine_checkpoint

        return examine_checkpoint(path, against)
    if is_exported(path):
        from pleura.doctor.exported import examine_exported

        return examine_exported(path, against)
    if start.startswith(_NUMPY):
        return masks.examine_mask_array(path)
    if start.startswith(_PNG) or start[128:132] == _DICOM:
        return _masks(path, against)
    if path.suffix.lower() in (".yaml", ".yml"):
        from pleura.doctor.recipes import examine_recipe

        return examine_recipe(path)
    return _table(path, against)


def _folder(path: Path, against: Against) -> Examination:
    if (path / CARD).is_file():
        from pleura.doctor.datasets import examine_dataset

        return examine_dataset(path)
    if any(path.glob("fold-*/best.safetensors")) or any(path.glob("best.safetensors")):
        from pleura.doctor.checkpoints import examine_run

        return examine_run(path, against)
    if any(mask_files(path).values()):
        return _masks(path, against)
    raise InputError(f"{path}: holds neither a dataset ({CARD}), nor a run, nor masks; name {KINDS}")


def _masks(path: Path, against: Against) -> Examination:
    if against.truth:
        return examine_predictions(path, against.truth, against)
    return masks.examine_mask_files(path, against)


def _table(path: Path, against: Against) -> Examination:
    header = header_of(path)
    has_runs, has_folds = find_column(header, RUNS) is not None, find_column(header, FOLD) is not None
    if has_runs and (not has_folds or "EncodedPixels" in header):
        return examine_predictions(path, against.truth, against) if against.truth else examine_masks_csv(path, against)
    if has_folds:
        return examine_folds(path, against)
    found = excerpt(", ".join(header)) or "nothing"
    raise InputError(f"{path}: is nothing that pleura doctor examines (first line: {found}); name {KINDS}")
