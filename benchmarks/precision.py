"""Claim: in bfloat16 a training step takes half the time on a CPU with AMX, and `auto` costs nothing on any other.

Three nets with random weights, each in float32 and in bfloat16 in turn, in the memory format of `pleura train`: the
default model's, and the U-Nets of the recipes 2st_unet (ResNet34) and densenet121. A step is forward, loss, backward
and Adam, the loss in float32. For the default net there is a third side, bfloat16 without `keep_strided_depthwise`:
oneDNN's gradients of those layers are the reason for it, and their time is printed too.

`auto` takes what `pleura.inference.cpu` measures on a small net; where that is float32, both are the same step. On one
thread, in processor time: other work on the machine falls on neither side.
Run: python benchmarks/precision.py [--size 384] [--batch 4] [--rounds 3]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import torch
from paired import in_turn, machine, milliseconds, ratio, table
from torch import nn

from pleura.config.model import ModelConfig
from pleura.config.parse import load_recipe
from pleura.config.training import LossConfig
from pleura.inference.cpu import bfloat16_units, processor
from pleura.inference.precision import choose_precision
from pleura.models.build import build_model
from pleura.models.checkpoint import load_checkpoint
from pleura.models.default import default_model
from pleura.models.depthwise import keep_strided_depthwise
from pleura.training.losses import total_loss

RECIPES = Path(__file__).resolve().parents[1] / "recipes"


def configs() -> dict[str, ModelConfig]:
    """The nets, without pretrained weights."""
    found = {"default model": load_checkpoint(default_model()).model}
    found |= {f"U-Net of {name}": load_recipe(RECIPES / f"{name}.yaml").model for name in ("2st_unet", "densenet121")}
    return {name: config.model_copy(update={"pretrained": False}) for name, config in found.items()}


class Side:
    """One net with its optimizer and its batch, in one precision."""

    def __init__(self, config: ModelConfig, bfloat16: bool, size_px: int, batch: int, keeps: bool = True) -> None:
        torch.manual_seed(0)
        self.net = build_model(config).to(memory_format=torch.channels_last)
        if keeps and bfloat16:
            keep_strided_depthwise(self.net)
        self.bfloat16 = bfloat16
        images = torch.randn(batch, config.in_channels, size_px, size_px)
        self.images = images.contiguous(memory_format=torch.channels_last)
        self.masks = (torch.rand(batch, config.classes, size_px, size_px) > 0.97).float()
        self.optimizer = torch.optim.Adam(self.net.parameters(), lr=1e-4, fused=True)

    def step(self) -> None:
        """Forward, loss, backward, Adam."""
        self.net.train()
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bfloat16):
            outputs = self.net.outputs(self.images)
        loss = total_loss(outputs.logits.float(), self.masks, LossConfig(), outputs.presence, outputs.deep)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()

    @torch.inference_mode()
    def predict(self) -> None:
        """Probabilities of the batch."""
        self.net.eval()
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bfloat16):
            self.net.probabilities(self.images)


def rows_of(name: str, config: ModelConfig, given: argparse.Namespace) -> list[list[str]]:
    """Time one net, and return its rows of the table."""
    sides = {precision: Side(config, precision != "float32", given.size, given.batch) for precision in
             ("float32", "bfloat16")}  # fmt: skip
    if name == "default model":
        sides["bfloat16, every layer"] = Side(config, True, given.size, given.batch, keeps=False)
    steps = in_turn({key: side.step for key, side in sides.items()}, given.rounds, clock=time.process_time)
    predictions = in_turn({key: side.predict for key, side in sides.items()}, given.rounds, clock=time.process_time)
    return [
        [
            f"{name}, {key}",
            milliseconds(steps[key]),
            ratio(steps["float32"], steps[key]),
            milliseconds(predictions[key]),
            ratio(predictions["float32"], predictions[key]),
        ]
        for key in sides
    ]


def strided_depthwise(bfloat16: bool, size_px: int, batch: int) -> Callable[[], None]:
    """Forward and backward of one such layer, of 96 channels."""
    layer = nn.Conv2d(96, 96, 3, 2, 1, groups=96, bias=False).to(memory_format=torch.channels_last)
    images = torch.randn(batch, 96, size_px // 2, size_px // 2).contiguous(memory_format=torch.channels_last)
    images = (images.bfloat16() if bfloat16 else images).requires_grad_()

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            features = layer(images)
        features.sum(dtype=torch.float32).backward()

    return step


def main() -> None:
    """Step and predict in both precisions in turn, and print how many times as fast bfloat16 is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=384, help="side of the images")
    parser.add_argument("--batch", type=int, default=4, help="images a step")
    parser.add_argument("--rounds", type=int, default=3, help="how often each side is timed")
    given = parser.parse_args()
    torch.set_num_threads(1)
    units = ", ".join(bfloat16_units()) or "no units for bfloat16"
    print(f"{given.size} px, batch {given.batch}; {processor()} with {units}; {machine()}\n")
    rows = [row for name, config in configs().items() for row in rows_of(name, config, given)]
    table(("net", "step", "times as fast", "prediction", "times as fast"), rows)
    layer = {key: strided_depthwise(key == "bfloat16", given.size, given.batch) for key in ("float32", "bfloat16")}
    took = in_turn(layer, given.rounds, clock=time.process_time)
    print(
        f"\na strided depthwise convolution, forward and backward: {milliseconds(took['float32'])} in float32, "
        f"{milliseconds(took['bfloat16'])} in bfloat16"
    )
    for training, what in ((True, "train"), (False, "predict")):
        print(f"auto, to {what}: {choose_precision('auto', torch.device('cpu'), training)}")


if __name__ == "__main__":
    main()
