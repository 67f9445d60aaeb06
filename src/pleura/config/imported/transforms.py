"""Augmentation that albumentations wrote as JSON -> our settings, with a list of what differs.

Source: the files that `albumentations.save` of version 0.3 writes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pleura.config.augmentation import AugmentConfig
from pleura.config.imported.keys import Keys
from pleura.errors import ConfigError

INTENSITIES = ("RandomContrast", "RandomBrightness", "RandomBrightnessContrast", "RandomGamma")
DISTORTIONS = ("ElasticTransform", "GridDistortion", "OpticalDistortion")
IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
PLAIN = ([0.0, 0.0, 0.0], [1.0, 1.0, 1.0])
_NO_BORDER, _REFLECT_101 = 0, 4  # OpenCV's numbers


@dataclass
class Transforms:
    """A file of transforms as our settings."""

    size_px: int | None = None
    """Side of the images, of the last Resize; None if there is none."""
    input_scaling: str = "none"
    """`encoder` if it normalises as ImageNet."""
    augment: dict[str, Any] = field(default_factory=dict)
    """Settings of `augment` that differ from ours."""
    differs: list[str] = field(default_factory=list)
    """What could not be taken over, a phrase each."""


def read_transforms(path: Path) -> Transforms:
    """Read a JSON file of albumentations. Raises: ConfigError if it is not one, or the images are not square."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: cannot be read as albumentations' JSON ({error})") from error
    steps = Keys(document, str(path)).section("transform").sections("transforms")
    # What a file does not name does not happen.
    settings: dict[str, Any] = dict.fromkeys(
        ("horizontal_flip", "affine_probability", "distortion_probability", "intensity_probability"), 0.0
    )
    found = Transforms(augment=settings)
    for step in steps:
        _step(step, found)
    defaults = AugmentConfig().model_dump(mode="json")
    found.augment = {key: value for key, value in settings.items() if value != defaults[key]}
    found.differs = list(dict.fromkeys(found.differs))
    return found


def _step(step: Keys, found: Transforms) -> None:
    kind = _kind(step)
    if kind == "HorizontalFlip":
        found.augment["horizontal_flip"] = _chance(step)
    elif kind == "ShiftScaleRotate":
        _affine(step, found)
    elif kind == "Resize":
        height, width = step.whole("height"), step.whole("width")
        if height != width:
            raise step.refuse("width", f"{width} x {height} px is not square; pleura's images are")
        found.size_px = height
    elif kind == "Normalize":
        _normalise(step, found)
    elif kind in INTENSITIES or kind in DISTORTIONS:
        _one_of([step], _chance(step), found)
    elif kind == "OneOf":
        _one_of(step.sections("transforms"), _chance(step), found)
    else:
        found.differs.append(f"{kind} is left out, there is nothing like it")


def _one_of(members: list[Keys], chance: float, found: Transforms) -> None:
    kinds = [_kind(member) for member in members]
    if kinds and all(kind in INTENSITIES for kind in kinds):
        setting = "intensity_probability"
        neutral: dict[str, Any] = {"contrast": 0.0, "brightness": 0.0, "gamma": [1.0, 1.0]}
    elif kinds and all(kind in DISTORTIONS for kind in kinds):
        setting = "distortion_probability"
        neutral = {"elastic_alpha": 0.0, "grid_limit": 0.0, "optical_limit": 0.0}
    else:
        found.differs.append(
            f"one of {', '.join(kinds) or 'nothing'} is left out: intensities and warps are apart here"
        )
        return
    if found.augment[setting]:
        found.differs.append(f"a second choice of {', '.join(kinds)} is left out")
        return
    if len({_chance(member) for member in members}) > 1:
        found.differs.append(f"{', '.join(kinds)} are equally likely here")
    of_group = {key: value for member in members for key, value in _magnitudes(member, found)}
    absent = [key for key in neutral if key not in of_group]
    # One of our three is drawn, and those that the file does not have do nothing: drawing more often makes up for it.
    wanted = chance * 3 / (3 - len(absent))
    if wanted > 1:
        found.differs.append(f"{', '.join(kinds)} with p {chance:g} come in {(3 - len(absent)) / 3:.0%} of images")
    found.augment.update({key: neutral[key] for key in absent}, **of_group)
    found.augment[setting] = round(min(1.0, wanted), 6)


def _magnitudes(step: Keys, found: Transforms) -> Iterator[tuple[str, Any]]:
    kind = _kind(step)
    if kind == "RandomContrast":
        yield "contrast", _limit(step, "limit", found)
    elif kind == "RandomBrightness":
        yield "brightness", _limit(step, "limit", found)
    elif kind == "RandomBrightnessContrast":
        yield "contrast", _limit(step, "contrast_limit", found)
        yield "brightness", _limit(step, "brightness_limit", found)
        found.differs.append("RandomBrightnessContrast changes one of the two at a time")
    elif kind == "RandomGamma":
        low, high = _range(step, "gamma_limit")
        yield "gamma", [round(low / 100, 6), round(high / 100, 6)]
    elif kind == "ElasticTransform":
        yield "elastic_alpha", step.number("alpha")
        yield "elastic_sigma", step.number("sigma")
        if step.number("alpha_affine", 0):
            found.differs.append("ElasticTransform.alpha_affine is left out: the elastic warp is elastic alone")
    elif kind == "GridDistortion":
        yield "grid_steps", step.whole("num_steps", 5)
        yield "grid_limit", _limit(step, "distort_limit", found)
    elif kind == "OpticalDistortion":
        yield "optical_limit", _limit(step, "distort_limit", found)
        yield "optical_shift", _limit(step, "shift_limit", found)
    if kind in DISTORTIONS:
        _border(step, found)


def _affine(step: Keys, found: Transforms) -> None:
    found.augment.update(
        affine_probability=_chance(step),
        shift=_limit(step, "shift_limit", found),
        scale=_limit(step, "scale_limit", found),
        rotate_degrees=_limit(step, "rotate_limit", found),
    )
    _border(step, found)


def _border(step: Keys, found: Transforms) -> None:
    mode = step.whole("border_mode", _REFLECT_101)
    found.augment["border"] = "zeros" if mode == _NO_BORDER else "reflect"
    if mode == _REFLECT_101:
        found.differs.append("the reflected border repeats the edge's pixels once, theirs (101) does not")
    elif mode != _NO_BORDER:
        found.differs.append(f"the border is reflected, not OpenCV's {mode}")


def _normalise(step: Keys, found: Transforms) -> None:
    given = tuple([round(value, 6) for value in _numbers(step, key)] for key in ("mean", "std"))
    if given == IMAGENET:
        found.input_scaling = "encoder"
    elif given != PLAIN:
        found.differs.append(f"Normalize has mean {given[0]} and std {given[1]}; here it is ImageNet's")
        found.input_scaling = "encoder"


def _kind(step: Keys) -> str:
    return step.text("__class_fullname__").rsplit(".", 1)[-1]


def _chance(step: Keys) -> float:
    chance = 1.0 if step.take("always_apply", False) is True else step.number("p", 1.0)
    if not 0 <= chance <= 1:
        raise step.refuse("p", f"must be a probability (given: {chance:g})")
    return chance


def _numbers(step: Keys, key: str) -> list[float]:
    value = step.take(key)
    if not isinstance(value, list) or not all(type(part) in (int, float) for part in value):
        raise step.refuse(key, f"must be numbers (given: {value!r:.60})")
    return [float(part) for part in value]


def _range(step: Keys, key: str) -> tuple[float, float]:
    """A range, written as a pair or as one number for both ways."""
    if isinstance(step.take(key), list):
        values = _numbers(step, key)
        if len(values) == 2:
            return values[0], values[1]
        raise step.refuse(key, f"must be one number or two (given: {values})")
    return -abs(step.number(key)), abs(step.number(key))


def _limit(step: Keys, key: str, found: Transforms) -> float:
    low, high = _range(step, key)
    if abs(low + high) > 1e-6:
        found.differs.append(f"{_kind(step)}.{key} {low:g} to {high:g} is taken both ways")
    return round(max(abs(low), abs(high)), 6)
