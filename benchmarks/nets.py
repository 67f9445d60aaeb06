"""Claim: no claim of speed. What a training step and a prediction of our DenseNet121 U-Net cost beside the usual one.

Against: segmentation_models_pytorch `Unet("densenet121", encoder_weights=None)` in a plain loop (NCHW), and the same
in channels_last. The two nets are not the same: our decoder has the published widths (256 256 128 64, last 64, no
normalisation), theirs narrower ones (256 128 64 32 16, batch normalisation, two convolutions on the concatenation).
So a third side is ours with their widths. All: fp32, 512 x 512, batch 2, one channel, BCE + Dice, Adam; ours in the
memory format that `pleura train` uses. Processor time on one thread: with two, a shared machine makes each wait for
the other, and the ratios swing by a third.

Run: python benchmarks/nets.py
"""

from __future__ import annotations

import time

import torch
from paired import in_turn, machine, milliseconds, ratio, table
from torch import Tensor, nn

from pleura.config.training import LossConfig
from pleura.models.build import build_model  # declares two operators of torchvision: before segmentation_models_pytorch
from pleura.training.losses import combo_loss

import segmentation_models_pytorch as smp  # isort: skip

SIZE_PX, BATCH, ROUNDS = 512, 2, 2
THEIR_WIDTHS = {"decoder_widths": [256, 128, 64, 32], "last_width": 16}


def ours(in_channels: int = 1, **settings: object) -> nn.Module:
    """Our U-Net, random weights, as `pleura train` holds it."""
    net = build_model({"encoder": "densenet121", "pretrained": False, "in_channels": in_channels, **settings})
    return net.to(memory_format=torch.channels_last)


def theirs(in_channels: int = 1) -> nn.Module:
    """Their U-Net, random weights."""
    return smp.Unet("densenet121", encoder_weights=None, in_channels=in_channels, classes=1)


class Side:
    """One net with its optimizer and its batch, in its memory format."""

    def __init__(self, net: nn.Module, memory_format: torch.memory_format, images: Tensor, masks: Tensor) -> None:
        self.net, self.masks = net.to(memory_format=memory_format), masks
        self.images = images.contiguous(memory_format=memory_format)
        self.optimizer = torch.optim.Adam(self.net.parameters(), lr=1e-4)

    def step(self) -> None:
        """Forward, loss, backward, Adam."""
        self.net.train()
        loss = combo_loss(self.net(self.images), self.masks, LossConfig())
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()

    @torch.inference_mode()
    def predict(self) -> None:
        """Probabilities of the batch."""
        self.net.eval()
        torch.sigmoid(self.net(self.images))


def main() -> None:
    """Step and predict with each net in turn, and print the ratios to ours."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    images, masks = torch.randn(BATCH, 1, SIZE_PX, SIZE_PX), (torch.rand(BATCH, 1, SIZE_PX, SIZE_PX) > 0.97).float()
    last = torch.channels_last
    sides = {
        "ours": Side(ours(), last, images, masks),
        "ours with their widths": Side(ours(**THEIR_WIDTHS), last, images, masks),
        "smp, NCHW": Side(theirs(), torch.contiguous_format, images, masks),
        "smp, channels_last": Side(theirs(), last, images, masks),
    }
    # Predictions first: they warm up what the steps need as well.
    predictions = in_turn({name: side.predict for name, side in sides.items()}, ROUNDS, clock=time.process_time)
    steps = in_turn({name: side.step for name, side in sides.items()}, ROUNDS, warm_up=False, clock=time.process_time)
    print(f"{SIZE_PX} px, batch {BATCH}, fp32; {machine()}\n")
    rows = [
        [
            name,
            f"{_parameters(side.net):,}",
            milliseconds(steps[name]),
            ratio(steps[name], steps["ours"]),
            milliseconds(predictions[name]),
            ratio(predictions[name], predictions["ours"]),
        ]
        for name, side in sides.items()
    ]
    table(("net", "parameters", "step", "step / ours", "prediction", "prediction / ours"), rows)
    print(f"\nwith three channels: ours {_parameters(ours(3)):,} parameters, smp {_parameters(theirs(3)):,}")


def _parameters(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


if __name__ == "__main__":
    main()
