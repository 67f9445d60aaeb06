"""The experiment file (recipe) as a typed schema, and the manual of every setting.

A recipe is a list of stages. `training` holds the settings all stages share; a stage names only what it changes and
starts from the best weights of the stage before it. Every fault of a file is reported at once, by dotted path.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from pleura.errors import ConfigError

Probability: TypeAlias = Annotated[float, Field(ge=0, le=1)]
NotNegative: TypeAlias = Annotated[float, Field(ge=0)]


class _Loader(yaml.SafeLoader):
    """YAML 1.1 reads 1e-4 as text; people who write learning rates mean the number."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


class _Strict(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True, allow_inf_nan=False
    )


class ModelConfig(_Strict):
    """The net."""

    architecture: Literal["unet", "albunet"] = "unet"
    """`unet`: any timm encoder with a U-Net decoder. `albunet`: ResNet34 with the TernausNet decoder."""
    encoder: str = "densenet121"
    """A timm net with pyramid features. `albunet` takes resnet34 alone."""
    pretrained: bool | str = True
    """true: ImageNet weights by timm's own download; false: random; a path: a local file with timm's key names."""
    in_channels: Literal[1, 3] = 1
    """1 folds a three-channel stem into one, with equal outputs on grey images."""
    classes: Annotated[int, Field(ge=1)] = 1
    """Output channels, each with a sigmoid of its own."""
    decoder_widths: list[Annotated[int, Field(ge=1)]] = [256, 256, 128, 64]
    """Channels of each decoder stage of a `unet`, low to high resolution; the notebook's by default."""
    last_width: Annotated[int, Field(ge=1)] = 64
    """Channels at full resolution, before the 1 x 1 convolution of a `unet`."""
    normalisation: Literal["none", "batch"] = "none"
    """What follows each decoder convolution of a `unet`; the published nets have nothing."""

    @model_validator(mode="after")
    def _albunet_is_resnet34(self) -> ModelConfig:
        if self.architecture == "albunet" and self.encoder != "resnet34":
            raise ValueError(f"albunet is built on resnet34, not on {self.encoder}; set model.encoder=resnet34")
        return self


class LossConfig(_Strict):
    """Weights of the sum BCE + soft Dice + focal; 0 leaves a term out."""

    bce: NotNegative = 1.0
    """Binary cross-entropy on logits, mean over pixels."""
    dice: NotNegative = 1.0
    """1 - soft Dice."""
    focal: NotNegative = 0.0
    """Focal loss, gamma 2, mean over pixels (arXiv 1708.02002)."""
    dice_per_image: bool = False
    """false: Dice pooled over the batch, as the winner's; true: mean of each image's Dice."""

    @model_validator(mode="after")
    def _something_to_minimise(self) -> LossConfig:
        if self.bce == self.dice == self.focal == 0:
            raise ValueError("all weights are 0; give at least one of bce, dice, focal a weight")
        return self


class ScheduleConfig(_Strict):
    """The learning rate over the epochs of a stage."""

    name: Literal["constant", "cosine", "plateau"] = "cosine"
    """`cosine`: from lr to min_lr, step by step; `plateau`: times `factor` after `patience` epochs without gain."""
    min_lr: NotNegative = 1e-6
    """The lowest learning rate."""
    warmup_epochs: NotNegative = 0.0
    """Epochs of linear warm-up before the cosine."""
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """What the plateau schedule multiplies the learning rate by."""
    patience: Annotated[int, Field(ge=0)] = 2
    """Epochs without a better validation score that the plateau schedule waits."""


class AugmentConfig(_Strict):
    """Random warps and intensities; the defaults are the published winner's."""

    horizontal_flip: Probability = 0.5
    """Probability of a left-right flip."""
    affine_probability: Probability = 0.5
    """Probability of shift, scale and rotation together."""
    shift: Probability = 0.0625
    """Largest shift as a share of the side, each axis."""
    scale: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Largest relative change of scale."""
    rotate_degrees: Annotated[float, Field(ge=0, le=180)] = 45.0
    """Largest rotation, either way, in degrees."""
    distortion_probability: Probability = 0.3
    """Probability of one of elastic, grid or optical distortion."""
    elastic_alpha: NotNegative = 120.0
    """Strength of the elastic displacement, in px at a side of 1024."""
    elastic_sigma: Annotated[float, Field(gt=0)] = 6.0
    """Smoothness of the elastic displacement, in px at a side of 1024."""
    grid_steps: Annotated[int, Field(ge=2)] = 5
    """Cells per side of the grid distortion."""
    grid_limit: Annotated[float, Field(ge=0, lt=1)] = 0.3
    """Largest relative change of a cell's size."""
    optical_limit: NotNegative = 2.0
    """Largest radial distortion coefficient."""
    optical_shift: NotNegative = 0.5
    """Largest shift of the optical centre, in px as published."""
    intensity_probability: Probability = 0.3
    """Probability of one of contrast, brightness or gamma."""
    contrast: NotNegative = 0.2
    """Largest relative change of contrast."""
    brightness: NotNegative = 0.2
    """Largest change of brightness, as a share of the range."""
    gamma: tuple[float, float] = (0.8, 1.2)
    """Range of the exponent."""
    blur_probability: Probability = 0.0
    """Probability of a Gaussian blur."""
    blur_sigma_px: tuple[float, float] = (0.5, 1.5)
    """Range of its sigma, in px of the stage's size."""
    noise_probability: Probability = 0.0
    """Probability of additive Gaussian noise."""
    noise_sigma: NotNegative = 0.02
    """Largest sigma of the noise, as a share of the range."""
    jpeg_probability: Probability = 0.0
    """Probability of JPEG artefacts."""
    jpeg_quality: tuple[int, int] = (50, 95)
    """Range of the JPEG quality."""
    border: Literal["reflect", "zeros"] = "reflect"
    """What a warp shows beyond the edge."""
    strength: NotNegative = 1.0
    """Multiplies every magnitude above, but no probability."""

    @model_validator(mode="after")
    def _ranges_rise(self) -> AugmentConfig:
        ranges = (("gamma", self.gamma, 0.01, 100), ("blur_sigma_px", self.blur_sigma_px, 0, 100))
        for name, (low, high), least, most in (*ranges, ("jpeg_quality", self.jpeg_quality, 1, 100)):
            if not least <= low <= high <= most:
                raise ValueError(f"{name} runs from low to high within {least} to {most}, not from {low} to {high}")
        return self


class TrainingConfig(_Strict):
    """How one stage trains. Every setting can stand in `training` (all stages) or in a stage (that one)."""

    size_px: Annotated[int, Field(ge=32)] = 512
    """Side of the square images of this stage."""
    epochs: Annotated[int, Field(ge=1)] = 10
    """Passes; an epoch is all positives and a share of the negatives (see positive_rate)."""
    batch_size: Annotated[int, Field(ge=1)] = 4
    """Images a step."""
    optimizer: Literal["adam", "adamw"] = "adam"
    """Adam (L2 in the gradient) or AdamW (decoupled)."""
    lr: Annotated[float, Field(gt=0)] = 1e-4
    """Learning rate at the start."""
    weight_decay: NotNegative = 0.0
    """Weight decay of the optimizer."""
    gradient_clip: NotNegative = 0.0
    """Largest norm of the gradient; 0 does not clip."""
    positive_rate: Annotated[float, Field(gt=0, le=1)] | None = None
    """Share of positives in an epoch: all of them, and a rotation of negatives. null: every case once."""
    cases_per_epoch: Annotated[int, Field(ge=1)] | None = None
    """At most so many cases an epoch, drawn anew for each; null: all of them. Shortens a run on a slow machine."""
    select: Literal["siim_dice", "siim_dice_at_siim_prevalence"] = "siim_dice"
    """The validation score that picks the best epoch and the triplet: over the cases as they are, or re-weighted to
    SIIM's 22.15 % positives where the dataset has another share."""
    early_stopping: Annotated[int, Field(ge=0)] = 0
    """Epochs without a better score before the stage ends; 0 never."""
    loss: LossConfig = LossConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    augment: AugmentConfig = AugmentConfig()


class StageConfig(TrainingConfig):
    """A `TrainingConfig` with a name."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")]
    """Names the stage, and its checkpoint in the run, NAME.safetensors."""


class Recipe(_Strict):
    """One experiment."""

    name: str = "unnamed"
    """What the run calls itself."""
    source: str = ""
    """Where the recipe comes from: paper, repository, notebook."""
    seed: Annotated[int, Field(ge=0)] = 42
    """Seed of everything random."""
    model: ModelConfig = ModelConfig()
    stages: Annotated[list[StageConfig], Field(min_length=1)]
    """At least one; each starts from the best weights of the one before."""

    @model_validator(mode="after")
    def _stage_names_differ(self) -> Recipe:
        names = [stage.name for stage in self.stages]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two stages are named {twice[0]!r}; give each its own name")
        return self


def load_recipe(path: Path, overrides: Iterable[str] = ()) -> Recipe:
    """Read a recipe file, apply `dotted.key=value` overrides, and check everything.

    `training.KEY` changes what all stages share; `stages.NAME.KEY` one stage (by name or by position from 0).
    Raises: ConfigError that names every fault by its dotted path.
    """
    try:
        document = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: is not YAML ({' '.join(str(error).split())})") from error
    if not isinstance(document, dict):
        raise ConfigError(f"{path}: a recipe is a mapping with the key 'stages'; see recipes/ for examples")
    for override in overrides:
        _override(document, override)
    return parse_recipe(document, str(path))


def parse_recipe(document: Mapping[str, Any], origin: str = "recipe") -> Recipe:
    """Check a recipe given as a mapping: `training` is merged into each stage. Raises: ConfigError."""
    document = dict(document)
    training = document.pop("training", {})
    stages = written = document.get("stages")
    if isinstance(stages, list) and isinstance(training, dict):
        document["stages"] = [_merged(training, stage) if isinstance(stage, dict) else stage for stage in stages]
    faults = [] if isinstance(training, dict) else ["training: must be a mapping of settings"]
    try:
        # JSON, because strict validation of Python objects refuses a list where a pair is meant.
        recipe = Recipe.model_validate_json(json.dumps(document, default=str))
    except ValidationError as error:
        faults += list(dict.fromkeys(_fault(item, training, written) for item in error.errors()))
    except (TypeError, ValueError) as error:
        faults.append(f"holds something that no recipe can ({error})")
    if faults:
        raise ConfigError(f"{origin}: " + "; ".join(faults))
    return recipe


def parse_model(document: Mapping[str, Any]) -> ModelConfig:
    """Check the settings of a net given as a mapping. Raises: ConfigError."""
    try:
        return ModelConfig.model_validate_json(json.dumps(dict(document), default=str))
    except ValidationError as error:
        raise ConfigError("model: " + "; ".join(_fault(item, {}, []) for item in error.errors())) from error


def _merged(base: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in change.items():
        old = merged.get(key)
        merged[key] = _merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def _override(document: dict[str, Any], override: str) -> None:
    dotted, separator, text = override.partition("=")
    if not separator or not dotted:
        raise ConfigError(f"{override!r} is no override; write key=value, as in training.lr=1e-4")
    try:
        value = yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise ConfigError(f"{override!r}: the value is not YAML") from error
    node: Any = document
    *parents, last = dotted.split(".")
    for key in parents:
        if isinstance(node, list):
            node = _stage_named(node, key, override)
        elif isinstance(node, dict):
            node = node.setdefault(key, {})
        else:
            raise ConfigError(f"{override!r}: {key} lies below a plain value")
    if not isinstance(node, dict):
        raise ConfigError(f"{override!r}: names no setting; write stages.NAME.KEY=value")
    node[last] = value


def _stage_named(stages: list[Any], key: str, override: str) -> Any:
    for position, stage in enumerate(stages):
        if key == str(position) or (isinstance(stage, dict) and stage.get("name") == key):
            return stage
    names = ", ".join(str(stage.get("name")) for stage in stages if isinstance(stage, dict))
    raise ConfigError(f"{override!r}: there is no stage {key!r}; the stages are {names}")


def _fault(item: Any, training: Any, stages: Any) -> str:
    """One fault in one phrase, at the place where the user wrote it: `training`, unless the stage says it itself."""
    path = [str(part) for part in item["loc"] if part not in ("function-after", "constrained-str", "bool", "str")]
    if len(path) > 2 and path[0] == "stages" and _holds(training, path[2:]) and not _holds(stages, path[1:]):
        path = ["training", *path[2:]]
    dotted = ".".join(path) or "recipe"
    if item["type"] == "extra_forbidden":
        close = difflib.get_close_matches(path[-1], [key for key in _known_keys() if key != path[-1]], n=1)
        return f"{dotted}: unknown setting" + (f"; did you mean {close[0]}?" if close else "")
    message = item["msg"].removeprefix("Value error, ")
    given = "" if item["type"] in ("missing", "value_error") else f" (given: {item['input']!r:.60})"
    return f"{dotted}: {message[:1].lower()}{message[1:]}{given}"


def _holds(tree: Any, path: list[str]) -> bool:
    for key in path:
        if isinstance(tree, list) and key.isdecimal() and int(key) < len(tree):
            tree = tree[int(key)]
        elif isinstance(tree, dict) and key in tree:
            tree = tree[key]
        else:
            return False
    return True


def _known_keys() -> list[str]:
    kinds = (Recipe, StageConfig, ModelConfig, LossConfig, ScheduleConfig, AugmentConfig)
    return ["training", *dict.fromkeys(key for kind in kinds for key in kind.model_fields)]
