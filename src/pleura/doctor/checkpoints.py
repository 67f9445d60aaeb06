"""Checkpoints, ours and others': damaged weights, and what doctor/models.py looks for in any model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from torch import Tensor

from pleura.doctor.examination import Against, Examination, some
from pleura.doctor.models import check_on_data, check_past, check_rule, check_scaling
from pleura.errors import CheckpointError, ConfigError, InputError, excerpt
from pleura.inference.device import pick_device
from pleura.inference.model_files import find_model
from pleura.inference.precision import precision_of_predictor
from pleura.models.checkpoint import Checkpoint, load_checkpoint, net_of
from pleura.models.identity import weights_hash
from pleura.models.published import published_config
from pleura.models.weights import not_finite, read_weights

ELSEWHERE = (
    ("segmentation_head.", "segmentation_models_pytorch"),
    ("decoder_stages.", "the winner's U-Nets (selim_zoo)"),
    ("center.block.", "AlbuNet (ternausnets)"),
    ("roi_heads.", "torchvision's Mask R-CNN"),
    ("classifier.", "a classifier"),
    ("fc.", "a classifier"),
)
"""Prefix of a key -> the project that names keys so; the first match counts."""


def examine_run(folder: Path, against: Against) -> Examination:
    """Examine every checkpoint of a run. Raises: CheckpointError, InputError."""
    found = Examination("a run")
    for path in find_model(folder).checkpoints:
        part = examine_checkpoint(path, against)
        name = path.relative_to(folder).as_posix()
        found.facts += [f"{name}: {line}" for line in part.facts]
        for finding in part.findings:
            found.add(type(finding)(finding.severity, f"{name}: {finding.what}", finding.way_out))
    return found


def examine_checkpoint(path: Path, against: Against) -> Examination:
    """Examine a checkpoint of pleura, or a state dict of another project. Raises: CheckpointError, InputError."""
    if path.suffix == ".safetensors" and _is_ours(path):
        return _ours(path, against)
    return _theirs(path)


def _is_ours(path: Path) -> bool:
    try:
        with safe_open(path, framework="pt") as file:
            return "preprocessing" in (file.metadata() or {})
    except (SafetensorError, OSError, ValueError) as error:
        reason = excerpt(error)
        raise CheckpointError(f"{path}: is damaged or no safetensors file ({reason}); copy it again") from error


def _theirs(path: Path) -> Examination:
    found = Examination("weights of another project")
    try:
        state = read_weights(path)
    except InputError as error:
        if not any(sign in str(error) for sign in ("besides tensors", "TorchScript", "no state dict")):
            raise
        found.error(
            "it holds objects besides tensors; unpickling them runs whatever code they name, so that nothing was read",
            "ask for a state dict, torch.save(net.state_dict(), FILE), or a .safetensors file",
        )
        return found
    _weights(state, found)
    for architecture in ("unet", "albunet"):
        try:
            config = published_config(state, architecture, None, str(path))
        except (CheckpointError, ConfigError):
            continue
        found.facts.append(f"the winner's {architecture} with {config.encoder}, {config.in_channels} channels")
        found.note(
            "it does not say how images were scaled, nor what it was trained on",
            f"pleura import-weights {path.name} --architecture {architecture} --out NAME.safetensors",
        )
        return found
    who = next((name for mark, name in ELSEWHERE if any(key.startswith(mark) for key in state)), "not known")
    found.facts.append(f"its keys look like: {who} ({some(state, 2)})")
    found.warn(
        "it is none of the nets that pleura can build", "have it write masks, and score those: pleura doctor CSV"
    )
    return found


def _weights(weights: dict[str, Tensor], found: Examination) -> None:
    count = sum(tensor.numel() for tensor in weights.values())
    kinds = sorted({str(tensor.dtype).removeprefix("torch.") for tensor in weights.values()})
    found.facts.append(f"{len(weights)} tensors, {count:,} numbers ({', '.join(kinds)})")
    real = {key: tensor for key, tensor in weights.items() if tensor.is_floating_point()}
    if broken := not_finite(weights):
        found.error(
            f"{len(broken)} tensors hold NaN or infinity: {some(broken)}",
            "take an earlier checkpoint; train with a lower rate or gradient_clip",
        )
    zero = [key for key, tensor in real.items() if key.endswith("weight") and tensor.numel() > 1 and not tensor.any()]
    if zero:
        found.warn(f"{len(zero)} weights are all 0: {some(zero)}", "was the file written before training?")


def _ours(path: Path, against: Against) -> Examination:
    checkpoint = load_checkpoint(path, damaged=True)
    found = Examination("a checkpoint of pleura")
    found.facts.append(f"{checkpoint.model.architecture} with {checkpoint.model.encoder}")
    net_of(checkpoint)  # refuses weights of another architecture
    weights, tta = weights_hash(checkpoint.weights), checkpoint.recipe.get("tta", "none")
    precision = precision_of_predictor(None, checkpoint, weights, tta, pick_device())
    found.facts.append(f"here it predicts in {precision}")
    _weights(checkpoint.weights, found)
    check_rule(checkpoint, found)
    if check_scaling(checkpoint, found) and checkpoint.model.input_scaling == "encoder":
        _as_the_encoder_expects(checkpoint, found)
    check_past(checkpoint, found)
    check_on_data(path, checkpoint, against.data, found, "none", runs=not not_finite(checkpoint.weights))
    return found


def _as_the_encoder_expects(checkpoint: Checkpoint, found: Examination) -> None:
    """Compare the scaling in serving with what the weights of the encoder come with."""
    given, encoder = checkpoint.preprocessing, net_of(checkpoint).encoder
    mean, std = float(np.mean(given.mean)), float(np.mean(given.std))
    if abs(mean - encoder.mean) > 0.01 or abs(std - encoder.std) > 0.01:
        found.error(
            f"trained with the encoder's mean {encoder.mean:.3f} and std {encoder.std:.3f} (model.input_scaling), "
            f"served with {mean:.3f} and {std:.3f}",
            "use one preprocessing for both: train or import it again",
        )
