"""The experiment file (recipe) as a typed schema, and the manual of every setting.

A recipe is a list of stages. `training` holds the settings all stages share; a stage names only what it changes and
starts from the weights that the stage before it handed on.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, model_validator

Probability: TypeAlias = Annotated[float, Field(ge=0, le=1)]
NotNegative: TypeAlias = Annotated[float, Field(ge=0)]
Rate: TypeAlias = Annotated[float, Field(gt=0, le=1)]


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
    normalisation: Literal["none", "batch", "group"] = "none"
    """What follows each decoder convolution of a `unet`; the winner's nets have nothing."""
    bottleneck: Literal["plain", "scse"] = "plain"
    """`scse`: spatial and channel squeeze-and-excitation after each bottleneck of a `unet` (arXiv 1803.02579)."""
    upsampling: Literal["nearest", "bilinear", "transposed"] = "nearest"
    """How a decoder stage of a `unet` doubles the resolution; `transposed` has weights of its own."""
    presence_head: bool = False
    """A second output of a `unet`, from the deepest feature: is there any pneumothorax. No pixel gets a higher
    probability than the image."""
    deep_supervision: bool = False
    """A further 1 x 1 convolution on each decoder stage of a `unet`, for the loss alone (see loss.deep)."""
    input_scaling: Literal["encoder", "none"] = "encoder"
    """`encoder`: as the encoder's ImageNet weights expect; `none`: [0, 1], as the winner's AlbuNet and seunet."""

    @model_validator(mode="after")
    def _albunet_is_resnet34(self) -> ModelConfig:
        if self.architecture == "albunet" and self.encoder != "resnet34":
            raise ValueError(f"albunet is built on resnet34, not on {self.encoder}; set model.encoder=resnet34")
        if self.architecture == "albunet" and (self.presence_head or self.deep_supervision):
            raise ValueError("albunet has neither presence_head nor deep_supervision; set model.architecture=unet")
        return self


class LossConfig(_Strict):
    """Weights of a sum of losses on logits; 0 leaves a term out."""

    bce: NotNegative = 1.0
    """Binary cross-entropy, mean over pixels."""
    dice: NotNegative = 1.0
    """1 - soft Dice (arXiv 1606.04797)."""
    focal: NotNegative = 0.0
    """Focal loss, mean over pixels (arXiv 1708.02002)."""
    jaccard: NotNegative = 0.0
    """1 - soft Jaccard index."""
    lovasz: NotNegative = 0.0
    """Symmetric Lovász hinge, mean over images (arXiv 1705.08790)."""
    tversky: NotNegative = 0.0
    """1 - soft Tversky index (arXiv 1706.05721)."""
    presence: NotNegative = 0.0
    """Binary cross-entropy of the presence head; needs model.presence_head."""
    deep: NotNegative = 0.0
    """The sum above on each deeply supervised stage, mean over stages; needs model.deep_supervision."""
    per_image: bool = False
    """Dice, Jaccard and Tversky: false pools them over the batch, as the winner; true: mean over images."""
    smooth: Annotated[float, Field(gt=0)] = 1.0
    """Added to numerator and denominator of Dice, Jaccard and Tversky, in pixels: a false positive on an empty image
    costs, and its gradient does not vanish. The winner has 1e-6."""
    focal_gamma: NotNegative = 2.0
    """Exponent of the focal loss."""
    tversky_alpha: NotNegative = 0.3
    """Weight of false positives in the Tversky index."""
    tversky_beta: NotNegative = 0.7
    """Weight of false negatives in the Tversky index."""

    @model_validator(mode="after")
    def _something_to_minimise(self) -> LossConfig:
        if not any((self.bce, self.dice, self.focal, self.jaccard, self.lovasz, self.tversky)):
            raise ValueError(
                "all weights are 0; give at least one of bce, dice, focal, jaccard, lovasz, tversky a weight"
            )
        return self


class ScheduleConfig(_Strict):
    """The learning rate over the epochs of a stage."""

    name: Literal["constant", "cosine", "plateau"] = "cosine"
    """`cosine`: from lr to min_lr, step by step; `plateau`: times `factor` after `patience` epochs without gain."""
    min_lr: NotNegative = 1e-6
    """The lowest learning rate."""
    warmup_epochs: NotNegative = 0.0
    """Epochs of linear warm-up before the cosine."""
    period_epochs: Annotated[float, Field(gt=0)] | None = None
    """Epochs in which the cosine falls to `min_lr`, and then in which it rises again: T_max of torch's
    CosineAnnealingLR; null: the whole stage."""
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """What the plateau schedule multiplies the learning rate by."""
    patience: Annotated[int, Field(ge=0)] = 2
    """Epochs without a better validation score that the plateau schedule waits."""


class AveragingConfig(_Strict):
    """Averages of the weights of a stage; each is measured on the validation cases beside the single best epoch."""

    swa_epochs: Annotated[int, Field(ge=0)] = 0
    """Stochastic weight averaging: the mean of the last so many epochs (arXiv 1803.05407); 0: none."""
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Exponential moving average over steps; 0: none."""
    top_k: Annotated[int, Field(ge=0)] = 0
    """Keep the so many best epochs, and average them; 0: none."""
    soup: bool = False
    """Greedy soup of the top k: each joins if the average gains by it (arXiv 2203.05482)."""
    refresh_cases: Annotated[int, Field(ge=0)] = 512
    """Training cases by which an average's BatchNorm statistics are made anew; 0 averages them like the weights."""
    hand_on: Literal["best", "swa", "ema", "top_k", "soup", "best_on_val"] = "best"
    """What the stage ends with: what the next stage starts from and, after the last, best.safetensors. `best`: the
    single best epoch; `best_on_val`: whichever scores best."""

    @model_validator(mode="after")
    def _what_is_handed_on_exists(self) -> AveragingConfig:
        if self.soup and self.top_k < 2:
            raise ValueError("soup needs the best epochs to choose from; set averaging.top_k to 2 or more")
        made = {"swa": self.swa_epochs, "ema": self.ema_decay, "top_k": self.top_k, "soup": self.soup}
        if not made.get(self.hand_on, True):
            raise ValueError(f"hand_on is {self.hand_on}, which is not made; see averaging in docs/settings.md")
        return self


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
    accumulate_steps: Annotated[int, Field(ge=1)] = 1
    """Batches whose gradients are added up before the weights change."""
    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    """Adam (L2 in the gradient), AdamW (decoupled) or SGD with momentum."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Of SGD."""
    lr: Annotated[float, Field(gt=0)] = 1e-4
    """Learning rate at the start."""
    weight_decay: NotNegative = 0.0
    """Weight decay of the optimizer."""
    gradient_clip: NotNegative = 0.0
    """Largest norm of the gradient; 0 does not clip."""
    freeze_encoder_epochs: Annotated[int, Field(ge=0)] = 0
    """Epochs at the start of the stage in which the decoder alone learns."""
    positive_rate: Rate | tuple[Rate, Rate] | None = None
    """Share of positives in an epoch: all of them, and a rotation of negatives. A pair slides from the first epoch's
    to the last's. null: every case once."""
    cases_per_epoch: Annotated[int, Field(ge=1)] | None = None
    """At most so many cases an epoch, drawn anew for each; null: all of them. Shortens a run on a slow machine."""
    select: Literal["siim_dice", "siim_dice_at_siim_prevalence", "dice_on_positives", "auroc"] = "siim_dice"
    """The validation score that picks the best epoch. `siim_dice_at_siim_prevalence` is re-weighted to SIIM's 22.15 %
    positives where the dataset has another share, and so is then the choice of the triplet."""
    early_stopping: Annotated[int, Field(ge=0)] = 0
    """Epochs without a better score before the stage ends; 0 never."""
    loss: LossConfig = LossConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    averaging: AveragingConfig = AveragingConfig()
    augment: AugmentConfig = AugmentConfig()


class StageConfig(TrainingConfig):
    """A `TrainingConfig` with a name."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")]
    """Names the stage, and its checkpoint in the run, NAME.safetensors."""


class _Experiment(_Strict):
    """What a recipe or an ensemble says of itself."""

    name: str = "unnamed"
    """What the run calls itself."""
    source: str = ""
    """Where the recipe comes from: paper, repository, notebook."""
    anchor: str = ""
    """The published score to compare with, and on what it was measured."""
    unknown: str = ""
    """What the source does not say, and what stands here instead."""
    cost: str = ""
    """What a run takes."""


class Recipe(_Experiment):
    """One experiment."""

    seed: Annotated[int, Field(ge=0)] = 42
    """Seed of everything random."""
    tta: Literal["none", "flip"] = "none"
    """Test-time augmentation in validation, and so what the triplet is tuned for; evaluate and predict follow."""
    save_minutes: NotNegative = 10.0
    """The state for --resume is saved after each epoch, and within one after so many minutes; 0: after each step."""
    samples: Annotated[int, Field(ge=0)] = 4
    """Validation cases drawn after each epoch, into samples/; 0: none."""
    model: ModelConfig = ModelConfig()
    stages: Annotated[list[StageConfig], Field(min_length=1)]
    """At least one; each starts from what the one before handed on."""

    @model_validator(mode="after")
    def _stage_names_differ(self) -> Recipe:
        names = [stage.name for stage in self.stages]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two stages are named {twice[0]!r}; give each its own name")
        kinds = ("best", "swa", "ema", "top_k", "soup")
        taken = {"best", "last", *(f"{name}-{kind}" for name in names for kind in kinds)} & set(names)
        if taken:
            raise ValueError(f"no stage can be named {min(taken)!r}: the run has a file of that name; choose another")
        return self

    @model_validator(mode="after")
    def _losses_have_their_outputs(self) -> Recipe:
        for stage in self.stages:
            for weight, head in (("presence", "presence_head"), ("deep", "deep_supervision")):
                if getattr(stage.loss, weight) and not getattr(self.model, head):
                    raise ValueError(f"stage {stage.name} has loss.{weight}; set model.{head}=true for it")
        return self


class RuleConfig(_Strict):
    """A decision rule that is given, not tuned."""

    top_threshold: Probability = 0.5
    """An image is empty unless enough pixels reach this probability."""
    min_pixels: Annotated[int, Field(ge=0)] = 0
    """How many are enough, of 1024 x 1024; scaled with the area."""
    bottom_threshold: Probability = 0.5
    """What belongs to the mask then."""


class MemberConfig(_Strict):
    """One recipe of an ensemble."""

    recipe: Annotated[str, Field(min_length=1)]
    """A recipe that comes with pleura, by name, or a YAML file, relative to the ensemble's."""
    weight: Annotated[float, Field(gt=0)] = 1.0
    """Of its probabilities in the mean; weights need not add up to 1."""

    @property
    def name(self) -> str:
        """Names the member's folder in the run."""
        return self.recipe.replace("\\", "/").split("/")[-1].split(".")[0]


class Ensemble(_Experiment):
    """Several recipes, each trained for itself; their probabilities are averaged by weight."""

    members: Annotated[list[MemberConfig], Field(min_length=1)]
    """At least one; each is trained into a folder of its name."""
    triplet: RuleConfig | None = None
    """The decision rule; null: the weighted mean of the members' own."""

    @model_validator(mode="after")
    def _member_names_differ(self) -> Ensemble:
        names = [member.name for member in self.members]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two members are named {twice[0]!r}; give one weight to it, or copy its file")
        return self
