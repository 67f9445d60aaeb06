"""U-Net over any encoder whose features halve, as in the notebook and the 1st place.

Strides are 2 to 32 in most, 4 to 32 in ConvNeXt and PVT, 1 to 32 in VGG.

Sources: Ronneberger et al. 2015 (arXiv 1505.04597); https://github.com/sneddy/pneumothorax-segmentation (the decoder).
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from pleura.config.model import ModelConfig
from pleura.errors import ConfigError
from pleura.models.decoder import DecoderStage, last_upsample
from pleura.models.encoders import Encoder, padded
from pleura.models.net import Net, Outputs, PresenceHead

WIDTHS, DEEP_WIDTH = {1: 32, 2: 64, 4: 128}, 256
"""Channels of a decoder stage by its stride where no `decoder_widths` are given; checkpoints rely on them."""


class UNet(Net):
    """Encoder, one decoder stage for each feature but the deepest, one last upsample, a 1x1 convolution.

    With an `output_stride` above 1 the decoder ends at that stride, without the finer features and the last upsample.

    The stages are those of `models/decoder.py`.
    """

    def __init__(self, encoder: Encoder, config: ModelConfig) -> None:
        """Raises: ConfigError if `decoder_widths` does not have one width for each stage, or no stage is left."""
        super().__init__()
        first = _first_feature(encoder, config.output_stride)
        skips = encoder.channels[first:-1][::-1]
        self.config = config
        strides = encoder.reductions[first:-1][::-1]
        widths = config.decoder_widths
        if widths is None:
            widths = [WIDTHS.get(stride, DEEP_WIDTH) for stride in strides]
        if len(widths) != len(skips):
            from_stride = f" from stride {config.output_stride} on" if config.output_stride > 1 else ""
            raise ConfigError(
                f"model.decoder_widths: {encoder.name} has {len(skips) + 1} features{from_stride}, so that the decoder "
                f"has {len(skips)} stages; give {len(skips)} widths, not {len(widths)}, or leave them out"
            )
        self.stride, self.first = encoder.reductions[-1], first
        self.encoder = encoder
        ins = [encoder.channels[-1], *widths[:-1]]
        self.decoder = nn.ModuleList(
            DecoderStage(deep, skip, width, config) for deep, skip, width in zip(ins, skips, widths, strict=True)
        )
        if config.output_stride == 1:
            # Encoders that begin at stride 4 (ConvNeXt) leave more for the last upsample to do.
            self.last_upsample: nn.Module = last_upsample(widths[-1], encoder.reductions[0], config)
            self.head = nn.Conv2d(config.last_width, config.classes, 1)
        else:
            self.last_upsample = nn.Identity()
            self.head = nn.Conv2d(widths[-1], config.classes, 1)
        # Drawn last, so that a seed gives the same net above with these heads and without.
        self.presence = PresenceHead(encoder.channels[-1], config.presence_pooling) if config.presence_head else None
        deep_widths = widths if config.deep_supervision else []
        self.deep = nn.ModuleList(nn.Conv2d(width, config.classes, 1) for width in deep_widths)

    def forward(self, images: Tensor) -> Tensor:
        """(N, in_channels, H, W) normalised images -> (N, classes, H, W) logits; any H and W."""
        return self._decoded(images)[0]

    def outputs(self, images: Tensor) -> Outputs:
        """As `Net.outputs`."""
        logits, deepest, stages = self._decoded(images)
        # Without deep supervision there are stages, but no heads on them.
        small = [head(features) for head, features in zip(self.deep, stages, strict=False)]
        size = [side * self.stride for side in deepest.shape[-2:]]
        large = [functional.interpolate(part, size=size, mode="bilinear") for part in small]
        presence = self.presence(deepest) if self.presence is not None else None
        height, width = images.shape[-2:]
        return Outputs(logits, presence, tuple(part[..., :height, :width] for part in large))

    def _decoded(self, images: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        """The logits, the encoder's deepest feature, and the features of each decoder stage."""
        height, width = images.shape[-2:]
        images = padded(images, self.stride)
        *skips, deepest = self.encoder(images)[self.first :]
        decoded, stages = deepest, []
        for stage, skip in zip(self.decoder, reversed(skips), strict=True):
            decoded = stage(decoded, skip)
            stages.append(decoded)
        logits: Tensor = self.head(self.last_upsample(decoded))
        if logits.shape[-2:] != images.shape[-2:]:  # output_stride
            logits = functional.interpolate(logits, size=images.shape[-2:], mode="bilinear")
        return logits[..., :height, :width], deepest, stages


def _first_feature(encoder: Encoder, output_stride: int) -> int:
    """Which of the encoder's features is the finest that the decoder uses. Raises: ConfigError if there is none."""
    if output_stride == 1:
        return 0
    if output_stride not in encoder.reductions[:-1]:
        strides = ", ".join(str(reduction) for reduction in encoder.reductions[:-1])
        raise ConfigError(f"model.output_stride: {encoder.name} has features at strides {strides}, not {output_stride}")
    return encoder.reductions.index(output_stride)
