"""From grey images to probabilities with PyTorch: for validation, for teachers, and as an engine of a checkpoint."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pleura.inference.device import pick_device
from pleura.inference.precision import precision_of_predictor
from pleura.models.cancelling import keep_cancelling
from pleura.models.checkpoint import Checkpoint, net_of
from pleura.models.folding import folded
from pleura.models.identity import weights_hash
from pleura.models.net import Net
from pleura.models.preprocessing import Preprocessing, normalise
from pleura.models.resize import resize_images


@torch.inference_mode()
def infer(net: Net, images: Tensor, preprocessing: Preprocessing, flip: bool = False) -> Tensor:
    """Return the probabilities of a batch.

    images: (N, 1, H, W) uint8, or float32 in [0, 1], of any side. flip: mean with the flipped image's (TTA).
    Returns: (N, size_px, size_px) float32 in [0, 1], the first class. The presence rule acts on each view.
    """
    inputs = normalise(resize_images(images, preprocessing.size_px, preprocessing.reduction), preprocessing)
    inputs = inputs.contiguous(memory_format=torch.channels_last)
    probabilities = net.probabilities(inputs)
    if flip:
        probabilities = (probabilities + net.probabilities(inputs.flip(-1)).flip(-1)) / 2
    return probabilities[:, 0]


class TorchEngine:
    """A checkpoint's net in PyTorch, on any device that it knows."""

    name = "torch"

    def __init__(
        self,
        checkpoint: Checkpoint,
        tta: str = "none",
        device: str | None = None,
        precision: str | None = None,
        size_px: int | None = None,
    ) -> None:
        """device: as `pick_device` takes it. precision: as `precision_of_predictor` takes it.

        size_px: side of what it returns; that of its preprocessing by default, and enlarged to another.
        Raises: CheckpointError if weights do not fit their net; InputError for a device or precision that is not here.
        """
        self.preprocessing, self.tta = checkpoint.preprocessing, tta
        self.size_px = size_px or checkpoint.preprocessing.size_px
        self._device = pick_device(device)
        self.device = str(self._device)
        net = folded(net_of(checkpoint))
        keep_cancelling(net)
        self.net: Net = net.to(self._device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        """With BatchNorm folded: it computes what `net_of` does, but for rounding."""
        self.weights_sha256 = weights_hash(checkpoint.weights)
        self.precision = precision_of_predictor(precision, checkpoint, self.weights_sha256, tta, self._device)

    @torch.inference_mode()
    def probabilities(self, squares: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See `Engine.probabilities`."""
        # One by one on a CPU: the tensors of a single image stay in memory that the process has, those of several are
        # mapped and zeroed anew in each layer. Nor does a prediction depend on the images beside it.
        at_a_time = 1 if self._device.type == "cpu" else max(1, len(squares))
        parts = [squares[first : first + at_a_time] for first in range(0, len(squares), at_a_time)]
        return np.concatenate([self._batch(part) for part in parts or [squares]])

    def _batch(self, squares: NDArray[np.uint8]) -> NDArray[np.float32]:
        images = torch.from_numpy(np.array(squares))[:, None].to(self._device)
        with self.precision.on(self._device):
            found = infer(self.net, images, self.preprocessing, self.tta == "flip")
        if found.shape[-1] != self.size_px:
            found = torch.nn.functional.interpolate(found[:, None], size=self.size_px, mode="bilinear")[:, 0]
        return np.asarray(found.cpu().numpy())
