"""A launch: what its ranks see, and its exit code where they end, fail, are killed or stopped."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from jobs.errors import ConfigError
from jobs.segmentation import distributed, launcher, ranks
from tests.support.ranks import context

SECONDS = 60
ROOT = Path(__file__).resolve().parents[2]


def test_more_processes_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ConfigError, match="--processes 3 with 2 GPUs"):
        launcher.launch(["false"], 3)


@pytest.mark.parametrize(
    ("gpus", "batch_size", "processes"), [(0, 8, 1), (1, 8, 1), (4, 8, 4), (8, 4, 4)]
)
def test_by_default_there_is_a_process_for_each_gpu_and_a_film_of_each_batch_for_each_process(
    gpus: int, batch_size: int, processes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    assert launcher.default_processes(batch_size) == processes


def test_ranks_on_a_cpu_share_the_threads_of_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    shares: list[int] = []
    monkeypatch.setattr(ranks, "world_size", lambda: 4)
    monkeypatch.setattr(distributed, "_die_with_parent", lambda: None)
    monkeypatch.setattr(torch.distributed, "init_process_group", lambda backend: None)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 6)
    monkeypatch.setattr(torch, "set_num_threads", shares.append)
    distributed.init()
    assert shares == [1]


Launch = Callable[[str], ForkServerProcess]


def launch_and_exit(script: str, cwd: str) -> None:
    """Exits with the launch's code, or with 1 where it changed this process's environment."""
    os.chdir(cwd)
    os.environ["ONLY_HERE"] = "1"
    before = dict(os.environ)
    environment = {name: value for name, value in before.items() if name != "ONLY_HERE"}
    code = launcher.launch([sys.executable, "-c", script], 2, environment | {"FILMS": "/a=b/c d"})
    assert dict(os.environ) == before
    sys.exit(code)


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Launch]:
    """Launches two ranks of a script in `tmp_path`; those still running are killed at the end."""
    processes = []

    def start(script: str) -> ForkServerProcess:
        script = f"import os, signal, sys, time; rank = int(os.environ['RANK'])\n{script}"
        process = context().Process(target=launch_and_exit, args=(script, str(tmp_path)))
        process.start()
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.join()


def exit_code(process: ForkServerProcess) -> int | None:
    process.join(SECONDS)
    return process.exitcode


def test_ranks_know_each_other_and_end_well(launch: Launch, tmp_path: Path) -> None:
    names = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR", "GLOO_SOCKET_IFNAME")
    process = launch(f"open(f'{{rank}}', 'w').write(' '.join(os.environ[n] for n in {names}))")
    assert exit_code(process) == 0
    assert (tmp_path / "0").read_text() == "2 0 0 127.0.0.1 lo"
    assert (tmp_path / "1").read_text() == "2 1 1 127.0.0.1 lo"


def test_ranks_get_the_environment_of_the_launch_and_this_process_keeps_its_own(
    launch: Launch, tmp_path: Path
) -> None:
    names = ("FILMS", "ONLY_HERE")
    process = launch(f"open(f'{{rank}}', 'w').write(repr([os.environ.get(n) for n in {names}]))")
    assert exit_code(process) == 0, "the launch changed this process's environment"
    for rank in ("0", "1"):
        assert (tmp_path / rank).read_text() == "['/a=b/c d', None]"


@pytest.mark.parametrize(
    ("end", "code"),
    [
        ("sys.exit(65)", 65),
        ("sys.exit(1)", 1),
        ("os.kill(os.getpid(), signal.SIGKILL)", 128 + signal.SIGKILL),
    ],
)
def test_the_code_is_that_of_the_rank_that_fails_and_the_others_end_at_once(
    launch: Launch, end: str, code: int
) -> None:
    started = time.monotonic()
    process = launch(f"if rank == 1: {end}\ntime.sleep({SECONDS})")
    assert exit_code(process) == code
    assert time.monotonic() - started < SECONDS / 2


def test_sigterm_reaches_the_ranks_and_the_code_is_75(launch: Launch, tmp_path: Path) -> None:
    process = launch(
        "signal.signal(signal.SIGTERM, lambda *_: (open(f'{rank}.stopped', 'w'), sys.exit(75)))\n"
        f"open(f'{{rank}}.ready', 'w').close()\ntime.sleep({SECONDS})"
    )
    wait_for(lambda: len(list(tmp_path.glob("*.ready"))) == 2)
    process.terminate()
    assert exit_code(process) == 75
    assert len(list(tmp_path.glob("*.stopped"))) == 2


def test_ranks_end_with_a_launcher_that_is_killed(launch: Launch, tmp_path: Path) -> None:
    process = launch(
        f"sys.path.insert(0, {str(ROOT)!r})\n"
        "from jobs.segmentation import distributed\ndistributed.init()\n"
        "open(f'{rank}.part', 'w').write(str(os.getpid()))\n"
        "os.rename(f'{rank}.part', f'{rank}.pid')\n"
        f"time.sleep({SECONDS})"
    )
    wait_for(lambda: len(list(tmp_path.glob("*.pid"))) == 2)
    process.kill()
    pids = [int(path.read_text()) for path in tmp_path.glob("*.pid")]
    wait_for(lambda: not any(map(is_running, pids)))


def is_running(pid: int) -> bool:
    """Whether the process exists and is not a zombie, which may have no parent to collect it."""
    try:
        return ") Z" not in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False


def wait_for(condition: Callable[[], bool]) -> None:
    limit = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < limit, f"the condition did not hold in {SECONDS} s"
        time.sleep(0.05)


def test_a_rank_that_the_launcher_killed_because_it_took_too_long_to_end_is_no_cause() -> None:
    failed, killed, at_once = ((1, 100), (-signal.SIGKILL, 103), (-signal.SIGKILL, 101))
    assert launcher._causes(failures(killed, failed)) == {1: 1}
    assert launcher._causes(failures(failed, at_once)) == {0: 1, 1: -signal.SIGKILL}
    assert launcher._causes(failures(killed)) == {0: -signal.SIGKILL}


def failures(*ranks: tuple[int, int]) -> dict[int, Any]:
    """elastic's ProcessFailure of each rank, from (exit code, time in seconds)."""
    return {
        rank: SimpleNamespace(exitcode=code, timestamp=seconds)
        for rank, (code, seconds) in enumerate(ranks)
    }


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        ({1: 77}, 77),
        ({0: 1, 1: -signal.SIGKILL}, 137),
        ({0: 1, 2: 65, 1: -signal.SIGTERM}, 65),
        ({0: 1, 1: -signal.SIGTERM}, 1),
        ({1: 1, 0: 75}, 1),
        ({0: 75, 1: 75}, 75),
        ({1: -signal.SIGTERM, 0: 1}, 128 + signal.SIGTERM),
    ],
)
def test_the_failure_that_caused_the_others_gives_the_code(
    codes: dict[int, int], expected: int
) -> None:
    assert launcher._exit_code(codes) == expected
