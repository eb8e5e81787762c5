"""Runs a function in several processes of one process group, and returns their results."""

from __future__ import annotations

import multiprocessing
import os
import socket
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, ForkServerProcess
from typing import Any

# A rank that takes longer fails the test.
SECONDS = 120


def context() -> ForkServerContext:
    """Processes forked from one that has imported torch, so that they start at once."""
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(["jobs.segmentation.trainer", "torch.distributed.launcher.api"])
    return server


def run_ranks(function: Callable[..., Any], processes: int, *arguments: Any) -> list[Any]:
    """The result of `function(*arguments)` on each rank, rank 0 first, in a gloo process group.

    `function` is defined in a module. It returns no tensors: their memory would end with the rank.
    """
    port = free_port()
    ranks = [_start(rank, processes, port, function, arguments) for rank in range(processes)]
    try:
        return [_receive(connection) for _, connection in ranks]
    finally:
        for process, _ in ranks:
            process.kill()
            process.join()


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def _start(
    rank: int, processes: int, port: int, function: Callable[..., Any], arguments: tuple[Any, ...]
) -> tuple[ForkServerProcess, Connection]:
    environment = {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "GLOO_SOCKET_IFNAME": "lo",
    }
    receiver, sender = multiprocessing.Pipe()
    process = context().Process(target=_rank, args=(sender, environment, function, arguments))
    process.start()
    sender.close()
    return process, receiver


def _receive(connection: Connection) -> Any:
    assert connection.poll(SECONDS), f"a rank was not done after {SECONDS} s"
    return connection.recv()


def _rank(
    connection: Connection,
    environment: dict[str, str],
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
) -> None:
    import torch

    from jobs.segmentation import distributed, ranks

    os.environ |= environment
    # As a rank of the launcher; the module has read its variable when it was preloaded.
    ranks._IS_CHILD_OF_LAUNCHER = True
    distributed.init()
    torch.set_num_threads(1)
    connection.send(function(*arguments))
    distributed.shutdown()
