"""Run trainings as separate processes; each line that they print is prefixed with their name."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# One thread per training and no GPU, so that CPU-seconds are comparable between the models.
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def run_all(
    commands: Mapping[str, Sequence[str]],
    at_once: int,
    on_done: Callable[[str], None] = lambda name: None,
) -> None:
    """Run the named commands, `at_once` in parallel; call `on_done` after each success.

    Raises SystemExit when a command fails; commands that have not started by then do not run.
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
        raise SystemExit(f"{name} ended with {process.returncode}: see its message above")
