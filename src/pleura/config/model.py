"""Settings of the net."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from pleura.config.strict import Strict


class ModelConfig(Strict):
    """The net."""

    architecture: Literal["unet", "albunet"] = "unet"
    """`unet`: any timm encoder with a U-Net decoder. `albunet`: ResNet34 with the TernausNet decoder."""
    encoder: str = "densenet121"
    """A timm net with pyramid features. `albunet` takes resnet34 alone, and by default."""
    pretrained: bool | str = True
    """true: ImageNet weights by timm's own download; false: random; a path: a local file with timm's key names."""
    in_channels: Literal[1, 3] = 1
    """1 folds a three-channel stem into one, with equal outputs on grey images."""
    classes: Annotated[int, Field(ge=1)] = 1
    """Output channels, each with a sigmoid of its own."""
    decoder_widths: list[Annotated[int, Field(ge=1)]] | None = None
    """Channels of each decoder stage of a `unet`, low to high resolution. null: by the stride of each stage, 256 from
    8 on, 128 at 4, 64 at 2, 32 at 1; with five features at strides 2 to 32 the notebook's 256, 256, 128, 64."""
    last_width: Annotated[int, Field(ge=1)] = 64
    """Channels at full resolution, before the 1 x 1 convolution of a `unet`; unused where output_stride is above 1."""
    output_stride: Literal[1, 2, 4, 8] = 1
    """A `unet` decodes to 1 / output_stride of the image's side, and its logits are enlarged linearly from there. Above
    1 there are fewer decoder stages, and decoder_widths has fewer entries. Full resolution costs most of a light net's
    time."""
    normalisation: Literal["none", "batch", "group"] = "none"
    """Normalisation after each decoder convolution of a `unet`; the winner's nets have none."""
    bottleneck: Literal["plain", "scse"] = "plain"
    """`scse`: spatial and channel squeeze-and-excitation after each bottleneck of a `unet` (arXiv 1803.02579)."""
    upsampling: Literal["nearest", "bilinear", "transposed"] = "nearest"
    """How a decoder stage of a `unet` doubles the resolution; `transposed` has weights of its own."""
    presence_head: bool = False
    """A second output of a `unet`, from the deepest feature: the logit of any pneumothorax on the image."""
    presence_pooling: Literal["mean", "mean_max"] = "mean"
    """What the presence head sees of the deepest feature: its mean over the image (4th place), or mean and maximum."""
    presence_rule: Literal["cap", "mean"] = "cap"
    """How the presence head changes the pixels. `cap`: no pixel gets a higher probability than the image (4th place).
    `mean`: the logits of all pixels are shifted alike, until the highest is the mean of itself and the head's, so that
    the image's score depends on both."""
    deep_supervision: bool = False
    """A further 1 x 1 convolution on each decoder stage of a `unet`, for the loss alone (see loss.deep)."""
    input_scaling: Literal["encoder", "none"] = "encoder"
    """`encoder`: as the encoder's ImageNet weights expect; `none`: [0, 1], as the winner's AlbuNet and seunet."""

    @model_validator(mode="before")
    @classmethod
    def _albunet_brings_its_encoder(cls, given: Any) -> Any:
        if isinstance(given, dict) and given.get("architecture") == "albunet":
            return {"encoder": "resnet34", **given}
        return given

    @model_validator(mode="after")
    def _albunet_is_resnet34(self) -> ModelConfig:
        if self.architecture == "albunet" and self.encoder != "resnet34":
            raise ValueError(f"albunet is built on resnet34, not on {self.encoder}; set model.encoder=resnet34")
        if self.architecture == "albunet" and (self.presence_head or self.deep_supervision):
            raise ValueError("albunet has neither presence_head nor deep_supervision; set model.architecture=unet")
        for key, changed in (("rule", self.presence_rule != "cap"), ("pooling", self.presence_pooling != "mean")):
            if changed and not self.presence_head:
                raise ValueError(f"presence_{key} is for a net with a presence head; set model.presence_head=true")
        if self.architecture == "albunet" and self.output_stride > 1:
            raise ValueError("albunet decodes to full resolution; set model.output_stride=1 or model.architecture=unet")
        return self
