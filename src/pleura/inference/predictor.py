"""From an image to a mask: `Predictor` is the one path, for Python, the command line and evaluation."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, reduce
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pleura.data.geometry import SquareGeometry
from pleura.data.in_memory import each_of, radiograph_of
from pleura.data.radiograph import geometry_of
from pleura.decision.calibration import Calibration, prevalence_of
from pleura.decision.laterality import side_of
from pleura.decision.triplet import Triplet, image_score, mean_triplet
from pleura.dicom.read import Radiograph
from pleura.dicom.results import Algorithm
from pleura.errors import CheckpointError, InputError
from pleura.inference.algorithm import algorithm_of, hash_of
from pleura.inference.engines.choice import Runnable, Wanted, engine_of, load_model
from pleura.inference.engines.engine import Engine
from pleura.inference.model_files import find_model
from pleura.inference.precision import Precision
from pleura.inference.prediction import Prediction
from pleura.models.default import DEFAULT
from pleura.models.exported import Exported
from pleura.models.header import ModelHeader


class Predictor:
    """One model, or the weighted mean of several, ready to run. Takes everything it needs from their files."""

    def __init__(
        self,
        models: Sequence[Runnable],
        tta: str | None = None,
        device: str | None = None,
        weights: Sequence[float] | None = None,
        triplet: Triplet | None = None,
        calibration: Mapping[str, Any] | None = None,
        precision: str | None = None,
        engine: str | None = None,
    ) -> None:
        """models: checkpoints, or exported models.

        tta: `none`, `flip` for the mean with the mirrored image, or None for what each checkpoint's recipe says.
        device: as `pick_device` takes it, the GPU if there is one by default.
        weights: of each model in the mean; equal by default.
        triplet: the decision rule; by default the weighted mean of the models' own.
        calibration: as a checkpoint's header has it; by default what all models agree on. It is for what is
        reported: the triplet acts on the probabilities before it, and finds the same with it and without.
        precision: auto, float32 or bfloat16; by default as `precision_of_predictor` says.
        engine: auto, torch or onnxruntime; see `engines.choice`.
        Raises: CheckpointError if weights do not fit their net, or the models differ in preparation;
        InputError for another tta, precision or engine, or a device that is not there.
        """
        wanted = Wanted(tta, device, precision, engine)
        self.headers: list[ModelHeader] = [model.header for model in models]
        self.triplet_is_given = triplet is not None
        self.weights = np.asarray(weights or [1.0] * len(models), dtype=np.float64)
        self.weights /= self.weights.sum()
        preprocessings = [header.preprocessing for header in self.headers]
        if len({preprocessing.prepared_px for preprocessing in preprocessings}) != 1:
            raise CheckpointError("the checkpoints were trained on datasets of different --size; use one at a time")
        self.prepared_px = preprocessings[0].prepared_px
        self.triplet = triplet or mean_triplet([header.triplet for header in self.headers], self.weights)
        self.calibration = _calibration(calibration, self.headers)
        self.prevalence = prevalence_of(calibration or self.headers[0].calibration) if self.calibration else None
        largest = max(preprocessing.size_px for preprocessing in preprocessings)
        self.engines: list[Engine] = [engine_of(model, wanted, largest) for model in models]
        self.doubts = _doubts(models, self.engines)
        """Of exported models that are not certified to compute what their checkpoint does; each result repeats them."""

    @classmethod
    def load(
        cls,
        path: Path | str = DEFAULT,
        tta: str | None = None,
        device: str | None = None,
        precision: str | None = None,
        engine: str | None = None,
    ) -> Predictor:
        """Load a checkpoint, an exported model, the best checkpoint of each fold of a run, or an ensemble of runs.

        path: the model that comes with pleura, by default. tta: that of the recipe, by default. device: see
        `pick_device`. precision: auto, float32 or bfloat16, see `precision_of_predictor`. engine: auto, torch or
        onnxruntime.

        >>> image = np.tile(np.arange(256, dtype=np.uint8), (256, 1))
        >>> Predictor.load(device="cpu").predict(image).predicted_mask.shape
        (256, 256)

        Raises: CheckpointError, InputError.
        """
        files, wanted = find_model(path), Wanted(tta, device, precision, engine)
        models = [load_model(file, wanted) for file in files.checkpoints]
        if files.tuned_on:  # the cases of the common rule count as chosen on for each
            models = [replace(one, seen=one.seen.and_chosen_on(files.tuned_on)) for one in models]
        made = cls(models, tta, device, files.weights, files.triplet, files.calibration, precision, engine)
        made.triplet_is_given = files.triplet is not None and not files.tuned_on
        return made

    @property
    def tta(self) -> str:
        """`none`, `flip`, or `mixed` where the recipes of an ensemble differ."""
        return _one_of(engine.tta for engine in self.engines)

    @property
    def precisions(self) -> list[Precision]:
        """What each net computes in."""
        return [engine.precision for engine in self.engines]

    @property
    def precision(self) -> str:
        """`float32`, `bfloat16`, or `mixed` where the models of an ensemble differ."""
        return _one_of(precision.name for precision in self.precisions)

    @property
    def engine(self) -> str:
        """What runs the nets: `torch` or `onnxruntime`."""
        return _one_of(engine.name for engine in self.engines)

    @property
    def device(self) -> str:
        """Where they run, such as `cpu` or `cuda:0`."""
        return _one_of(engine.device for engine in self.engines)

    @property
    def weights_sha256(self) -> tuple[str, ...]:
        """The sha256 of each net's weights."""
        return tuple(engine.weights_sha256 for engine in self.engines)

    @cached_property
    def algorithm(self) -> Algorithm:
        """What the results are by, as DICOM objects say it."""
        model = (self.headers, hash_of(self.weights_sha256), self.weights, self.triplet, self.calibration)
        return algorithm_of(*model, tta=self.tta, precision=self.precision, engine=self.engine)

    def probabilities(self, squares: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the probabilities of prepared images: (N, S, S) uint8 -> (N, size_px, size_px) float32 in [0, 1].

        size_px is the largest among the models; smaller ones' probabilities are enlarged.
        Raises: CheckpointError if they are not finite.
        """
        each = zip(self.engines, self.weights, strict=True)
        parts = (np.float32(weight) * engine.probabilities(squares) for engine, weight in each)
        mean: NDArray[np.float32] = reduce(operator.add, parts)
        if not np.isfinite(mean).all():
            raise CheckpointError("the model gives probabilities that are not finite: its weights are damaged")
        return np.clip(mean, np.float32(0), np.float32(1))  # weights like 0.1 add up to 1 but for a rounding

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
        nets = dict.fromkeys(f"{one.model.architecture} {one.model.encoder}" for one in self.headers)
        sizes = ", ".join(map(str, sorted({one.preprocessing.size_px for one in self.headers})))
        count = f"{len(self.headers)} checkpoints, " if len(self.headers) > 1 else ""
        where = f"{self.engine}, {self.device}, {self.precision}"
        return f"Predictor({count}{', '.join(nets)}, {sizes} px, tta={self.tta!r}, {where})"

    def calibrated(self, probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
        """Scale pixel probabilities, of any shape, by the model's temperature; unchanged without a calibration."""
        return self.calibration.pixels(probabilities) if self.calibration else probabilities

    def predict_radiographs(self, radiographs: Sequence[Radiograph]) -> list[Prediction]:
        """Find pneumothorax on radiographs that are already read, as one batch."""
        probabilities = self.probabilities(np.stack([self.square(radiograph) for radiograph in radiographs]))
        return [self.decide(*pair) for pair in zip(radiographs, probabilities, strict=True)]

    def square(self, radiograph: Radiograph) -> NDArray[np.uint8]:
        """Return the prepared image of a radiograph, uint8 (S, S): one of those that `probabilities` takes."""
        return geometry_of(radiograph, self.prepared_px).image_to_square(radiograph.image)

    def decide(self, radiograph: Radiograph, square: NDArray[np.float32]) -> Prediction:
        """Return what the decision rule finds on a radiograph.

        square: its probabilities, (size_px, size_px) in [0, 1], as `probabilities` gives them.
        """
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
            radiograph=replace(radiograph, notes=(*radiograph.notes, *self.doubts)) if self.doubts else radiograph,
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


def _doubts(models: Sequence[Runnable], engines: Sequence[Engine]) -> tuple[str, ...]:
    each = (
        model.doubt(engine.name, engine.precision.name)
        for model, engine in zip(models, engines, strict=True)
        if isinstance(model, Exported)
    )
    return tuple(dict.fromkeys(filter(None, each)))


def _one_of(names: Iterable[str]) -> str:
    """The one name that all nets have, or `mixed`."""
    different = set(names)
    return "mixed" if len(different) > 1 else different.pop()


def _calibration(given: Mapping[str, Any] | None, headers: Sequence[ModelHeader]) -> Calibration | None:
    """Return the calibration of all models; None where they differ, as none then fits the mean."""
    each = [given] if given is not None else [header.calibration for header in headers]
    if any(one is None or one != each[0] for one in each):
        return None
    try:
        return Calibration.of(each[0] or {})
    except ValueError as error:
        raise CheckpointError(f"{error}; write it anew with pleura tune") from error
