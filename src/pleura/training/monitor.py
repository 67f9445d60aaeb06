"""What shows how a training goes: pictures of some validation cases, curves, and TensorBoard if it is asked for."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pleura.decision.triplet import Triplet
from pleura.errors import writing
from pleura.evaluation.metrics.siim import siim_dice
from pleura.evaluation.metrics.titles import OUTCOMES
from pleura.extras import need
from pleura.files import write_atomically
from pleura.inference.overlay import contact_sheet, overlay

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

SAMPLES, CURVES, EVENTS = "samples", "curves", "tensorboard"
SAMPLE_PX = 320
"""Longer side of a case in a contact sheet: enough for the pleural line, and small enough to keep one per epoch."""
OF_TRAINING = ("loss", "lr", "images_per_s", "seconds", "waiting_share")
"""Columns of metrics.csv that are about training; the other numbers are about validation."""


class Monitor:
    """The pictures and curves of one fold of one run. Only the main process has one."""

    def __init__(self, run: Path, tensorboard: bool, epochs_done: int = 0) -> None:
        """run: the folder of the fold. epochs_done: epochs of all stages that a resumed run does not repeat.

        With `tensorboard`, RUN/tensorboard gets event files, in which a repeated epoch replaces what it showed before.
        Raises: MissingExtraError if TensorBoard is asked for and not installed; OutputError if its folder cannot be
        written.
        """
        self.run, self.epochs = run, epochs_done
        self._writer = _writer(run / EVENTS, epochs_done + 1) if tensorboard else None

    def add_epoch(self, row: Mapping[str, Any]) -> None:
        """Show the row of metrics.csv of an epoch that has ended. Raises: OutputError."""
        self.epochs += 1
        if self._writer is None:
            return
        with writing(self.run / EVENTS):
            for key, value in row.items():
                if isinstance(value, int | float) and key != "epoch" and math.isfinite(value):
                    group = "train" if key in OF_TRAINING else "val"
                    self._writer.add_scalar(f"{group}/{key}", value, self.epochs)
            self._writer.flush()

    def draw_samples(
        self,
        name: str,
        image_ids: Sequence[str],
        images: NDArray[np.float32],
        probabilities: NDArray[np.float32],
        masks: NDArray[np.uint8],
        triplet: Triplet,
    ) -> None:
        """Draw some validation cases, predicted masks in red and true ones in green, into RUN/samples/NAME.jpg.

        images: (N, H, W) float32 in [0, 1]. probabilities: (N, h, w) float32 in [0, 1], of the square images.
        masks: (N, h, w) uint8 in {0, 1}. Without cases nothing is written. TensorBoard shows the
        sheet at the last epoch of `add_epoch`.
        Raises: OutputError.
        """
        if len(images) == 0:
            return
        pictures = []
        for image, each, mask, image_id in zip(images, probabilities, masks, image_ids, strict=True):
            predicted = triplet.apply(each, each.size)
            caption = f"{_outcome(mask, predicted)}  {_short(image_id)}"
            pictures.append(overlay(_resized(image), predicted, mask, caption))
        sheet = contact_sheet(pictures)
        buffer = BytesIO()
        sheet.save(buffer, "JPEG", quality=85)
        write_atomically(self.run / SAMPLES / f"{name}.jpg", buffer.getvalue())
        if self._writer is not None:
            with writing(self.run / EVENTS):
                self._writer.add_image("samples", np.asarray(sheet), self.epochs, dataformats="HWC")
                self._writer.flush()

    def draw_curves(self, history: Sequence[Mapping[str, Any]]) -> None:
        """Draw all rows of metrics.csv so far into RUN/curves.svg and RUN/curves.png. Raises: OutputError."""
        from pleura.training.curves import curves  # a second of importing that no other epoch needs

        for kind, content in curves(history).items() if history else ():
            write_atomically(self.run / f"{CURVES}.{kind}", content)

    def close(self) -> None:
        """Write what TensorBoard has not written yet. Raises: OutputError."""
        if self._writer is not None:
            with writing(self.run / EVENTS):
                self._writer.close()


def _writer(folder: Path, first_epoch: int) -> SummaryWriter:
    """Open event files that replace, in what is shown, the epochs of earlier ones from `first_epoch` on."""
    need("tensorboard", "--tensorboard")
    from torch.utils.tensorboard import SummaryWriter

    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        return SummaryWriter(str(folder), purge_step=first_epoch)


def _resized(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """The image with SAMPLE_PX on its longer side: small ones too, so that their captions can be read."""
    scale = SAMPLE_PX / max(image.shape)
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    resized = Image.fromarray(np.ascontiguousarray(image)).resize(size, Image.Resampling.BILINEAR)
    return np.asarray(resized, dtype=np.float32)


def _outcome(mask: NDArray[np.uint8], predicted: NDArray[np.uint8]) -> str:
    outcome = OUTCOMES[bool(mask.any()), bool(predicted.any())]
    return f"{outcome}, Dice {siim_dice(mask, predicted)[0]:.2f}" if outcome == "found" else outcome


def _short(image_id: str) -> str:
    """The end of an id, where those of DICOM differ."""
    return image_id if len(image_id) <= 20 else f"...{image_id[-17:]}"
