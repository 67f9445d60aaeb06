"""Settings that do nothing, because of the value of another one: which they are, why, and the way out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pleura.config.augmentation import AugmentConfig
from pleura.config.document import dotted
from pleura.config.model import ModelConfig
from pleura.config.overrides import Override
from pleura.config.recipe import Recipe
from pleura.config.training import LossConfig, StageConfig

_ELASTIC, _GRID, _OPTICAL = (
    ("elastic_alpha", "elastic_sigma"),
    ("grid_steps", "grid_limit"),
    ("optical_limit", "optical_shift"),
)
_AFFINE, _TONE = ("shift", "scale", "rotate_degrees"), ("contrast", "brightness", "gamma")
_WARPS = (*_AFFINE, *_ELASTIC, *_GRID, *_OPTICAL)


@dataclass(frozen=True)
class Idle:
    """A setting that does nothing."""

    path: str
    """Where it stands: `model.KEY`, `training.KEY` where it does nothing in any stage, `stages.NAME.KEY` else."""
    value: Any
    reason: str

    def __str__(self) -> str:
        return f"{self.path} ({self.value}) does nothing: {self.reason}"


def idle_settings(recipe: Recipe) -> list[Idle]:
    """What a recipe sets to another value than the default without any effect.

    What stages share counts only if none of them uses it.
    """
    defaults = dotted(ModelConfig().model_dump())
    values = dotted(recipe.model.model_dump())
    found = [
        Idle(f"model.{key}", values[key], reason)
        for key, reason in idle_of_model(recipe).items()
        if values[key] != defaults[key]
    ]
    defaults = dotted(StageConfig(name="a").model_dump())
    every = [(stage, dotted(stage.model_dump()), idle_of_stage(stage)) for stage in recipe.stages]
    for key in defaults:
        for value in _distinct(values[key] for _, values, _ in every if key in values):
            those = [(stage, idle.get(key)) for stage, values, idle in every if values.get(key) == value]
            if value == defaults[key] or not all(reason for _, reason in those):
                continue
            everywhere = len(those) == len(recipe.stages)
            places = ["training"] if everywhere else [f"stages.{stage.name}" for stage, _ in those]
            found += [
                Idle(f"{place}.{key}", value, reason or "") for place, (_, reason) in zip(places, those, strict=False)
            ]
    return found


def idle_overrides(recipe: Recipe, overrides: Iterable[Override]) -> list[str]:
    """A fault for each override that changes nothing, whatever its value is."""
    model, stages = idle_of_model(recipe), [idle_of_stage(stage) for stage in recipe.stages]
    faults = []
    for override in overrides:
        for path in _leaves(override.path, override.value):
            reasons: Sequence[Mapping[str, str]] = ()
            if path[0] == "model":
                reasons, key = [model], ".".join(path[1:])
            elif path[0] == "training":
                reasons, key = stages, ".".join(path[1:])
            elif path[0] == "stages" and len(path) > 2 and path[1].isdecimal():
                reasons, key = stages[int(path[1]) : int(path[1]) + 1], ".".join(path[2:])
            if reasons and all(key in reason for reason in reasons):
                faults.append(f"{'.'.join(path)}: would do nothing, {reasons[0][key]}")
    return faults


def idle_of_model(recipe: Recipe) -> dict[str, str]:
    """Key -> reason and way out, of each setting of the net that does nothing, whatever its value is."""
    model = recipe.model
    idle: dict[str, str] = {}
    if model.architecture == "albunet":
        keys = ("decoder_widths", "last_width", "normalisation", "bottleneck", "upsampling")
        idle |= dict.fromkeys(keys, "albunet has one decoder; set model.architecture=unet for others")
    elif model.output_stride > 1:
        idle["last_width"] = "nothing is decoded at full resolution; set model.output_stride=1 for it"
    for head, losses in (("presence_head", ("presence", "image")), ("deep_supervision", ("deep",))):
        if getattr(model, head) and not any(getattr(stage.loss, loss) for stage in recipe.stages for loss in losses):
            idle[head] = f"no stage trains it; give training.loss.{losses[0]} a weight"
    return idle


def idle_of_stage(stage: StageConfig) -> dict[str, str]:
    """Key -> reason and way out, of each setting of a stage that does nothing, whatever its value is."""
    return dict(
        reversed([*_of_rates(stage), *_of_loss(stage.loss), *_of_averages(stage), *_of_augmentation(stage.augment)])
    )


def _of_rates(stage: StageConfig) -> Iterator[tuple[str, str]]:
    if stage.optimizer != "sgd":
        yield "momentum", f"it is of sgd, and optimizer is {stage.optimizer}"
    schedule = stage.schedule
    cosine, plateau = ("warmup_epochs", "period_epochs"), ("factor", "patience")
    others = {"cosine": plateau, "plateau": cosine, "constant": ("min_lr", *cosine, *plateau)}[schedule.name]
    for key in others:
        owner = {"min_lr": "cosine and plateau"}.get(key, "cosine" if key in cosine else "plateau")
        yield f"schedule.{key}", f"it is of {owner}, and schedule.name is {schedule.name}"
    if schedule.name != "constant" and stage.lr <= schedule.min_lr:
        reason = f"lr ({stage.lr:g}) is not above schedule.min_lr ({schedule.min_lr:g}), and so stays as it is"
        yield from ((f"schedule.{key}", reason) for key in ("name", "min_lr", *cosine, *plateau))
    if stage.early_stopping >= stage.epochs:
        yield "early_stopping", f"the stage has only {stage.epochs} epochs"
    if stage.freeze_encoder_epochs >= stage.epochs:
        yield "freeze_encoder_stride", "freeze_encoder_epochs freezes all of the encoder for the whole stage"
    if stage.labels.teacher is None:
        yield "labels.teacher_share", "there is no teacher; set labels.teacher"
    if stage.freeze_encoder_epochs >= stage.epochs or stage.freeze_encoder_stride == 32:
        yield "labels.features", "all of the encoder, which learns them, is frozen for the whole stage"


def _of_loss(loss: LossConfig) -> Iterator[tuple[str, str]]:
    if not loss.focal:
        yield "loss.focal_gamma", "loss.focal is 0; give it a weight"
    if not loss.tversky:
        yield from ((f"loss.tversky_{key}", "loss.tversky is 0; give it a weight") for key in ("alpha", "beta"))
    if not (loss.dice or loss.jaccard or loss.tversky):
        reason = "loss.dice, loss.jaccard and loss.tversky are 0; give one of them a weight"
        yield from ((f"loss.{key}", reason) for key in ("smooth", "per_image"))


def _of_averages(stage: StageConfig) -> Iterator[tuple[str, str]]:
    averaging = stage.averaging
    if not (averaging.swa_epochs or averaging.ema_decay or averaging.top_k or averaging.incoming_share):
        way_out = "set averaging.swa_epochs, ema_decay, top_k or incoming_share"
        yield "averaging.refresh_cases", f"nothing is averaged; {way_out}"


def _of_augmentation(augment: AugmentConfig) -> Iterator[tuple[str, str]]:
    warps = augment.affine_probability or augment.distortion_probability
    switches: dict[str, tuple[str, ...]] = {
        "affine_probability": _AFFINE,
        "distortion_probability": (*_ELASTIC, *_GRID, *_OPTICAL),
        "intensity_probability": _TONE,
        "blur_probability": ("blur_sigma_px",),
        "noise_probability": ("noise_sigma",),
        "jpeg_probability": ("jpeg_quality",),
        "strength": (*_WARPS, *_TONE, "blur_sigma_px", "noise_sigma", "jpeg_quality"),
        "elastic_alpha": ("elastic_sigma",),
        "grid_limit": ("grid_steps",),
    }
    for switch, keys in switches.items():
        if not getattr(augment, switch):
            yield from ((f"augment.{key}", f"augment.{switch} is 0; give it a value above 0") for key in keys)
    probabilities = ("affine", "distortion", "intensity", "blur", "noise", "jpeg")
    if not any(getattr(augment, f"{name}_probability") for name in probabilities):
        yield "augment.strength", "every probability but that of the flip is 0; give one of them a value above 0"
    if not warps:
        yield "augment.border", "augment.affine_probability and augment.distortion_probability are 0"


def _leaves(path: tuple[str, ...], value: Any) -> Iterator[tuple[str, ...]]:
    """The settings that an override names: itself, or those of the section that it gives."""
    if isinstance(value, dict) and value and path[-1] not in ("weights", "smoothing"):
        for key, inner in value.items():
            yield from _leaves((*path, str(key)), inner)
    else:
        yield path


def _distinct(values: Iterable[Any]) -> list[Any]:
    distinct: list[Any] = []
    for value in values:
        if value not in distinct:
            distinct.append(value)
    return distinct
