"""U-Net over any encoder with features at strides 2, 4, 8, 16, 32 (or fewer), as in the notebook and the 1st place.

Sources: Ronneberger et al. 2015 (arXiv 1505.04597); https://github.com/sneddy/pneumothorax-segmentation (the decoder).
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from pleura.errors import ConfigError
from pleura.model.decoder import DecoderStage, Outputs, PresenceHead, last_upsample
from pleura.model.encoders import Encoder, padded
from pleura.settings import ModelConfig


class UNet(nn.Module):
    """Encoder, one decoder stage for each feature but the deepest, one last upsample, a 1x1 convolution.

    What the stages are made of, and the heads beside the last, stand in `model/decoder.py`.
    """

    def __init__(self, encoder: Encoder, config: ModelConfig) -> None:
        """Raises: ConfigError if `decoder_widths` does not have one width for each stage."""
        super().__init__()
        skips = encoder.channels[-2::-1]
        widths = config.decoder_widths
        if len(widths) != len(skips):
            raise ConfigError(
                f"model.decoder_widths: {encoder.name} has {len(encoder.channels)} features, so that the decoder has "
                f"{len(skips)} stages; give {len(skips)} widths, not {len(widths)}"
            )
        self.stride = encoder.reductions[-1]
        self.encoder = encoder
        ins = [encoder.channels[-1], *widths[:-1]]
        self.decoder = nn.ModuleList(
            DecoderStage(deep, skip, width, config) for deep, skip, width in zip(ins, skips, widths, strict=True)
        )
        # Encoders that begin at stride 4 (ConvNeXt) leave more for the last upsample to do.
        self.last_upsample = last_upsample(widths[-1], encoder.reductions[0], config)
        self.head = nn.Conv2d(config.last_width, config.classes, 1)
        # Drawn last, so that a seed gives the same net above with these heads and without.
        self.presence = PresenceHead(encoder.channels[-1]) if config.presence_head else None
        deep_widths = widths if config.deep_supervision else []
        self.deep = nn.ModuleList(nn.Conv2d(width, config.classes, 1) for width in deep_widths)

    def forward(self, images: Tensor, every_output: bool = False) -> Tensor | Outputs:
        """(N, in_channels, H, W) normalised images -> (N, classes, H, W) logits; any H and W.

        every_output: return `Outputs`, with the presence and the deep logits of the heads that the net has.
        """
        height, width = images.shape[-2:]
        images = padded(images, self.stride)
        *skips, deepest = self.encoder(images)
        decoded, stages = deepest, []
        for stage, skip in zip(self.decoder, reversed(skips), strict=True):
            decoded = stage(decoded, skip)
            stages.append(decoded)
        logits: Tensor = self.head(self.last_upsample(decoded))[..., :height, :width]
        if not every_output:
            return logits
        # Without deep supervision there are stages, but no heads on them.
        small = [head(features) for head, features in zip(self.deep, stages, strict=False)]
        large = [functional.interpolate(part, size=images.shape[-2:], mode="bilinear") for part in small]
        presence = self.presence(deepest) if self.presence is not None else None
        return Outputs(logits, presence, tuple(part[..., :height, :width] for part in large))
