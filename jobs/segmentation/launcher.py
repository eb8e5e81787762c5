"""Starts the processes of one training on this machine and reads how they ended."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from jobs.errors import ConfigError, InterruptedJobError
from jobs.segmentation.ranks import LAUNCHER

log = logging.getLogger(__name__)

# Seconds the other ranks have to end once one has failed; then they are killed.
SECONDS_TO_END = 3


def default_processes(batch_size: int) -> int:
    """One process for each GPU, at most one for each film of a batch; one on the CPU."""
    return max(1, min(torch.cuda.device_count(), batch_size))


def launch(
    command: Sequence[str], processes: int, environment: Mapping[str, str] | None = None
) -> int:
    """Run `processes` copies of `command` as ranks of one process group, to their end.

    Args:
        command: program and arguments.
        environment: of the ranks; None: that of this process.

    Returns:
        0 where all ranks end with 0; the exit code of the rank that failed first, after the others
        ended; 128 + n where signal n killed it; 75 where this process was stopped, after the ranks.

    Raises ConfigError where this machine has GPUs, but fewer than `processes`.
    """
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import elastic_launch

    check_processes(processes)
    # elastic_launch logs twenty lines that repeat the failing rank's message and ours.
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    try:
        with _os_environ(dict(os.environ) if environment is None else environment):
            elastic_launch(_launch_config(processes), command[0])(*command[1:])
    except ChildFailedError as error:
        return _exit_code(_causes(error.failures))
    except SignalException as stopped:
        log.warning("stopped by %s, and so were the %d ranks", stopped.sigval.name, processes)
        return InterruptedJobError.exit_code
    return 0


def check_processes(processes: int) -> None:
    """Raise ConfigError where this machine has GPUs, but fewer than `processes`."""
    gpus = torch.cuda.device_count()
    if 0 < gpus < processes:
        raise ConfigError(f"--processes {processes} with {gpus} GPUs: give at most {gpus}")


@contextlib.contextmanager
def _os_environ(environment: Mapping[str, str]) -> Iterator[None]:
    """Replace os.environ while the block runs, and restore it however the block is left."""
    # elastic_launch starts the ranks with a copy of os.environ and takes no other environment.
    before = dict(os.environ)
    # The ranks are on this machine: no look-up of its name, which an isolated container lacks.
    _replace_os_environ({"GLOO_SOCKET_IFNAME": "lo", **environment, LAUNCHER: str(os.getpid())})
    try:
        yield
    finally:
        _replace_os_environ(before)


def _replace_os_environ(environment: Mapping[str, str]) -> None:
    for name in os.environ.keys() - environment.keys():
        del os.environ[name]
    os.environ.update(environment)


def _launch_config(processes: int) -> Any:
    """One node, no restarts, no log files; the ranks meet at a free port of this machine."""
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
    from torch.distributed.launcher.api import LaunchConfig

    return LaunchConfig(
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


def _causes(failures: Mapping[int, Any]) -> dict[int, int]:
    """{rank: exit code}, the earliest first, without the ranks that the launcher killed.

    Args:
        failures: by rank, elastic's ProcessFailure: exitcode, negative for a signal, and timestamp
            in seconds.
    """
    ordered = sorted(failures.items(), key=lambda item: int(item[1].timestamp))
    # The launcher kills no rank earlier than this.
    deadline = ordered[0][1].timestamp + SECONDS_TO_END
    return {
        rank: failure.exitcode
        for rank, failure in ordered
        if failure.exitcode != -signal.SIGKILL or failure.timestamp < deadline
    }


def _exit_code(codes: Mapping[int, int]) -> int:
    """The exit code of the failure that caused the others; `codes` by rank, the earliest first."""
    # A rank that lost another ends with 1; one that the launcher stopped, with 75 or by SIGTERM.
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
