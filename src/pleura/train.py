"""The training loop: dataset + recipe -> checkpoints. `train` is the story, `_epoch` is the loop.

Everything random is a function of (seed, stage, epoch, step): a run that was killed and resumed ends in the same
weights as one that was not.
"""

from __future__ import annotations

import csv
import io
import logging
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import yaml
from accelerate import Accelerator
from accelerate.utils import set_seed
from numpy.typing import NDArray
from torch import nn

from pleura import __version__
from pleura.data.augment import augment
from pleura.data.batches import batches
from pleura.data.dataset import Dataset
from pleura.data.sampler import epoch_order, rate_of_epoch
from pleura.errors import InputError, NonFiniteLossError, OutputError
from pleura.learn.checkpoint import (
    Checkpoint,
    case_key,
    load_checkpoint,
    load_state,
    load_weights,
    save_checkpoint,
    save_state,
    write_atomically,
)
from pleura.learn.losses import combo_loss
from pleura.learn.schedule import Schedule
from pleura.measure.metrics import SIIM_PREVALENCE, Outcomes
from pleura.measure.triplet import Histograms, Triplet, prevalence_weights, search
from pleura.model import build_model
from pleura.model.encoders import Encoder
from pleura.model.inference import Preprocessing, infer, normalise, resize_images, resize_masks
from pleura.progress import track
from pleura.settings import Recipe, StageConfig

logger = logging.getLogger("pleura")

BEST, LAST, STATE = "best.safetensors", "last.safetensors", "state/state.pt"


@dataclass
class Progress:
    """How far a run is. Saved after each epoch; `--resume` goes on from it."""

    stage: int = 0
    epoch: int = 0
    best: float = -1.0
    waited: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)


def train(recipe: Recipe, dataset: Dataset, out: Path, fold: int = 0, resume: bool = False) -> Path:
    """Train all stages of a recipe on the cases outside `fold`, choosing by the cases in it.

    Returns: the folder of the fold, with best.safetensors, last.safetensors, one .safetensors for each stage,
    metrics.csv, log.txt, recipe.yaml and state/.
    Raises: InputError if the fold is not in the dataset; OutputError if `out` holds another run, or one of other data
    or another net; ConfigError for a net that cannot be built; NonFiniteLossError; CheckpointError if the state to
    resume from is damaged.
    """
    run = out / f"fold-{fold}"
    splits = dataset.positions("train", fold), dataset.positions("val", fold)
    _refuse_unless_scores_exist(recipe, dataset.positive[splits[1]], fold)
    state = _state_to_resume(run, resume)
    changes = _changes(state, recipe, dataset) if state else []
    write_atomically(run / "recipe.yaml", yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False).encode())
    handler = logging.FileHandler(run / "log.txt")
    handler.setFormatter(logging.Formatter("%(asctime)s  %(message)s", "%Y-%m-%d %H:%M:%S"))
    logger.addHandler(handler)
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.INFO)  # log.txt is written also where nobody configured logging
    for change in changes:
        logger.info("resumed with another setting: %s", change)
    try:
        _Training(recipe, dataset, run, fold, splits).all_stages(state)
    finally:
        logger.removeHandler(handler)
        handler.close()
    return run


def _state_to_resume(run: Path, resume: bool) -> dict[str, Any] | None:
    if (run / STATE).exists():
        if not resume:
            raise OutputError(f"{run}: holds a run already; add --resume to go on with it, or choose another --out")
        return load_state(run / STATE)
    return None


def _refuse_unless_scores_exist(recipe: Recipe, positive: NDArray[np.bool_], fold: int) -> None:
    """A re-weighted score needs both classes; without one every epoch's score would be NaN and none the best."""
    if positive.all() or not positive.any():
        for stage in recipe.stages:
            if stage.select == "siim_dice_at_siim_prevalence":
                raise InputError(
                    f"fold {fold} has positives alone or negatives alone, so that {stage.select} cannot be had; choose "
                    "another --fold, or set training.select=siim_dice"
                )


def _changes(state: dict[str, Any], recipe: Recipe, dataset: Dataset) -> list[str]:
    """The settings in which a resumed run departs from how it began. Raises: OutputError for other data or nets."""
    if state["data_sha256"] != dataset.data_hash:
        raise OutputError(f"{dataset.folder}: is not the dataset that this run began with; choose another --out")
    before, now = (_flat("", document) for document in (state["recipe"], recipe.model_dump(mode="json")))
    changed = [key for key in sorted(before.keys() | now.keys()) if before.get(key) != now.get(key)]
    other_net = next((key for key in changed if key.startswith("model.") and key != "model.pretrained"), None)
    if other_net:
        raise OutputError(f"{other_net} is not what this run began with; choose another --out")
    return [f"{key} was {before.get(key)}, is {now.get(key)}" for key in changed]


def _flat(path: str, document: Any) -> dict[str, Any]:
    """A nested document as dotted path -> value."""
    if not isinstance(document, (dict, list)):
        return {path: document}
    items = document.items() if isinstance(document, dict) else enumerate(document)
    flat: dict[str, Any] = {}
    for key, value in items:
        flat |= _flat(f"{path}.{key}" if path else str(key), value)
    return flat


class _Training:
    """One fold of one run: the objects that its stages share."""

    def __init__(
        self,
        recipe: Recipe,
        dataset: Dataset,
        run: Path,
        fold: int,
        splits: tuple[NDArray[np.int64], NDArray[np.int64]],
    ) -> None:
        self.recipe, self.dataset, self.run, self.fold = recipe, dataset, run, fold
        self.train_positions, self.val_positions = splits
        self.accelerator = Accelerator(mixed_precision="bf16" if torch.cuda.is_available() else "no")
        set_seed(recipe.seed)
        model = build_model(recipe.model)
        encoder = cast(Encoder, model.encoder)
        self.mean, self.std = encoder.mean, encoder.std
        # Channels last is up to twice as fast on CPUs, and what tensor cores want.
        self.model: nn.Module = self.accelerator.prepare(model.to(memory_format=torch.channels_last))  # type: ignore[call-overload]

    def all_stages(self, state: dict[str, Any] | None) -> None:
        """Run the stages, each from the best weights of the one before."""
        progress = Progress(**state["progress"]) if state else Progress()
        for index in range(progress.stage, len(self.recipe.stages)):
            stage = self.recipe.stages[index]
            if index > 0 and (progress.stage < index or progress.epoch == 0):
                before = self.run / f"{self.recipe.stages[index - 1].name}.safetensors"
                load_weights(self._net(), load_checkpoint(before).weights, before)
            if progress.stage < index:
                progress = Progress(stage=index, history=progress.history)
            self._one_stage(stage, progress, state if state and state["progress"]["stage"] == index else None)

    def _one_stage(self, stage: StageConfig, progress: Progress, state: dict[str, Any] | None) -> None:
        optimizer = self.accelerator.prepare(self._optimizer(stage))
        schedule = Schedule(stage)
        if state:
            load_weights(self._net(), state["model"], self.run / STATE)
            optimizer.load_state_dict(state["optimizer"])
            schedule = Schedule(stage, **state["schedule"])
            logger.info("resumed stage %s after epoch %d of %d", stage.name, progress.epoch, stage.epochs)
        while progress.epoch < stage.epochs and not self._stopped_early(stage, progress):
            began = time.monotonic()
            loss, images = self._epoch(stage, progress, optimizer, schedule)
            seconds = time.monotonic() - began
            metrics, triplet = self._validate(stage)
            score = metrics[stage.select]
            schedule.told(score)
            progress.epoch += 1
            progress.waited = 0 if score > progress.best else progress.waited + 1
            row = {"stage": stage.name, "epoch": progress.epoch, "lr": optimizer.param_groups[0]["lr"], "loss": loss}
            row |= {**metrics, "images_per_s": images / seconds, "seconds": time.monotonic() - began}
            progress.history.append(row)
            checkpoint = self._checkpoint(stage, progress, metrics, triplet)
            if score > progress.best:
                progress.best = score
                save_checkpoint(self.run / f"{stage.name}.safetensors", checkpoint)
                save_checkpoint(self.run / BEST, checkpoint)
            save_checkpoint(self.run / LAST, checkpoint)
            self._save(progress, optimizer, schedule)
            logger.info(_line(stage, row, best=progress.waited == 0))

    def _epoch(self, stage: StageConfig, progress: Progress, optimizer: Any, schedule: Schedule) -> tuple[float, int]:
        """One pass over the cases of an epoch; returns the mean loss and the number of images."""
        seed = (self.recipe.seed, progress.stage, progress.epoch)
        torch.manual_seed(int(np.random.SeedSequence(seed).generate_state(1)[0]))
        # Counted over all stages, so that the rotation of negatives goes on where the stage before left it.
        positive, so_far = self.dataset.positive[self.train_positions], len(progress.history)
        rate = rate_of_epoch(stage.positive_rate, progress.epoch, stage.epochs)
        chosen = epoch_order(positive, rate, self.recipe.seed, so_far)
        order = self.train_positions[chosen][: stage.cases_per_epoch]
        order = order[: max(len(order) - len(order) % stage.batch_size, stage.batch_size)]
        preprocessing, device = self._preprocessing(stage), self.accelerator.device
        steps, losses = -(-len(order) // stage.batch_size), []
        self.model.train()
        described = f"{stage.name} {progress.epoch + 1}/{stage.epochs}"
        for step, batch in enumerate(track(batches(self.dataset, order, stage.batch_size), described, steps)):
            images = resize_images(batch.images.to(device), stage.size_px)
            masks = resize_masks(batch.masks.to(device), stage.size_px)
            images, masks = augment(images, masks, stage.augment, (*seed, step))
            inputs = normalise(images, preprocessing).contiguous(memory_format=torch.channels_last)
            for group in optimizer.param_groups:
                group["lr"] = schedule.lr(progress.epoch, step / steps)
            with self.accelerator.autocast():
                logits = self.model(inputs)
            loss = combo_loss(logits, masks.expand_as(logits), stage.loss)
            if not torch.isfinite(loss):
                self._refuse(batch.positions, float(loss.detach()))
            optimizer.zero_grad(set_to_none=True)
            self.accelerator.backward(loss)
            if stage.gradient_clip:
                self.accelerator.clip_grad_norm_(self.model.parameters(), stage.gradient_clip)
            optimizer.step()
            losses.append(loss.detach())
        return float(torch.stack(losses).mean()), len(order)

    def _refuse(self, positions: Sequence[int] | NDArray[np.int64], loss: float) -> None:
        names = ", ".join(self.dataset.cases[int(position)].image_id for position in positions)
        raise NonFiniteLossError(
            f"the loss became {loss} on the cases {names}; the weights of the last epoch are kept in {self.run}: "
            "lower training.lr or set training.gradient_clip, and add --resume"
        )

    def _validate(self, stage: StageConfig) -> tuple[dict[str, float], Triplet]:
        """Metrics of the validation cases at the stage's size, with the best triplet for them."""
        self.model.eval()
        parts = []
        for batch in batches(self.dataset, self.val_positions, stage.batch_size):
            images = batch.images.to(self.accelerator.device)
            masks = resize_masks(batch.masks, stage.size_px)[:, 0].numpy().astype(np.uint8)
            with self.accelerator.autocast():
                probabilities = infer(self.model, images, self._preprocessing(stage))
            parts.append(Histograms.of(probabilities.cpu().numpy(), masks))
        histograms = Histograms.join(parts)
        weights = None
        if stage.select == "siim_dice_at_siim_prevalence":
            weights = prevalence_weights(histograms.positive, SIIM_PREVALENCE)
        triplet = search(histograms, weights).triplet
        called, dice = histograms.decided(triplet)
        return Outcomes(histograms.positive, called, dice, histograms.scores()).summary(), triplet

    def _net(self) -> nn.Module:
        net: nn.Module = self.accelerator.unwrap_model(self.model)
        return net

    def _optimizer(self, stage: StageConfig) -> torch.optim.Optimizer:
        kinds: dict[str, type[torch.optim.Adam]] = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
        trainable = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        return kinds[stage.optimizer](trainable, lr=stage.lr, weight_decay=stage.weight_decay)

    def _preprocessing(self, stage: StageConfig) -> Preprocessing:
        in_channels = self.recipe.model.in_channels
        return Preprocessing(self.dataset.size_px, stage.size_px, in_channels, self.mean, self.std)

    @staticmethod
    def _stopped_early(stage: StageConfig, progress: Progress) -> bool:
        return 0 < stage.early_stopping <= progress.waited

    def _checkpoint(
        self, stage: StageConfig, progress: Progress, metrics: dict[str, float], triplet: Triplet
    ) -> Checkpoint:
        scores = {key: round(value, 6) for key, value in metrics.items() if np.isfinite(value)}
        return Checkpoint(
            model=self.recipe.model,
            weights=self._net().state_dict(),
            preprocessing=asdict(self._preprocessing(stage)),
            triplet=asdict(triplet),
            recipe=self.recipe.model_dump(mode="json"),
            scores={
                "split": f"val, fold {self.fold}, at {stage.size_px} px, triplet tuned on the same cases",
                **scores,
            },
            seen={"train": self._keys(self.train_positions), "val": self._keys(self.val_positions)},
            provenance={
                "data_sha256": self.dataset.data_hash,
                "fold": self.fold,
                "stage": stage.name,
                "epoch": progress.epoch,
                "seed": self.recipe.seed,
                "pleura": __version__,
            },
        )

    def _keys(self, positions: NDArray[np.int64]) -> list[str]:
        return [case_key(self.dataset.cases[position].image_id) for position in positions]

    def _save(self, progress: Progress, optimizer: Any, schedule: Schedule) -> None:
        table = io.StringIO()
        writer = csv.DictWriter(table, list(progress.history[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(progress.history)
        write_atomically(self.run / "metrics.csv", table.getvalue().encode())
        state = {
            "progress": asdict(progress),
            "model": self._net().state_dict(),
            "optimizer": optimizer.state_dict(),
            "schedule": schedule.state(),
            "recipe": self.recipe.model_dump(mode="json"),
            "data_sha256": self.dataset.data_hash,
        }
        save_state(self.run / STATE, state)


def _line(stage: StageConfig, row: dict[str, Any], best: bool) -> str:
    return (
        f"{stage.name} {stage.size_px} px  epoch {row['epoch']:>3}/{stage.epochs}  lr {row['lr']:.1e}  "
        f"loss {row['loss']:.4f}  val: SIIM Dice {row['siim_dice']:.4f}, on positives "
        f"{row['dice_on_positives']:.4f}, AUROC {row['auroc']:.4f}  {row['images_per_s']:.1f} images/s, "
        f"{row['seconds']:.0f} s{'  best' if best else ''}"
    )
