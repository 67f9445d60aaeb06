"""The devices and processes of a run, and in how many bits they compute."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.state import AcceleratorState, PartialState, is_initialized
from accelerate.utils import broadcast_object_list

from pleura.config.recipe import Recipe
from pleura.inference.device import chosen_device
from pleura.inference.precision import Precision, choose_precision

NAMES = {"float32": "no", "bfloat16": "bf16", "float16": "fp16"}
"""Precision -> accelerate's word."""


def build_accelerator(recipe: Recipe, precision: Precision | None = None) -> Accelerator:
    """Return the devices and processes of this run, as accelerate or torchrun launched it.

    precision: of the net's passes; by default `training_precision`. float16 takes a scaler.
    """
    # A head whose loss has no weight gets no gradient: DistributedDataParallel then needs `find_unused_parameters`.
    # Where every head has a weight, that would search in each step for nothing, and warn of it.
    idle = any(
        (recipe.model.presence_head and not (stage.loss.presence or stage.loss.image))
        or (recipe.model.deep_supervision and not stage.loss.deep)
        for stage in recipe.stages
    )
    unused = DistributedDataParallelKwargs(find_unused_parameters=idle)
    mixed = NAMES[(precision or training_precision(recipe)).name]
    # accelerate has one precision for all of a process, where folds and members of an ensemble are trained in turn.
    if is_initialized() and AcceleratorState().mixed_precision != mixed:
        AcceleratorState._reset_state()
    return Accelerator(mixed_precision=mixed, cpu=_on_cpus(), kwargs_handlers=[unused])


def training_precision(recipe: Recipe, state: Mapping[str, Any] | None = None) -> Precision:
    """Return what a run computes in, the same in all of its processes.

    state: that it goes on from. One of a version that had no choice goes on in float32 on CPUs, unless the recipe asks
    for another. Raises: InputError for a precision that its device does not have.
    """
    here, asked = PartialState(cpu=_on_cpus()), recipe.precision
    if asked == "auto" and state is not None and "precision" not in state and here.device.type == "cpu":
        return Precision("float32", "as when the run began, before there was a choice")
    # One process measures for all: each would measure the others' work too, and two could come to differ.
    asked = asked if here.is_main_process or asked != "auto" else "float32"
    chosen: Precision = broadcast_object_list([choose_precision(asked, here.device, training=True)])[0]
    return chosen


def changed_precision(state: Mapping[str, Any], precision: Precision, device: torch.device) -> list[str]:
    """Return a sentence if a run goes on in another precision than it had when its state was saved."""
    before = state.get("precision", "float32" if device.type == "cpu" else precision.name)
    return [] if before == precision.name else [f"it computes in {precision.name}, and computed in {before}"]


def precision_name(accelerator: Accelerator) -> str:
    """Return what the net's passes compute in: `float32`, `bfloat16` or `float16`."""
    return next(name for name, word in NAMES.items() if word == accelerator.mixed_precision)


def _on_cpus() -> bool:
    # Without `cpu=True`, accelerate takes several processes on CPUs for as many runs of one process.
    chosen = chosen_device()
    gpu = torch.cuda.is_available() if chosen is None else chosen.type == "cuda"
    several = not gpu and int(os.environ.get("WORLD_SIZE", "1")) > 1
    return several or getattr(chosen, "type", None) == "cpu"
