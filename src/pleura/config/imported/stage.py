"""One training file of the winner's repository -> one stage of ours, key by key.

Source: https://github.com/sneddy/pneumothorax-segmentation.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pleura.config.imported.keys import Keys
from pleura.config.imported.nets import net_of
from pleura.config.imported.transforms import Transforms, read_transforms
from pleura.errors import ConfigError

PUBLISHED_SIZE_PX = 1024
_SILENT = {
    "DATA_DIRECTORY": "not in a recipe; pleura train --data names a dataset of pleura prepare",
    "LOGGER_DIR": "not in a recipe; log.txt and metrics.csv lie in the run's folder, pleura train --out",
    "DEVICE": "not in a recipe; accelerate takes the GPU if there is one",
    "WORKERS": "left out; batches are read ahead, and warped on the device",
}
_TORCH_DECAY = {"Adam": 0.0, "AdamW": 0.01, "SGD": 0.0}


@dataclass
class Part:
    """One YAML file as a stage: settings, the net it names, and `differs`: (key, what and why)."""

    file: Path
    name: str
    stage: dict[str, Any]
    model: dict[str, Any] = field(default_factory=dict)
    pipeline: str = ""
    seed: int = 42
    differs: list[tuple[str, str]] = field(default_factory=list)

    def note(self, key: str, what: str) -> None:
        """Note what differs at a key."""
        self.differs.append((key, what))


def read_part(keys: Keys, file: Path, name: str) -> Part:
    """Read a training file as a stage with this name.

    Raises: ConfigError if a key is missing, or there is one without a counterpart.
    """
    part = Part(file, name, {})
    _accounts(keys, part)
    part.model = net_of(keys.section("MODEL"), part.stage, part.note)
    size = _transforms(keys, part)
    part.stage = {"size_px": size, **part.stage}
    _course(keys, part)
    _optimisation(keys, part)
    _loss(keys, part)
    _validation(keys, part)
    left = list(keys.left())
    if left:
        raise ConfigError(
            f"{file}: {', '.join(left)}: unknown to pleura import-recipe; take it out to go on without it"
        )
    return part


def _accounts(keys: Keys, part: Part) -> None:
    """What a recipe does not hold: names, places, folds."""
    part.pipeline = keys.text("PIPELINE_NAME")
    part.seed = keys.whole("SEED")
    part.note("SEED", "the same number, but other draws")
    for key, why in _SILENT.items():
        keys.take(key, None)
        part.note(key, why)
    devices = keys.take("DEVICE_LIST", None)
    part.note("DEVICE_LIST", f"not in a recipe (given: {devices!r:.40}); accelerate launch runs one process a device")
    fold = keys.section("FOLD")
    fold.take("NUMBER")
    fold.take("USEFOLDS", None)
    fold.take("FILE")
    part.note("FOLD.NUMBER", "not in a recipe; pleura prepare --folds")
    part.note("FOLD.USEFOLDS", "not in a recipe; pleura train --fold")
    part.note(
        "FOLD.FILE",
        "folds are the dataset's and keep patients together; the widely copied files do not "
        "(see pleura doctor; pleura prepare --folds takes them all the same), so that scores come out lower",
    )


def _transforms(keys: Keys, part: Part) -> int:
    """Augmentation and input scaling; returns the side of the images."""
    named = keys.text("TRAIN_TRANSFORMS")
    path = _beside(part.file, named)
    if path is None:
        # Their files are named after the size.
        sizes = [int(digits) for digits in re.findall(r"\d+", Path(named).stem) if 32 <= int(digits) <= 4096]
        found = Transforms(size_px=sizes[-1] if sizes else None, input_scaling=part.model["input_scaling"])
        part.note(
            "TRAIN_TRANSFORMS",
            f"{named} was not found beside the YAML or above it: the published augmentation stands here, "
            f"{'the size of its name' if sizes else f'{PUBLISHED_SIZE_PX} px'}, and the published net's input_scaling",
        )
    else:
        found = read_transforms(path)
        for difference in found.differs:
            part.note("TRAIN_TRANSFORMS", difference)
        part.note("TRAIN_TRANSFORMS", "all warps are one resampling, and elastic is measured at a side of 1024")
    size = found.size_px or PUBLISHED_SIZE_PX
    if path is not None and found.size_px is None:
        part.note("TRAIN_TRANSFORMS", f"it resizes nothing, so that {PUBLISHED_SIZE_PX} px are taken")
    if found.augment:
        part.stage["augment"] = found.augment
    part.model["input_scaling"] = found.input_scaling
    named = keys.text("VALID_TRANSFORMS")
    path = _beside(part.file, named)
    part.note("VALID_TRANSFORMS", "left out; validation has the size and the input scaling of training")
    if path is not None:
        valid = read_transforms(path)
        if (valid.size_px or size) != size or valid.input_scaling != found.input_scaling:
            part.note("VALID_TRANSFORMS", f"theirs differ from training's: {valid.size_px} px, {valid.input_scaling}")
    return size


def _beside(file: Path, named: str) -> Path | None:
    """A file named relative to the YAML, or to a folder above it: the scripts run two folders up."""
    for folder in list(file.resolve().parents)[:5]:
        if (folder / named).is_file():
            return folder / named
    return None


def _course(keys: Keys, part: Part) -> None:
    """Epochs, batches and what is shown."""
    stage = part.stage
    stage["epochs"] = keys.whole("EPOCHES")
    if "freeze_encoder_epochs" in stage:
        stage["freeze_encoder_epochs"] = stage["epochs"]
    stage["batch_size"] = keys.whole("BATCH_SIZE")
    stage["accumulate_steps"] = keys.whole("GRADIENT_ACCUMULATION_STEPS", 1)
    if stage["accumulate_steps"] > 1:
        part.note("GRADIENT_ACCUMULATION_STEPS", "theirs adds gradients up, ours is their mean")
    stage["gradient_clip"] = keys.number("GRADIENT_CLIPPING")
    stage["early_stopping"] = keys.whole("EARLY_STOPPING")
    part.note("EARLY_STOPPING", "ends after so many epochs without a better score, theirs after one more")
    share = keys.number("NON_EMPTY_MASK_PROBA", 0)
    sampled = "USE_SAMPLER"
    if sampled not in keys.values and f"s{sampled}" in keys.values:
        sampled = f"s{sampled}"
        part.note(sampled, "published with this slip of the pen, at which their script stops: taken for USE_SAMPLER")
    if keys.flag(sampled):
        stage["positive_rate"] = share
        part.note(
            "NON_EMPTY_MASK_PROBA", "negatives are drawn in turn, none twice before all were seen; theirs at random"
        )
    else:
        stage["positive_rate"] = None
        part.note("NON_EMPTY_MASK_PROBA", "has no effect without USE_SAMPLER: each case once an epoch")
    checkpoints = keys.section("CHECKPOINTS")
    for key in ("FULL_FOLDER", "BEST_FOLDER"):
        checkpoints.take(key, None)
        part.note(f"CHECKPOINTS.{key}", "not in a recipe; all files of a run lie in pleura train --out")
    top = checkpoints.whole("TOPK")
    stage["averaging"] = {"top_k": top if top > 1 else 0}
    part.note(
        "CHECKPOINTS.TOPK",
        "the weights of the best epochs are averaged and measured beside the best one, with which the stage ends; "
        "theirs keeps them, and averages probabilities when it predicts",
    )


def _optimisation(keys: Keys, part: Part) -> None:
    """Optimizer and schedule."""
    optimizer = keys.section("OPTIMIZER")
    name = optimizer.text("CLASS")
    if name not in ("Adam", "AdamW", "SGD"):
        raise optimizer.refuse("CLASS", f"{name} is not built; use Adam, AdamW or SGD")
    part.stage["optimizer"] = name.lower()
    given = optimizer.section("ARGS")
    part.stage["lr"] = given.number("lr")
    part.stage["weight_decay"] = given.number("weight_decay", _TORCH_DECAY[name])
    if name == "SGD":
        part.stage["momentum"] = given.number("momentum", 0)
    for key in list(given.left()):
        short = key.rsplit(".", 1)[-1]
        part.note(key, f"left out (given: {given.take(short)!r:.40}); torch's default stands here")
    schedule = keys.section("SCHEDULER")
    name, given = schedule.text("CLASS"), schedule.section("ARGS", {})
    every = keys.whole("VALIDATION_FREQUENCY", 1)
    if every > 1:
        part.note("VALIDATION_FREQUENCY", f"every epoch is validated; patience and T_max are multiplied by {every}")
    if name == "ReduceLROnPlateau":
        part.stage["schedule"] = _plateau(given, part, every)
    elif name == "CosineAnnealingLR":
        part.stage["schedule"] = {
            "name": "cosine",
            "min_lr": given.number("eta_min", 0),
            "period_epochs": given.number("T_max") * every,
        }
        part.note("SCHEDULER", "the cosine falls from step to step, theirs from epoch to epoch")
    else:
        raise schedule.refuse("CLASS", f"{name} is not built; use ReduceLROnPlateau or CosineAnnealingLR")
    for key in given.left():
        raise ConfigError(f"{part.file}: {key}: unknown to pleura import-recipe; take it out to go on without it")


def _plateau(given: Keys, part: Part, every: int) -> dict[str, Any]:
    if given.take("mode", "min") != "max":
        raise given.refuse("mode", "must be max: the score that it watches is better when higher")
    given.take("verbose", None)
    if threshold := given.number("threshold", 1e-4):
        part.note("SCHEDULER.ARGS.threshold", f"any gain counts here, there a relative one of {threshold:g}")
    patience = given.whole("patience", 10)
    return {
        "name": "plateau",
        "factor": given.number("factor", 0.1),
        "patience": patience * every,
        "min_lr": given.number("min_lr", 0),
    }


def _loss(keys: Keys, part: Part) -> None:
    criterion = keys.section("CRITERION")
    if (criterion.text("PY"), criterion.text("CLASS")) != ("Losses", "ComboLoss"):
        raise criterion.refuse("CLASS", "only Losses.ComboLoss can be taken over")
    given = criterion.section("ARGS")
    weights = given.section("weights")
    if weights.number("lovasz_sigmoid", 0):
        raise weights.refuse("lovasz_sigmoid", "is not built; lovasz, the symmetric hinge, is")
    terms = {key: weights.number(key, 0) for key in ("bce", "dice", "focal", "jaccard", "lovasz")}
    # Ours weighs some terms by default, so that an absent one needs its 0.
    part.stage["loss"] = {key: weight for key, weight in terms.items() if weight or key in ("bce", "dice", "focal")}
    part.stage["loss"]["smooth"] = 1e-6
    part.note("CRITERION", "the sum is the same, with 1e-6 in Dice (by version theirs has 1e-5), not cut off at 1e-5")
    if terms["jaccard"]:
        part.note("CRITERION.ARGS.weights.jaccard", "one `smooth` holds for Dice and Jaccard, theirs are 1e-6 and 1e-3")
    if given.take("per_image", None) is not None:
        part.note("CRITERION.ARGS.per_image", "has no effect there: Dice is pooled over the batch all the same")


def _validation(keys: Keys, part: Part) -> None:
    """How epochs are compared; older files say EVALUATION where newer ones have a binarizer and a metric."""
    exact = "the best epoch is that of the exact best triplet of all thresholds and areas; theirs tries"
    if "EVALUATION" in keys.values:
        old = keys.section("EVALUATION")
        pairs, bottoms = old.take("SEARCH_PAIRS"), old.take("BOT_THRESHOLDS")
        part.note("EVALUATION", f"{exact} {pairs!r:.80} with {bottoms!r:.40}")
        return
    binarizer = keys.section("MASK_BINARIZER")
    binarizer.take("PY")
    name = binarizer.text("CLASS")
    if name != "TripletMaskBinarization":
        raise binarizer.refuse("CLASS", f"{name} is not built; use TripletMaskBinarization")
    triplets = binarizer.section("ARGS").take("triplets")
    count = len(triplets) if isinstance(triplets, list) else 1
    part.note("MASK_BINARIZER", f"{exact} {count}; min_pixels counts pixels of 1024 x 1024 at every size")
    metric = keys.section("EVALUATION_METRIC")
    metric.take("PY")
    if metric.text("CLASS") != "dice_metric" or not metric.section("ARGS", {}).flag("per_image", True):
        raise metric.refuse("CLASS", "only dice_metric with per_image: true can be taken over; it is select: siim_dice")
