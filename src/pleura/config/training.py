"""Settings of a stage of training."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from pleura.config.augmentation import AugmentConfig
from pleura.config.strict import NotNegative, Probability, Rate, Strict
from pleura.config.targets import LabelsConfig


class LossConfig(Strict):
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
    image: NotNegative = 0.0
    """Binary cross-entropy of the image's logit, that of its highest pixel by model.presence_rule: what the image is
    predicted by. With the rule `mean` half of its gradient goes to the head, half to that pixel."""
    deep: NotNegative = 0.0
    """The sum above on each deeply supervised stage, mean over stages; needs model.deep_supervision."""
    per_image: bool | Probability = False
    """Dice, Jaccard and Tversky: false (or 0) pools them over the batch, as the winner; true (or 1): mean over images;
    a number between: that share of the latter, the rest pooled. Pooled, large findings decide; per image, all count
    alike."""
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


class ScheduleConfig(Strict):
    """The learning rate over the epochs of a stage."""

    name: Literal["constant", "cosine", "plateau"] = "cosine"
    """`cosine`: from lr to min_lr, step by step; `plateau`: times `factor` after `patience` epochs without gain."""
    min_lr: NotNegative = 1e-6
    """The lowest learning rate."""
    warmup_epochs: NotNegative = 0.0
    """Epochs of linear warm-up before the cosine."""
    period_epochs: Annotated[float, Field(gt=0)] | None = None
    """Epochs in which the cosine falls to `min_lr`, and as many in which it rises again: T_max of torch's
    CosineAnnealingLR; null: the whole stage."""
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Factor by which the plateau schedule multiplies the learning rate."""
    patience: Annotated[int, Field(ge=0)] = 2
    """Epochs without a better validation score that the plateau schedule waits."""


class AveragingConfig(Strict):
    """Averages of the weights of a stage; each is measured on the validation cases beside the single best epoch."""

    swa_epochs: Annotated[int, Field(ge=0)] = 0
    """Stochastic weight averaging: the number of last epochs in the mean (arXiv 1803.05407); 0: none."""
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Exponential moving average over steps; 0: none."""
    top_k: Annotated[int, Field(ge=0)] = 0
    """Best epochs that are kept and averaged; 0: none."""
    soup: bool = False
    """Greedy soup of the top k: each joins if the average gains by it (arXiv 2203.05482)."""
    refresh_cases: Annotated[int, Field(ge=0)] = 512
    """How many training cases the BatchNorm statistics of an average are computed from (frozen layers keep theirs); 0:
    the statistics are averaged like the weights."""
    hand_on: Literal["best", "swa", "ema", "top_k", "soup", "best_on_val"] = "best"
    """Which weights the stage ends with. The next stage starts from them; those of the last are best.safetensors.
    `best`: the single best epoch; `best_on_val`: whichever scores best. Where the weights that the stage started from
    score higher at the stage's size than the ones named here, or than the mean by `incoming_share`, the stage ends with
    those."""
    incoming_share: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the weights that the stage starts from in a mean with those that `hand_on` names (WiSE-FT, arXiv
    2109.01903): often better than either. The stage ends with that mean unless those that `hand_on` names score higher.
    0: none. It needs a stage before, or `--weights`."""

    @model_validator(mode="after")
    def _final_weights_exist(self) -> AveragingConfig:
        if self.refresh_cases == 1:
            raise ValueError("refresh_cases is 1, and BatchNorm takes no variance from one; give 0, or 2 and more")
        if self.soup and self.top_k < 2:
            raise ValueError("soup needs the best epochs to choose from; set averaging.top_k to 2 or more")
        made = {"swa": self.swa_epochs, "ema": self.ema_decay, "top_k": self.top_k, "soup": self.soup}
        if not made.get(self.hand_on, True):
            raise ValueError(f"hand_on is {self.hand_on}, which is not made; see averaging in docs/settings.md")
        return self


class TrainingConfig(Strict):
    """How one stage trains. Every setting can stand in `training` (all stages) or in a stage (that one)."""

    size_px: Annotated[int, Field(ge=32)] = 512
    """Side of the square images of this stage."""
    epochs: Annotated[int, Field(ge=1)] = 10
    """Number of epochs; the cases of one follow from positive_rate."""
    batch_size: Annotated[int, Field(ge=1)] = 4
    """Images in a batch."""
    accumulate_steps: Annotated[int, Field(ge=1)] = 1
    """Batches whose gradients are added up before the weights change."""
    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    """Adam (L2 in the gradient), AdamW (decoupled) or SGD with momentum."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Momentum of SGD."""
    lr: Annotated[float, Field(gt=0)] = 1e-4
    """Learning rate at the start."""
    weight_decay: NotNegative = 0.0
    """Weight decay of the optimizer."""
    gradient_clip: NotNegative = 0.0
    """Largest norm of the gradient; 0 does not clip."""
    freeze_encoder_epochs: Annotated[int, Field(ge=0)] = 0
    """Epochs at the start of the stage in which the decoder alone learns."""
    freeze_encoder_stride: Literal[0, 1, 2, 4, 8, 16, 32] = 0
    """The encoder's layers up to its feature at this stride do not learn in this stage; 0: all do."""
    positive_rate: Rate | tuple[Rate, Rate] | None = None
    """Share of positives in an epoch, which has all positives and as many negatives as the share asks for, others in
    each epoch. A pair: the share of the first epoch and of the last, in equal steps. null: every case once."""
    cases_per_epoch: Annotated[int, Field(ge=1)] | None = None
    """At most this many cases an epoch, positives and negatives in their shares; no case is repeated before all have
    been used. null: all of them. Shortens a run on a slow machine."""
    select: Literal["siim_dice", "siim_dice_at_siim_prevalence", "dice_on_positives", "auroc"] = "siim_dice"
    """The validation score that picks the best epoch. `siim_dice_at_siim_prevalence` is re-weighted to SIIM's 22.15 %
    positives where the dataset has another share; the triplet is then chosen with the same weights."""
    early_stopping: Annotated[int, Field(ge=0)] = 0
    """Epochs without a better score before the stage ends; 0 never."""
    labels: LabelsConfig = LabelsConfig()
    loss: LossConfig = LossConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    averaging: AveragingConfig = AveragingConfig()
    augment: AugmentConfig = AugmentConfig()


class StageConfig(TrainingConfig):
    """A `TrainingConfig` with a name."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")]
    """Names the stage, and its checkpoint in the run, NAME.safetensors."""
