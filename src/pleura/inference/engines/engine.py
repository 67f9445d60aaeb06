"""What every engine is: one net that runs, whatever runs it."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pleura.inference.precision import Precision


class Engine(Protocol):
    """One net, ready to run on one device."""

    name: str
    """`torch`, `onnxruntime` or `openvino`."""
    size_px: int
    """Side of what it returns."""
    tta: str
    """`none`, or `flip` for the mean with the mirrored image."""
    precision: Precision
    device: str
    weights_sha256: str
    """Of the checkpoint's weights, as `models.identity.weights_hash` names them."""

    def probabilities(self, squares: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the probabilities of prepared images: (N, S, S) uint8 -> (N, size_px, size_px) float32 in [0, 1].

        An image's do not depend on those beside it where the device is a CPU. Not finite where the weights are damaged.
        """
