"""Several processes (ranks) that compute what one process would.

Every rank works on its slice of the global batch. What depends on the whole batch, the sums of the
loss and the statistics of the normalisation, is summed over the ranks by `global_sum`, whose
gradient is exact; DistributedDataParallel then averages the ranks' gradients.
"""

from __future__ import annotations

import contextlib
import ctypes
import signal
import sys
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from jobs.segmentation import ranks
from jobs.segmentation.device import local_device

# From linux/prctl.h: the signal that this process gets when its parent ends.
PR_SET_PDEATHSIG = 1


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """The number of ranks; 1 in a process that is not one of several."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_main() -> bool:
    """Whether this process writes: the only one, or rank 0."""
    return rank() == 0


class AllReduceSum(torch.autograd.Function):
    """Sum over the ranks. Its gradient is the sum of the ranks' gradients by the sum."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        total = tensor.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total


def global_sum(tensor: Tensor) -> Tensor:
    """Sum of the ranks' tensors of equal shape, the same on each; one process: the tensor."""
    if world_size() == 1:
        return tensor
    total: Tensor = AllReduceSum.apply(tensor)  # type: ignore[no-untyped-call]
    return total


def global_minimum(number: int, device: torch.device) -> int:
    """The smallest of the ranks' numbers; one process: the number."""
    if world_size() == 1:
        return number
    least = torch.tensor(number, device=device)
    dist.all_reduce(least, dist.ReduceOp.MIN)
    return int(least)


def data_parallel(model: nn.Module, device: torch.device) -> nn.Module:
    """The model with gradients averaged over the ranks; one process: the model."""
    if world_size() == 1:
        return model
    return nn.parallel.DistributedDataParallel(
        model,
        device_ids=[device] if device.type == "cuda" else None,
        # The ranks' buffers are equal: GlobalBatchNorm2d gives each the same statistics.
        forward_sync_buffers=False,
        gradient_as_bucket_view=True,
    )


def summing_gradients(network: nn.Module, *, now: bool) -> contextlib.AbstractContextManager[None]:
    """A context that averages the ranks' gradients only if `now`; one process: does nothing."""
    context: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
    if isinstance(network, nn.parallel.DistributedDataParallel) and not now:
        context = network.no_sync()
    return context


def init() -> None:
    """Join the process group of `launcher.launch`, if it started this process.

    A rank on a CPU computes with its share of the threads that one process would have.
    """
    processes = ranks.world_size()
    if processes == 1:
        return
    _die_with_parent()
    device = local_device()
    if device.type == "cuda":
        torch.cuda.set_device(device)
        dist.init_process_group("nccl", device_id=device)
    else:
        torch.set_num_threads(max(1, torch.get_num_threads() // processes))
        dist.init_process_group("gloo")


def shutdown() -> None:
    """Leave the process group, if there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()


def _die_with_parent() -> None:
    """Have the kernel kill this rank when its launcher dies, so that no rank outlives it."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
