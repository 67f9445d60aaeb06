"""Training in several processes: sums that gradients pass through, and BatchNorm over all of them."""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import Tensor, distributed, nn

from pleura.inference.cpu import processor
from pleura.models.net import Net, Outputs
from pleura.training.features import Projections, watched


class _SumOverProcesses(torch.autograd.Function):
    # torch.distributed.nn.functional.all_reduce is deprecated, and what replaces it is private.
    @staticmethod
    def forward(context: Any, tensor: Tensor) -> Tensor:
        total = tensor.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone()
        distributed.all_reduce(total)
        return total


def machine(device: torch.device, processes: int) -> str:
    """Return what trains, in words: `2 processes on 2 CPU cores (Intel Xeon ...)`, or the name of the GPU."""
    if device.type == "cuda":
        where = torch.cuda.get_device_name(device)
    else:
        where = f"{os.cpu_count()} CPU cores ({processor()})"
    return f"{processes} process{'es' if processes > 1 else ''} on {where}"


def is_first_process() -> bool:
    """Whether this process is the one that writes files and the log; true where there is only one."""
    return not distributed.is_initialized() or distributed.get_rank() == 0


def end_processes() -> None:
    """Leave the group of processes; torch warns of a process that ends without it."""
    if distributed.is_initialized():
        distributed.destroy_process_group()


class AllOutputs(nn.Module):
    """A net whose call returns all of its outputs: DistributedDataParallel reduces what a module's call computes."""

    def __init__(self, net: Net, projections: Projections | None = None) -> None:
        super().__init__()
        self.net, self.projections = net, projections

    def forward(self, images: Tensor) -> tuple[Outputs, tuple[Tensor, ...]]:
        """Return `Net.outputs`, and what the projections, if there are any, make of the encoder's features."""
        if self.projections is None:
            return self.net.outputs(images), ()
        with watched(self.net.encoder) as features:
            outputs = self.net.outputs(images)
        return outputs, self.projections(features)


def share_buffers(net: nn.Module) -> None:
    """Give every process the buffers of the first: with BatchNorm statistics of its own it would have another net."""
    for buffer in net.buffers():
        distributed.broadcast(buffer, 0)


def sum_over_processes(tensor: Tensor) -> Tensor:
    """Return the sum of every process's tensor of this shape, for a loss on the global batch.

    The gradient is summed as well, so that its mean over processes, as DistributedDataParallel takes it, is the
    gradient of that loss.
    """
    total: Tensor = _SumOverProcesses.apply(tensor)  # type: ignore[no-untyped-call]
    return total


def synchronise_batchnorm(net: Net, device: torch.device) -> tuple[Net, bool]:
    """Let BatchNorm see the batches of all processes; return the net, and whether it now does.

    torch has this for GPUs alone: on CPUs each process keeps statistics of its own part of the batch.
    """
    if not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in net.modules()):
        return net, True
    if device.type == "cpu":
        return net, False
    synchronised: Net = nn.SyncBatchNorm.convert_sync_batchnorm(net)  # type: ignore[no-untyped-call]
    return synchronised, True
