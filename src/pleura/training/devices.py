"""The devices and processes of a run, and in how many bits they compute."""

from __future__ import annotations

import os

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs

from pleura.config.recipe import Recipe
from pleura.inference.device import chosen_device


def build_accelerator(recipe: Recipe) -> Accelerator:
    """Return the devices and processes of this run, as accelerate or torchrun launched it; 16 bits on GPUs."""
    # A head whose loss has no weight gets no gradient: DistributedDataParallel then needs `find_unused_parameters`.
    # Where every head has a weight, that would search in each step for nothing, and warn of it.
    idle = any(
        (recipe.model.presence_head and not (stage.loss.presence or stage.loss.image))
        or (recipe.model.deep_supervision and not stage.loss.deep)
        for stage in recipe.stages
    )
    unused = DistributedDataParallelKwargs(find_unused_parameters=idle)
    # Without `cpu=True`, accelerate takes several processes on CPUs for as many runs of one process.
    on_cpus = not _on_gpu() and int(os.environ.get("WORLD_SIZE", "1")) > 1
    on_cpus = on_cpus or getattr(chosen_device(), "type", None) == "cpu"
    return Accelerator(mixed_precision=precision(), cpu=on_cpus, kwargs_handlers=[unused])


def precision() -> str:
    """Return the precision of the net's passes: `no` (float32) on CPUs, `bf16` on GPUs that compute in it, else `fp16`.

    fp16 takes a scaler. A T4 or V100 accepts bfloat16 and emulates it, at a fraction of its speed.
    """
    if not _on_gpu():
        return "no"
    return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"


def _on_gpu() -> bool:
    chosen = chosen_device()
    return torch.cuda.is_available() if chosen is None else chosen.type == "cuda"
