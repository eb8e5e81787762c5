"""Several processes that compute what one would.

Every rank works on its slice of the global batch. Whatever depends on the whole batch, the sums of
the loss and the statistics of the normalisation, is summed over the ranks with `global_sum`, whose
gradient is exact; DistributedDataParallel then averages the ranks' gradients.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from jobs.errors import ConfigError, InterruptedJobError
from jobs.segmentation.device import local_device

log = logging.getLogger(__name__)

PR_SET_PDEATHSIG = 1
SECONDS_TO_END = 3  # for the other ranks, once one has failed

_alone = False


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    return dist.get_world_size() if dist.is_initialized() and not _alone else 1


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Inside, this rank sums over itself only: for what it may fail at while others succeed."""
    global _alone
    _alone = True
    try:
        yield
    finally:
        _alone = False


def is_main() -> bool:
    """Whether this process writes: the only one, or rank 0."""
    return rank() == 0


class AllReduceSum(torch.autograd.Function):
    """Sum over the ranks, differentiable: what every rank's loss says of the sum is summed too."""

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
    """A context that leaves the ranks' gradients apart unless `now`; one process: does nothing."""
    context: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
    if isinstance(network, nn.parallel.DistributedDataParallel) and not now:
        context = network.no_sync()
    return context


def init() -> None:
    """Join the processes that `launch` started (RANK, WORLD_SIZE, LOCAL_RANK); alone: nothing."""
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if processes == 1:
        return
    _die_with_parent()
    device = local_device()
    if device.type == "cuda":
        torch.cuda.set_device(device)
        dist.init_process_group("nccl", device_id=device)
    else:
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // processes))
        dist.init_process_group("gloo")


def shutdown() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def _die_with_parent() -> None:
    """Have the kernel end this rank when its launcher is killed, so that none is left behind."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def launch(command: Sequence[str], processes: int) -> int:
    """Run `processes` copies of `command` that find each other, and return their exit code.

    0 when all end well; the exit code of the rank that failed first, after the others are ended;
    128 + n when signal n killed it; 75 when this process is told to stop, after the ranks are.
    Raises ConfigError when there are GPUs, but fewer than `processes`.
    """
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    gpus = torch.cuda.device_count()
    if 0 < gpus < processes:
        raise ConfigError(f"--processes {processes} with {gpus} GPUs: give at most {gpus}")
    # Its log repeats, over twenty lines, what the failing rank has said and what is said below.
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    # The ranks are on this machine: no look-up of its name, which an isolated container lacks.
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id="train",
        rdzv_backend="c10d",
        rdzv_endpoint="127.0.0.1:0",
        local_addr="127.0.0.1",
        max_restarts=0,
        logs_specs=DefaultLogsSpecs(log_dir=os.devnull),
        shutdown_timeout=SECONDS_TO_END,
    )
    try:
        elastic_launch(config, command[0])(*command[1:])
    except ChildFailedError as error:
        return _exit_code(_causes(error.failures))
    except SignalException as stopped:
        log.warning("stopped by %s, and so were the %d ranks", stopped.sigval.name, processes)
        return InterruptedJobError.exit_code
    return 0


def _causes(failures: Mapping[int, Any]) -> dict[int, int]:
    """Each rank's exit code, the earliest first, but of those that the launcher had to kill."""
    found = sorted(failures.items(), key=lambda item: int(item[1].timestamp))
    latest = found[0][1].timestamp + SECONDS_TO_END
    return {
        rank: failure.exitcode
        for rank, failure in found
        if failure.exitcode != -signal.SIGKILL or failure.timestamp < latest
    }


def _exit_code(codes: Mapping[int, int]) -> int:
    """The exit code of the failure that caused the others; `codes` by rank, the earliest first."""
    # A rank that lost another leaves with 1, one that the launcher stopped with 75 or by SIGTERM.
    effects = (1, InterruptedJobError.exit_code, -signal.SIGTERM)
    failed, code = next(
        ((rank, code) for rank, code in codes.items() if code not in effects),
        next(iter(codes.items())),
    )
    if code >= 0:
        log.error("rank %d ended with exit code %d, and so the others were ended", failed, code)
        return code
    name = signal.Signals(-code).name
    memory = ", as for want of memory: lower --batch-size" if code == -signal.SIGKILL else ""
    log.error("rank %d was killed by %s%s", failed, name, memory)
    return 128 - code
