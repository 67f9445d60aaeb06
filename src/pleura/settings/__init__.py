"""The experiment file (recipe) as a typed schema, and the manual of every setting.

A recipe is a list of stages. `training` holds the settings all stages share; a stage names only what it changes and
starts from the weights that the stage before it handed on.
"""

from __future__ import annotations

from pleura.settings.augment import AugmentConfig
from pleura.settings.experiment import Ensemble, MemberConfig, Recipe, RuleConfig
from pleura.settings.labels import LabelsConfig
from pleura.settings.net import ModelConfig
from pleura.settings.training import (
    AveragingConfig,
    LossConfig,
    ScheduleConfig,
    StageConfig,
    TrainingConfig,
)

__all__ = [
    "AugmentConfig",
    "AveragingConfig",
    "Ensemble",
    "LabelsConfig",
    "LossConfig",
    "MemberConfig",
    "ModelConfig",
    "Recipe",
    "RuleConfig",
    "ScheduleConfig",
    "StageConfig",
    "TrainingConfig",
]
