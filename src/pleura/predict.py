"""From an image to a mask: `Predictor` is the one path, for the command line, evaluation and every service."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from pleura.data.radiograph import SquareGeometry, read_radiograph
from pleura.dicom.read import Radiograph
from pleura.errors import CheckpointError, InputError
from pleura.learn.checkpoint import Checkpoint, load_checkpoint, load_weights
from pleura.measure.triplet import REFERENCE_AREA_PX, SCORED_SHARE, Triplet
from pleura.model import build_model
from pleura.model.inference import Preprocessing, infer

BOTH_SIDES_SHARE = 0.2
"""A mask has two sides when at least this share of it lies on the smaller one."""


@dataclass(frozen=True)
class Prediction:
    """What a model finds on one radiograph, on the radiograph's own grid."""

    image_id: str
    radiograph: Radiograph
    probabilities: NDArray[np.float32]
    """(rows, columns) in [0, 1]."""
    predicted_mask: NDArray[np.uint8]
    """(rows, columns) in {0, 1}: the probabilities after the triplet."""
    is_positive: bool
    score: float
    """In [0, 1]: mean probability of the highest 0.1 % of pixels. Orders images; not a probability of disease."""
    area_px: int
    area_mm2: float | None
    """None where the spacing is not known."""
    side: str | None
    """`R` or `L` of the patient, `B` for both, None where nothing is found. Assumes the usual display, the patient's
    right at the left of the image."""


def find_checkpoints(path: Path) -> list[Path]:
    """The checkpoints that a path names: a file, or the best of each fold of a run.

    Raises: CheckpointError if there is none.
    """
    if path.is_dir():
        best = sorted(path.glob("fold-*/best.safetensors")) or sorted(path.glob("best.safetensors"))
        if not best:
            raise CheckpointError(f"{path}: holds no fold-*/best.safetensors; is it the --out of pleura train?")
        return best
    return [path]


class Predictor:
    """One model, or the mean of several, ready to run. Takes everything it needs from the checkpoints."""

    def __init__(self, checkpoints: Sequence[Checkpoint], tta: str = "none", device: str | None = None) -> None:
        """tta: `none`, or `flip` for the mean with the mirrored image. device: the GPU if there is one, by default.

        Raises: CheckpointError if weights do not fit their net, or the checkpoints differ in preparation;
        InputError for another tta.
        """
        if tta not in ("none", "flip"):
            raise InputError(f"tta is none or flip, not {tta!r}")
        self.checkpoints, self.flip = list(checkpoints), tta == "flip"
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        try:
            self.preprocessings = [Preprocessing(**checkpoint.preprocessing) for checkpoint in checkpoints]
            triplets = [Triplet(**checkpoint.triplet) for checkpoint in checkpoints]
        except TypeError as error:
            raise CheckpointError(f"the checkpoint's header has other fields than this version's ({error})") from error
        if len({preprocessing.prepared_px for preprocessing in self.preprocessings}) != 1:
            raise CheckpointError("the checkpoints were trained on datasets of different --size; use one at a time")
        self.prepared_px = self.preprocessings[0].prepared_px
        self.triplet = _mean_triplet(triplets)
        self.models = []
        for checkpoint in checkpoints:
            model = build_model(checkpoint.model)
            load_weights(model, checkpoint.weights, "checkpoint")
            self.models.append(model.eval().to(self.device, memory_format=torch.channels_last))  # type: ignore[call-overload]

    @classmethod
    def load(cls, path: Path | str, tta: str = "none", device: str | None = None) -> Predictor:
        """Load a checkpoint file, or the best checkpoint of each fold of a run. Raises: CheckpointError, InputError."""
        return cls([load_checkpoint(file) for file in find_checkpoints(Path(path))], tta, device)

    def probabilities(self, squares: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Probabilities of prepared images: (N, S, S) uint8 -> (N, size_px, size_px) float32 in [0, 1].

        size_px is the largest among the models; smaller ones' probabilities are enlarged.
        Raises: CheckpointError if they are not finite.
        """
        images = torch.from_numpy(np.array(squares))[:, None].to(self.device)
        largest = max(preprocessing.size_px for preprocessing in self.preprocessings)
        total = None
        for model, preprocessing in zip(self.models, self.preprocessings, strict=True):
            part = infer(model, images, preprocessing, self.flip)
            if part.shape[-1] != largest:
                part = torch.nn.functional.interpolate(part[:, None], size=largest, mode="bilinear")[:, 0]
            total = part if total is None else total + part
        mean = np.asarray(((total if total is not None else images) / len(self.models)).cpu().numpy())
        if not np.isfinite(mean).all():
            raise CheckpointError("the model gives probabilities that are not finite: its weights are damaged")
        return mean

    def predict(self, image: Path | str | NDArray[np.generic]) -> Prediction:
        """Find pneumothorax on a DICOM, PNG or JPEG file, or on an array.

        array: (rows, columns); uint8 in 0..255, or float in [0, 1], bright = dense (MONOCHROME2).
        Raises: InputError if it cannot be read or is no such array.
        """
        radiograph = _of_array(image) if isinstance(image, np.ndarray) else read_radiograph(image)
        return self.predict_radiographs([radiograph])[0]

    def predict_radiographs(self, radiographs: Sequence[Radiograph]) -> list[Prediction]:
        """Find pneumothorax on radiographs that were read already, as one batch."""
        shapes = [radiograph.image.shape for radiograph in radiographs]
        to_square = [SquareGeometry(rows, columns, self.prepared_px) for rows, columns in shapes]
        pairs = list(zip(to_square, radiographs, strict=True))
        squares = np.stack([geometry.image_to_square(radiograph.image) for geometry, radiograph in pairs])
        probabilities = self.probabilities(squares)
        return [self._decide(*pair) for pair in zip(radiographs, probabilities, strict=True)]

    def _decide(self, radiograph: Radiograph, square: NDArray[np.float32]) -> Prediction:
        rows, columns = radiograph.image.shape
        # Back the way it came: the padding of the prepared square falls between the pixels of a smaller one.
        prepared = SquareGeometry(self.prepared_px, self.prepared_px, square.shape[0]).probabilities_to_original(square)
        probabilities = SquareGeometry(rows, columns, self.prepared_px).probabilities_to_original(prepared)
        mask = self.triplet.apply(probabilities, max(rows, columns) ** 2)
        area_px, spacing = int(mask.sum()), radiograph.pixel_spacing_mm
        return Prediction(
            image_id=radiograph.image_id,
            radiograph=radiograph,
            probabilities=probabilities,
            predicted_mask=mask,
            is_positive=area_px > 0,
            score=image_score(square),
            area_px=area_px,
            area_mm2=area_px * spacing[0] * spacing[1] if spacing else None,
            side=side_of(mask),
        )


def image_score(probabilities: NDArray[np.float32]) -> float:
    """Mean of the highest 0.1 % of an image's probabilities, (H, W) in [0, 1] -> [0, 1]."""
    wanted = max(1, round(probabilities.size * SCORED_SHARE))
    return float(np.partition(probabilities.reshape(-1), -wanted)[-wanted:].mean())


def side_of(mask: NDArray[np.uint8]) -> str | None:
    """The patient's side of a mask (H, W): `R` in the image's left half, `L` in its right, `B` both, None empty."""
    right = int(mask[:, : mask.shape[1] // 2].sum())
    total = int(mask.sum())
    if total == 0:
        return None
    if min(right, total - right) >= BOTH_SIDES_SHARE * total:
        return "B"
    return "R" if right > total - right else "L"


def _of_array(image: NDArray[np.generic]) -> Radiograph:
    if image.ndim != 2 or 0 in image.shape:
        raise InputError(f"an image is an array of (rows, columns), this one has the shape {image.shape}")
    values = image.astype(np.float32) / np.float32(255 if image.dtype == np.uint8 else 1)
    if not np.isfinite(values).all() or values.min() < 0 or values.max() > 1:
        raise InputError("an image is uint8, or float within [0, 1]; scale it first")
    return Radiograph(image=values, image_id="array")


def _mean_triplet(triplets: Sequence[Triplet]) -> Triplet:
    """The triplet of a mean of models: the mean of theirs, until it is tuned for the mean itself.

    One fold whose best rule was to find nothing does not silence the others.
    """
    triplets = [triplet for triplet in triplets if triplet.min_pixels <= REFERENCE_AREA_PX] or triplets
    return Triplet(
        float(np.mean([triplet.top_threshold for triplet in triplets])),
        round(float(np.mean([triplet.min_pixels for triplet in triplets]))),
        float(np.mean([triplet.bottom_threshold for triplet in triplets])),
    )
