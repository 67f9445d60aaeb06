"""Checkpoints under the key names of the winner's repository -> one of ours, with equal outputs.

Source: https://github.com/sneddy/pneumothorax-segmentation.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pleura import __version__
from pleura.config.imported.nets import ENCODERS
from pleura.config.imported.transforms import IMAGENET
from pleura.decision.triplet import Triplet
from pleura.errors import CheckpointError, ConfigError, InputError, OutputError
from pleura.files import hash_files
from pleura.models.build import build_model
from pleura.models.checkpoint import Checkpoint, load_weights, save_checkpoint
from pleura.models.preprocessing import REDUCTION, Preprocessing
from pleura.models.published import published_config, published_weights
from pleura.models.seen import IMPORTED, SeenCases
from pleura.models.weights import not_finite, read_weights

WINNERS_TRIPLET = Triplet(0.75, 2000, 0.3)
"""The winner's best on validation, among the eight that he tried."""


@dataclass(frozen=True)
class WeightSettings:
    """What `import_weights` reads and writes."""

    file: Path
    """A state dict in a .pth, .pt or .safetensors file."""
    architecture: str
    """`unet` or `albunet`."""
    out: Path
    """The checkpoint to write."""
    encoder: str | None = None
    """timm's name of a unet's encoder, or the repository's; None reads it off the blocks."""
    size_px: int = 1024
    """Side of the square images that it was trained on."""
    input_scaling: str | None = None
    """`encoder` (ImageNet's, for each channel) or `none` ([0, 1]); None: as published for that net."""
    triplet: str | None = None
    """TOP/PIXELS/BOTTOM; None: the winner's best on validation."""


def import_weights(settings: WeightSettings) -> Checkpoint:
    """Turn a published state dict into a checkpoint whose net gives the same logits; nothing but tensors is unpickled.

    Raises: InputError if the file cannot be read as tensors, CheckpointError if they are not the tensors of that net,
    ConfigError for settings that do not fit, OutputError if the checkpoint cannot be written.
    """
    triplet = _triplet(settings.triplet)
    if settings.out.exists():
        raise OutputError(f"cannot write {settings.out}: a file of that name is in the way; choose another --out")
    state = read_weights(settings.file)
    origin = str(settings.file)
    encoder = ENCODERS[settings.encoder][0] if settings.encoder in ENCODERS else settings.encoder
    if wrong := not_finite(state):
        raise CheckpointError(
            f"{origin}: {len(wrong)} tensors hold NaN or infinity, {wrong[0]} first; copy the file again"
        )
    config = published_config(state, settings.architecture, encoder, origin)
    scaling = settings.input_scaling or _published_scaling(config.architecture, config.encoder)
    config = config.model_copy(update={"input_scaling": scaling})
    net = build_model(config)
    weights = published_weights(net, config, state, origin)
    load_weights(net, weights, origin)
    checkpoint = Checkpoint(
        model=config,
        weights=weights,
        preprocessing=_preprocessing(settings.size_px, config.in_channels, scaling),
        triplet=triplet,
        seen=SeenCases(unknown=(IMPORTED,)),
        provenance={
            "imported": settings.file.name,
            "sha256": hash_files(settings.file),
            "triplet": "given" if settings.triplet else "the winner's best on validation, not tuned for these weights",
            "pleura": __version__,
        },
    )
    save_checkpoint(settings.out, checkpoint)
    return checkpoint


def _published_scaling(architecture: str, encoder: str) -> str:
    # The winner's AlbuNet and seunet saw [0, 1]; his resnet50 and the notebook's densenet ImageNet's scaling.
    return "none" if architecture == "albunet" or encoder.startswith("legacy_se") else "encoder"


def _preprocessing(size_px: int, channels: int, scaling: str) -> Preprocessing:
    if scaling == "none":
        return Preprocessing(size_px, size_px, channels, 0.0, 1.0, REDUCTION)
    mean, std = IMAGENET
    if channels != len(mean):
        return Preprocessing(size_px, size_px, channels, sum(mean) / len(mean), sum(std) / len(std), REDUCTION)
    return Preprocessing(size_px, size_px, channels, list(mean), list(std), REDUCTION)


def _triplet(text: str | None) -> Triplet:
    if text is None:
        return WINNERS_TRIPLET
    try:
        top, pixels, bottom = text.split("/")
        return Triplet(float(top), int(pixels), float(bottom))
    except ValueError as error:
        raise ConfigError(f"{text!r} is no triplet; write TOP/PIXELS/BOTTOM, as in 0.75/2000/0.3") from error
    except InputError as error:
        raise ConfigError(f"{text!r} is no triplet: {error}; write TOP/PIXELS/BOTTOM, as in 0.75/2000/0.3") from error
