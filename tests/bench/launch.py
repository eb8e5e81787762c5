"""Runs trainings as processes of their own, their lines printed with the name of each."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# One thread each, so that CPU-seconds mean the same for all; a GPU would not count in them.
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def run_all(
    commands: Mapping[str, Sequence[str]],
    at_once: int,
    on_done: Callable[[str], None] = lambda name: None,
) -> None:
    """Run each named command, `at_once` side by side, and tell `on_done` of each that ended well.

    Raises SystemExit for the first that fails; those not begun by then never are.
    """
    with ThreadPoolExecutor(max_workers=at_once) as pool:
        running = {pool.submit(_run, name, command): name for name, command in commands.items()}
        try:
            for future in as_completed(running):
                future.result()
                on_done(running[future])
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _run(name: str, command: Sequence[str]) -> None:
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env=os.environ | ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout
        for line in process.stdout:
            print(f"{name}: {line}", end="", flush=True)
    if process.returncode:
        raise SystemExit(f"{name} ended with {process.returncode}: its own message stands above")
