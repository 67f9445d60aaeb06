"""Claim: a training step is 1.3 times as fast as the published pipeline's at 512 px on two CPU cores, and never waits.

Ours is `pleura train` itself: `train_epoch` of its loop, with the recipe's optimizer, loss, clip and augmentation, on a
prepared dataset. Against it, with the same phantoms in the same order and the same draws of the augmentation:

- albunet_valid: the published way re-stated. Each step opens its 1024 px PNG files, resizes them, warps one image at a
  time with one resampling for each transform (`chained` of augment.py; the elastic field per pixel, without its affine
  jitter of 3.6 px), and runs the same net in fp32 and NCHW, with Adam, the same loss and the same clip.
- 2st_unet: segmentation_models_pytorch `Unet("resnet34")`, of the same widths, in the same plain loop. Its decoder has
  the upsampling, two convolutions after each concatenation; ours has one before and one after.

On a GPU: 1024 px, ours in bf16, their files read by worker processes. The share of the peak is what the convolutions
need by count (forward and backward), over the time of the whole step, over the best matrix product of that type here.

One thread is measured in processor time, more of them, or a GPU, by the clock on the wall.
Run: python benchmarks/train.py [--threads 2] [--rounds 3] [--profile]
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from augment import chained
from paired import in_turn, machine, milliseconds, ratio, seconds, table
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode

from pleura.config.parse import load_recipe
from pleura.data.augmentation import AugmentParameters, sample_parameters
from pleura.data.dataset import Dataset
from pleura.data.phantoms.dicom_files import write_phantom_dataset
from pleura.data.prepare import PrepareSettings, prepare
from pleura.models.build import build_model  # declares two operators of torchvision: before segmentation_models_pytorch
from pleura.training import stage as loop
from pleura.training.devices import build_accelerator
from pleura.training.learner import Learner
from pleura.training.losses import total_loss
from pleura.training.run import Progress, Run
from pleura.training.validation import Validator

import segmentation_models_pytorch as smp  # isort: skip

GPU = torch.cuda.is_available()
FILE_PX, SIZE_PX = 1024, 1024 if GPU else 512
PATIENTS = 60 if GPU else 12
LOADS = {"albunet_valid": (2, 30), "2st_unet": (4, 15)} if GPU else {"albunet_valid": (2, 2), "2st_unet": (4, 3)}
"""Recipe -> images a step (the recipe's), steps an epoch."""
EPOCHS, WORKERS = (4, min(8, os.cpu_count() or 1)) if GPU else (1, 0)
"""Epochs that are timed as one, and processes that read files for the plain loop: on a CPU they would take its time."""
RECIPES = Path(__file__).resolve().parents[1] / "recipes"


def synchronise() -> None:
    """Wait for the GPU, if there is one."""
    if GPU:
        torch.cuda.synchronize()


class Spans:
    """Seconds by the part of a step; off, it measures nothing, because to measure makes a GPU wait."""

    def __init__(self, on: bool, clock: Callable[[], float]) -> None:
        self.on, self.clock = on, clock
        self.forget()

    def forget(self) -> None:
        """Begin anew, after warming up."""
        self.took: defaultdict[str, float] = defaultdict(float)
        self.steps, self.waiting_shares = 0, []

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        """Add the time of what is inside to `part`."""
        if not self.on:
            yield
            return
        synchronise()
        began = self.clock()
        yield
        synchronise()
        self.took[part] += self.clock() - began

    def around(self, part: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """`call`, measured as `part`."""

        def measured(*arguments: Any, **named: Any) -> Any:
            with self(part):
                return call(*arguments, **named)

        return measured


class Ours:
    """`pleura train` between two validations."""

    def __init__(self, name: str, dataset: Dataset, spans: Spans) -> None:
        batch, steps = LOADS[name]
        shared = {"batch_size": batch, "size_px": SIZE_PX, "cases_per_epoch": batch * steps, "positive_rate": "null"}
        stages = load_recipe(RECIPES / f"{name}.yaml").stages
        changes = [f"stages.{stage.name}.{key}={value}" for stage in stages for key, value in shared.items()]
        # The state is not saved within what is timed, as it is every ten minutes of a real run.
        self.recipe = load_recipe(
            RECIPES / f"{name}.yaml", [*changes, "model.pretrained=false", "save_minutes=1000000000"]
        )
        self.stage, self.spans = self.recipe.stages[0], spans
        self.learner = Learner(self.recipe, dataset, build_accelerator(self.recipe), fold=0)
        validator = Validator(self.learner.accelerator, dataset, dataset.indices("val", 0), flip=False)
        files, self.progress = Run(dataset.folder / "no run is written"), Progress()
        self.training = loop.Stage(self.stage, self.learner, validator, files, self.progress, monitor=None)
        self.learner.begin_stage(self.stage)
        if spans.on:
            self._measure_parts()

    def _measure_parts(self) -> None:
        learner, accelerator, around = self.learner, self.learner.accelerator, self.spans.around
        learner.batches.prepared = around("augmentation", learner.batches.prepared)
        learner.model.forward = around("forward", learner.model.forward)
        accelerator.backward = around("backward", accelerator.backward)
        accelerator.clip_grad_norm_ = around("clip", accelerator.clip_grad_norm_)
        learner.optimizer.step = around("optimizer", learner.optimizer.step)

    def run(self) -> None:
        """EPOCHS epochs of the loop."""
        for _ in range(EPOCHS):
            progress, before = self.progress, sum(self.spans.took.values())
            progress.step, progress.losses = 0, []
            loop.total_loss = self.spans.around("loss", total_loss)
            synchronise()
            began, by_clock = time.perf_counter(), self.spans.clock()
            waited_s, _ = self.training.train_epoch()
            synchronise()
            took_s, by_clock = time.perf_counter() - began, self.spans.clock() - by_clock
            progress.epoch += 1
            self.spans.waiting_shares.append(waited_s / took_s)
            self.spans.steps += progress.step
            if self.spans.on:
                self.spans.took["the data"] += waited_s
                rest_s = by_clock - (sum(self.spans.took.values()) - before)
                self.spans.took["the rest"] += max(rest_s, 0.0)  # below 0 where it waited without working

    def flops(self) -> int:
        """Floating-point operations of a step: forward and backward, counted without computing."""
        net = build_model(self.recipe.model).to("meta")
        shape = (self.stage.batch_size, self.recipe.model.in_channels, SIZE_PX, SIZE_PX)
        with FlopCounterMode(display=False) as counter:
            net(torch.empty(shape, device="meta")).sum().backward()
        return counter.get_total_flops()


class PngFiles(torch.utils.data.Dataset[tuple[Tensor, Tensor]]):
    """One PNG file for each image and each mask, read, resized and warped one by one."""

    def __init__(self, folder: Path, wanted: list[tuple[int, AugmentParameters]]) -> None:
        self.folder, self.wanted = folder, wanted

    def __len__(self) -> int:
        return len(self.wanted)

    def __getitem__(self, at: int) -> tuple[Tensor, Tensor]:
        index, drawn = self.wanted[at]
        image = self._read(f"{index}.png", Image.Resampling.BILINEAR)
        mask = self._read(f"{index}-mask.png", Image.Resampling.NEAREST)
        image, mask = chained(image, mask.ge(0.5).float(), drawn, as_published=True)
        return image[0], mask[0]

    def _read(self, name: str, resample: Image.Resampling) -> Tensor:
        with Image.open(self.folder / name) as file:
            pixels = np.asarray(file.resize((SIZE_PX, SIZE_PX), resample), dtype=np.float32)
        return torch.from_numpy(pixels / 255)[None, None]


class Plain:
    """A plain loop in fp32 and NCHW over the cases and the draws of `like`."""

    def __init__(self, net: nn.Module, folder: Path, like: Ours, spans: Spans) -> None:
        self.folder, self.like, self.spans, self.epoch = folder, like, spans, 0
        self.device = like.learner.accelerator.device
        self.net = net.to(self.device).train()
        stage = like.stage
        self.optimizer = torch.optim.Adam(net.parameters(), lr=stage.lr, weight_decay=stage.weight_decay)

    def run(self) -> None:
        """EPOCHS epochs, read through as one: worker processes start once."""
        stage, spans, wanted = self.like.stage, self.spans, []
        for epoch in range(self.epoch, self.epoch + EPOCHS):
            for step, indices in enumerate(self.like.learner.batches.order(stage, epoch, []).tolist()):
                drawn = sample_parameters(stage.augment, len(indices), (self.like.recipe.seed, 0, epoch, step))
                wanted += [(index, drawn.take(torch.tensor([row]))) for row, index in enumerate(indices)]
        self.epoch += EPOCHS
        batches = iter(DataLoader(PngFiles(self.folder, wanted), stage.batch_size, num_workers=WORKERS))
        for _ in range(len(wanted) // stage.batch_size):
            with spans("the data"):
                images, masks = (part.to(self.device) for part in next(batches))
                images = (images - self.like.learner.batches.mean) / self.like.learner.batches.std
            with spans("forward"):
                logits = self.net(images)
            with spans("loss"):
                loss = total_loss(logits, masks, stage.loss)
            with spans("backward"):
                self.optimizer.zero_grad()
                loss.backward()
            with spans("clip"):
                if stage.gradient_clip:
                    nn.utils.clip_grad_norm_(self.net.parameters(), stage.gradient_clip)
            with spans("optimizer"):
                self.optimizer.step()
            spans.steps += 1
        synchronise()


def write_data(folder: Path) -> Dataset:
    """Phantoms as a dataset of SIZE_PX, and in `png` as files of FILE_PX; returns the dataset."""
    write_phantom_dataset(folder / "phantoms", PATIENTS, seed=1, size_px=FILE_PX)
    source = (folder / "phantoms/dicom", (folder / "phantoms/masks.csv",))
    large, dataset = (
        prepare(PrepareSettings(*source, folder / f"data-{size_px}-{use}", size_px, workers=1)).dataset
        for size_px, use in ((FILE_PX, "png"), (SIZE_PX, "ours"))
    )
    (folder / "png").mkdir()
    for index in range(len(large)):
        Image.fromarray(large.images[index]).save(folder / f"png/{index}.png")
        Image.fromarray(large.masks([index])[0] * 255).save(folder / f"png/{index}-mask.png")
    return dataset


def best_product_per_s(clock: Callable[[], float]) -> float:
    """Floating-point operations a second of the fastest of ten matrix products, bf16 on a GPU, fp32 on a CPU."""
    side, dtype = (8192, torch.bfloat16) if GPU else (2048, torch.float32)
    left, right = (torch.randn(side, side, device="cuda" if GPU else "cpu").to(dtype) for _ in range(2))

    def product() -> None:
        left @ right
        synchronise()

    product()
    return 2 * side**3 / min(seconds(product, clock=clock) for _ in range(10))


def show_parts(sides: dict[str, Ours | Plain]) -> None:
    """Where the time of a step goes, in ms and in shares of it."""
    parts = ("the data", "augmentation", "forward", "loss", "backward", "clip", "optimizer", "the rest")
    rows = []
    for name, side in sides.items():
        total = sum(side.spans.took.values())
        took = [side.spans.took[part] for part in parts]
        cells = [f"{1000 * each / side.spans.steps:.0f} ({100 * each / total:.1f} %)" if each else "" for each in took]
        rows.append([name, f"{1000 * total / side.spans.steps:.0f}", *cells])
    print("\nwhere a step's time goes, ms by the same clock (waiting on the wall); a plain loop's data are warped\n")
    table(("part", *sides), list(zip(("step", *parts), *(row[1:] for row in rows), strict=True)))


def main() -> None:
    """Train a little with each side in turn, and print the ratios, the share of the peak, and the parts of a step."""
    parser = argparse.ArgumentParser(description="Time training steps; see the head of this file.")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--profile", action="store_true", help="also where the time of a step goes")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    on_wall = GPU or asked.threads > 1
    clock = time.perf_counter if on_wall else time.process_time
    print(machine())
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        dataset = write_data(folder)
        ours = {name: Ours(name, dataset, Spans(asked.profile, clock)) for name in LOADS}
        nets = {
            "published": ("albunet_valid", build_model(ours["albunet_valid"].recipe.model)),
            "smp": ("2st_unet", smp.Unet("resnet34", encoder_weights=None, in_channels=1, classes=1)),
        }
        plain = {
            side: (name, Plain(net, folder / "png", ours[name], Spans(asked.profile, clock)))
            for side, (name, net) in nets.items()
        }
        sides: dict[str, Ours | Plain] = {}
        for side, (name, theirs) in plain.items():
            sides |= {f"{name}, ours": ours[name], f"{name}, {side}": theirs}
        for side in sides.values():
            side.run()
            side.spans.forget()
        taken = in_turn({key: side.run for key, side in sides.items()}, asked.rounds, warm_up=False, clock=clock)
    how = "wall" if on_wall else "processor time"
    print(f"{SIZE_PX} px, {'bf16' if GPU else 'fp32'}, {asked.rounds} rounds, {how}; {machine()}\n")
    peak, rows = best_product_per_s(clock), []
    for side, (name, _) in plain.items():
        batch, steps = LOADS[name]
        ran, own = EPOCHS * steps, taken[f"{name}, ours"]
        for key in (f"{name}, ours", f"{name}, {side}"):
            step_s = [each / ran for each in taken[key]]
            rows.append(
                [key, str(batch), milliseconds(step_s), f"{batch / median(step_s):.3g}", ratio(taken[key], own)]
            )
        shares = ours[name].spans.waiting_shares
        rows[-2].append(f"{100 * ours[name].flops() / (median(own) / ran) / peak:.0f} %")
        rows[-2].append(f"{100 * median(shares):.2f} % (to {100 * max(shares):.2f} %)")
        rows[-1] += ["", ""]
    table(("net, side", "batch", "step", "images/s", "step / ours", "of the peak", "waits for data"), rows)
    print(f"\nthe peak: {peak / 1e9:.0f} billion operations a second")
    if asked.profile:
        show_parts(sides)


if __name__ == "__main__":
    main()
