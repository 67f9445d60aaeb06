"""From an image to a mask: `Predictor` is the one path, for Python, the command line and evaluation."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pleura.data.geometry import SquareGeometry
from pleura.data.in_memory import each_of, radiograph_of
from pleura.data.radiograph import geometry_of
from pleura.decision.calibration import Calibration
from pleura.decision.laterality import side_of
from pleura.decision.triplet import Triplet, image_score, mean_triplet
from pleura.dicom.read import Radiograph
from pleura.dicom.results import Algorithm
from pleura.errors import CheckpointError, InputError, PleuraError
from pleura.inference.algorithm import algorithm_of, hash_of
from pleura.inference.device import pick_device
from pleura.inference.engines.torch import infer
from pleura.inference.precision import Precision, precision_of_predictor
from pleura.inference.prediction import Prediction
from pleura.models.cancelling import keep_cancelling
from pleura.models.checkpoint import Checkpoint, load_checkpoint, net_of
from pleura.models.default import DEFAULT, model_path
from pleura.models.folding import folded
from pleura.models.net import Net
from pleura.models.seen import SeenCases

ENSEMBLE, ENSEMBLE_FORMAT = "ensemble.json", 1


@dataclass(frozen=True)
class ModelFiles:
    """The files that a path names as one model."""

    checkpoints: list[Path]
    weights: list[float]
    """Of each checkpoint in the mean; they add up to 1."""
    triplet: Triplet | None = None
    """The decision rule where it is given for all of them together."""
    described_by: tuple[Path, ...] = ()
    """Further files that decide the result, besides the checkpoints."""
    calibration: Mapping[str, Any] | None = None
    """Of all of them together, where it is given."""
    tuned_on: tuple[str, ...] = ()
    """`case_key` of the cases that `triplet` was tuned on, where it was."""

    @property
    def all(self) -> list[Path]:
        """Every file, in order; together they identify the model."""
        return [*self.described_by, *self.checkpoints]


def find_model(model: Path | str) -> ModelFiles:
    """Find the files of a model: one checkpoint, the best of each fold of a run, or those of an ensemble's members.

    `default` is the model that comes with pleura, and the text `./default` a path. Raises: CheckpointError if there are
    none, or an ensemble is not whole.
    """
    return _find(model_path(model))


def find_checkpoint(model: Path | str) -> Path:
    """Find the one checkpoint of a model. Raises: CheckpointError if there is none, or several, or an ensemble."""
    files = find_model(model)
    if files.described_by or len(files.checkpoints) > 1:
        raise CheckpointError(
            f"{model}: is several checkpoints, or an ensemble; name one checkpoint, such as {files.checkpoints[0]}"
        )
    return files.checkpoints[0]


def _find(path: Path) -> ModelFiles:
    if (path / ENSEMBLE).is_file():
        return _find_ensemble(path)
    checkpoints = [path]
    if path.is_dir():
        checkpoints = sorted(path.glob("fold-*/best.safetensors")) or sorted(path.glob("best.safetensors"))
        if not checkpoints:
            raise CheckpointError(f"{path}: holds no fold-*/best.safetensors; is it the --out of pleura train?")
    return ModelFiles(checkpoints, [1 / len(checkpoints)] * len(checkpoints))


def _find_ensemble(folder: Path) -> ModelFiles:
    file = folder / ENSEMBLE
    try:
        document: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        if document["format"] != ENSEMBLE_FORMAT:
            raise ValueError("it is of another version")
        members = [(folder / member["folder"], float(member["weight"])) for member in document["members"]]
        triplet = None if document["triplet"] is None else Triplet.of(document["triplet"])
        calibration, tuned_on = document.get("calibration"), SeenCases.of({"val": document.get("tuned_on", [])}).val
        if calibration is not None:
            Calibration.of(calibration)
        total = sum(weight for _, weight in members)
        if not all(0 < weight / total <= 1 for _, weight in members) or not 0 < total < np.inf:
            raise ValueError("it has members, and weights above 0")
    except (PleuraError, OSError, ValueError, LookupError, TypeError, ArithmeticError, RecursionError) as error:
        raise CheckpointError(f"{file}: is no description of an ensemble ({error!s:.200}); train it again") from error
    checkpoints, weights, folds = [], [], {}
    for member, weight in members:
        if not os.path.isdir(member):  # of a name that no file system has, Path.is_dir raises
            raise CheckpointError(
                f"{str(member)[:200]}: this member of the ensemble is missing; train it with --resume"
            )
        found = _find(member).checkpoints
        folds[member.name] = {checkpoint.parent.name for checkpoint in found}
        checkpoints += found
        weights += [weight / total / len(found)] * len(found)
    if len({frozenset(names) for names in folds.values()}) > 1:
        found_folds = "; ".join(f"{name}: {', '.join(sorted(names))}" for name, names in folds.items())
        raise CheckpointError(f"{folder}: its members have different folds ({found_folds}); train what is missing")
    return ModelFiles(checkpoints, weights, triplet, (file,), calibration, tuned_on)


class Predictor:
    """One model, or the weighted mean of several, ready to run. Takes everything it needs from the checkpoints."""

    def __init__(
        self,
        checkpoints: Sequence[Checkpoint],
        tta: str | None = None,
        device: str | None = None,
        weights: Sequence[float] | None = None,
        triplet: Triplet | None = None,
        calibration: Mapping[str, Any] | None = None,
        precision: str | None = None,
    ) -> None:
        """tta: `none`, `flip` for the mean with the mirrored image, or None for what each checkpoint's recipe says.

        device: as `pick_device` takes it, the GPU if there is one by default.
        weights: of each checkpoint in the mean; equal by default.
        triplet: the decision rule; by default the weighted mean of the checkpoints' own.
        calibration: as a checkpoint's header has it; by default what all checkpoints agree on. It is for what is
        reported: the triplet acts on the probabilities before it, and finds the same with it and without.
        precision: auto, float32 or bfloat16; by default as `precision_of_predictor` says.
        Raises: CheckpointError if weights do not fit their net, or the checkpoints differ in preparation;
        InputError for another tta or precision, or a device that is not there.
        """
        self.checkpoints, self.triplet_is_given = list(checkpoints), triplet is not None
        self.flips = [_flips(tta or checkpoint.recipe.get("tta", "none")) for checkpoint in checkpoints]
        self.weights = np.asarray(weights or [1.0] * len(self.checkpoints), dtype=np.float64)
        self.weights /= self.weights.sum()
        self.device = pick_device(device)
        self.preprocessings = [checkpoint.preprocessing for checkpoint in checkpoints]
        if len({preprocessing.prepared_px for preprocessing in self.preprocessings}) != 1:
            raise CheckpointError("the checkpoints were trained on datasets of different --size; use one at a time")
        self.prepared_px = self.preprocessings[0].prepared_px
        self.triplet = triplet or mean_triplet([checkpoint.triplet for checkpoint in checkpoints], self.weights)
        self.calibration = _calibration(calibration, self.checkpoints)
        self.prevalence = _prevalence(calibration or self.checkpoints[0].calibration) if self.calibration else None
        self.nets: list[Net] = []
        """Of each checkpoint, with BatchNorm folded: they compute what `net_of` does, but for rounding."""
        self.precisions: list[Precision] = []
        for checkpoint in checkpoints:
            net = folded(net_of(checkpoint))
            chosen = precision_of_predictor(precision, checkpoint.recipe, self.device, keep_cancelling(net))
            self.precisions.append(chosen)
            self.nets.append(net.to(self.device, memory_format=torch.channels_last))  # type: ignore[call-overload]

    @classmethod
    def load(
        cls,
        path: Path | str = DEFAULT,
        tta: str | None = None,
        device: str | None = None,
        precision: str | None = None,
    ) -> Predictor:
        """Load a checkpoint file, the best checkpoint of each fold of a run, or an ensemble of runs.

        path: the model that comes with pleura, by default. tta: that of the recipe, by default. device: see
        `pick_device`. precision: auto, float32 or bfloat16, see `precision_of_predictor`.

        >>> image = np.tile(np.arange(256, dtype=np.uint8), (256, 1))
        >>> Predictor.load(device="cpu").predict(image).predicted_mask.shape
        (256, 256)

        Raises: CheckpointError, InputError.
        """
        files = find_model(path)
        checkpoints = [load_checkpoint(file) for file in files.checkpoints]
        if files.tuned_on:  # the cases of the common rule count as chosen on for each
            checkpoints = [replace(one, seen=one.seen.and_chosen_on(files.tuned_on)) for one in checkpoints]
        made = cls(checkpoints, tta, device, files.weights, files.triplet, files.calibration, precision)
        made.triplet_is_given = files.triplet is not None and not files.tuned_on
        return made

    @property
    def tta(self) -> str:
        """`none`, `flip`, or `mixed` where the recipes of an ensemble differ."""
        return "mixed" if len(set(self.flips)) > 1 else "flip" if self.flips[0] else "none"

    @property
    def precision(self) -> str:
        """`float32`, `bfloat16`, or `mixed` where the recipes of an ensemble differ."""
        names = {each.name for each in self.precisions}
        return "mixed" if len(names) > 1 else names.pop()

    @cached_property
    def _weights_sha256(self) -> str:
        return hash_of(self.checkpoints)

    @property
    def algorithm(self) -> Algorithm:
        """What the results are by, as DICOM objects say it."""
        model = (self.checkpoints, self._weights_sha256, self.weights, self.triplet, self.calibration)
        return algorithm_of(*model, tta=self.tta, precision=self.precision)

    def probabilities(self, squares: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the probabilities of prepared images: (N, S, S) uint8 -> (N, size_px, size_px) float32 in [0, 1].

        size_px is the largest among the models; smaller ones' probabilities are enlarged.
        Raises: CheckpointError if they are not finite.
        """
        # One by one on a CPU: the tensors of a single image stay in memory that the process has, those of several are
        # mapped and zeroed anew in each layer. Nor does a prediction depend on the images beside it.
        at_a_time = 1 if self.device.type == "cpu" else max(1, len(squares))
        parts = [squares[first : first + at_a_time] for first in range(0, len(squares), at_a_time)]
        mean = np.concatenate([self._mean(part) for part in parts or [squares]])
        if not np.isfinite(mean).all():
            raise CheckpointError("the model gives probabilities that are not finite: its weights are damaged")
        return mean

    def _mean(self, squares: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The weighted mean of the nets' probabilities of one batch."""
        images = torch.from_numpy(np.array(squares))[:, None].to(self.device)
        largest = max(preprocessing.size_px for preprocessing in self.preprocessings)
        total = images.new_zeros((len(images), largest, largest), dtype=torch.float32)
        every = zip(self.nets, self.preprocessings, self.flips, self.precisions, self.weights, strict=True)
        for net, preprocessing, flip, precision, weight in every:
            with precision.on(self.device):
                part = infer(net, images, preprocessing, flip)
            if part.shape[-1] != largest:
                part = torch.nn.functional.interpolate(part[:, None], size=largest, mode="bilinear")[:, 0]
            total = total + float(weight) * part
        return np.asarray(total.clamp(0, 1).cpu().numpy())  # weights like 0.1 add up to 1 but for a rounding

    def predict(self, image: Any) -> Prediction:
        """Find pneumothorax on one radiograph.

        image: a path; the bytes of a DICOM, PNG or JPEG file, or a binary file; a pydicom Dataset; a PIL image; a numpy
        array or a torch tensor, (rows, columns) with one or three equal channels, uint8, uint16 or float in [0, 1],
        bright = dense (MONOCHROME2; invert a MONOCHROME1 array first). See `data.in_memory`.
        Raises: InputError if it cannot be read, or is something else.
        """
        return self.predict_radiographs([radiograph_of(image)])[0]

    def predict_many(self, images: Iterable[Any], batch_size: int = 4) -> Iterator[Prediction]:
        """Yield the prediction of each radiograph, in order; `predict` says what a radiograph may be.

        images: a list or any iterator; at most batch_size of them are in memory.
        Raises: InputError at once if `images` cannot be iterated; for a radiograph that cannot be read, after the
        predictions of those before it.
        """
        if not isinstance(batch_size, int) or batch_size < 1:
            raise InputError(f"batch_size is a whole number from 1 on, not {batch_size!r:.40}")
        return self._stream(each_of(images), batch_size)

    def _stream(self, images: Iterator[object], batch_size: int) -> Iterator[Prediction]:
        refusal = None
        while refusal is None:
            batch: list[Radiograph] = []
            try:
                batch.extend(map(radiograph_of, islice(images, batch_size)))
            except InputError as error:
                refusal = error
            if batch:
                yield from self.predict_radiographs(batch)
            elif refusal is None:
                return
        raise refusal

    def __repr__(self) -> str:
        nets = dict.fromkeys(f"{one.model.architecture} {one.model.encoder}" for one in self.checkpoints)
        sizes = ", ".join(map(str, sorted({preprocessing.size_px for preprocessing in self.preprocessings})))
        count = f"{len(self.checkpoints)} checkpoints, " if len(self.checkpoints) > 1 else ""
        return f"Predictor({count}{', '.join(nets)}, {sizes} px, tta={self.tta!r}, {self.device}, {self.precision})"

    def calibrated(self, probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
        """Scale pixel probabilities, of any shape, by the model's temperature; unchanged without a calibration."""
        return self.calibration.pixels(probabilities) if self.calibration else probabilities

    def predict_radiographs(self, radiographs: Sequence[Radiograph]) -> list[Prediction]:
        """Find pneumothorax on radiographs that are already read, as one batch."""
        pairs = [(geometry_of(radiograph, self.prepared_px), radiograph) for radiograph in radiographs]
        squares = np.stack([geometry.image_to_square(radiograph.image) for geometry, radiograph in pairs])
        probabilities = self.probabilities(squares)
        return [self._decide(*pair) for pair in zip(radiographs, probabilities, strict=True)]

    def _decide(self, radiograph: Radiograph, square: NDArray[np.float32]) -> Prediction:
        geometry = geometry_of(radiograph, self.prepared_px)
        # Back the way it came: the padding of the prepared square falls between the pixels of a smaller one.
        prepared = SquareGeometry(self.prepared_px, self.prepared_px, square.shape[0]).probabilities_to_original(square)
        probabilities = geometry.probabilities_to_original(prepared)
        mask = self.triplet.apply(probabilities, geometry.whole_area_px)
        area_px, spacing = int(mask.sum()), radiograph.pixel_spacing_mm
        score, calibration = image_score(square), self.calibration
        rule_out = calibration.conformal if calibration else None
        return Prediction(
            image_id=radiograph.image_id,
            radiograph=radiograph,
            probabilities=probabilities,
            predicted_mask=mask,
            is_positive=area_px > 0,
            score=score,
            probability=float(calibration.images(score)) if calibration else None,
            ruled_out=bool(score < rule_out.threshold) if rule_out else None,
            area_px=area_px,
            area_mm2=area_px * spacing[0] * spacing[1] if spacing else None,
            side=side_of(mask, radiograph.patient_orientation),
            prevalence=self.prevalence,
            algorithm=self.algorithm,
        )


def _flips(tta: object) -> bool:
    if tta not in ("none", "flip"):
        raise InputError(f"tta is none or flip, not {tta!r}")
    return tta == "flip"


def _calibration(given: Mapping[str, Any] | None, checkpoints: Sequence[Checkpoint]) -> Calibration | None:
    """Return the calibration of all checkpoints; None where they differ, as none then fits the mean."""
    headers = [given] if given is not None else [checkpoint.calibration for checkpoint in checkpoints]
    if any(header is None or header != headers[0] for header in headers):
        return None
    try:
        return Calibration.of(headers[0] or {})
    except ValueError as error:
        raise CheckpointError(f"{error}; write it anew with pleura tune") from error


def _prevalence(header: Mapping[str, Any] | None) -> float | None:
    """The share of positives among the cases that a calibration was fitted on; None where it does not say."""
    share = (header or {}).get("prevalence")
    return float(share) if isinstance(share, float) and 0 < share < 1 else None
