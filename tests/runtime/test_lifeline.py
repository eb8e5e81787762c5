from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from jobs import download, preprocess
from jobs.settings.config import DownloadConfig, PreprocessConfig, TrainConfig
from jobs.storage.s3 import Store
from tests.support.films import ROOT, write_montgomery

HELD = {"LUNG_LIFELINE": "stdin"}
# A job that prints when it gets SIGTERM; `answer` is its handler of the signal.
JOB = """
import signal, sys, time
from jobs.runtime import lifeline
lifeline.SILENCE_SECONDS, lifeline.GRACE_SECONDS = 1.0, 0.5
def stop(*_):
    print("stopping", flush=True)
    sys.exit(75)
signal.signal(signal.SIGTERM, {answer})
lifeline.hold()
print("ready", flush=True)
time.sleep({seconds})
"""
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start() -> Iterator[Start]:
    started = []

    def run(
        answer: str = "stop", seconds: float = 30, environment: Mapping[str, str] = HELD
    ) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", JOB.format(answer=answer, seconds=seconds)],
            cwd=ROOT,
            env=os.environ | environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdout and process.stdout.readline() == "ready\n"
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()


def test_a_job_whose_input_ends_gets_sigterm_and_logs_why(start: Start) -> None:
    process = start()
    output, errors = process.communicate(timeout=20)
    assert (process.returncode, output) == (75, "stopping\n")
    assert "the task that started this job is gone" in errors


def test_a_job_that_ignores_sigterm_is_ended_after_a_grace(start: Start) -> None:
    process = start("signal.SIG_IGN")
    assert process.communicate(timeout=20)[0] == ""
    assert process.returncode == 75


def test_a_job_runs_while_its_task_writes_and_ends_in_silence(start: Start) -> None:
    process = start()
    assert process.stdin
    for _ in range(6):
        time.sleep(0.4)
        assert process.poll() is None
        process.stdin.write("\n")
        process.stdin.flush()
    assert process.wait(20) == 75
    assert process.stderr and "silent for 1 s" in process.stderr.read()


@pytest.mark.parametrize("environment", [{}, {"LUNG_LIFELINE": ""}])
def test_a_job_started_by_hand_ignores_its_input(
    start: Start, environment: Mapping[str, str]
) -> None:
    process = start(seconds=2, environment=environment)
    process.communicate(timeout=20)
    assert process.returncode == 0


@pytest.fixture
def training(store: Store, out: str, tmp_path: Path) -> TrainConfig:
    write_montgomery(tmp_path, 24)
    raw = download.run(DownloadConfig(source=tmp_path.as_uri(), out=out), store)
    processed = preprocess.run(PreprocessConfig(raw=raw.uri, out=out, size=32), store)
    small: dict[str, Any] = {"batch_size": 8, "network": "small"}
    return TrainConfig(processed=processed.uri, out=out, epochs=500, precision="float32", **small)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_a_training_whose_task_is_gone_saves_its_state_exits_with_75_and_resumes(
    training: TrainConfig, store: Store, s3: dict[str, str], processes: int
) -> None:
    command = [*training.arguments(), "--processes", str(processes)]

    def run(line: str) -> tuple[int, str]:
        """Start it, end its input once it has logged `line`; (its exit code, its log)."""
        process = subprocess.Popen(
            [sys.executable, "-m", "jobs", "train", *command],
            cwd=ROOT,
            env=os.environ | s3 | HELD,
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stderr
        log = ""
        while line not in log:
            text = process.stderr.readline()
            assert text, log
            log += text
        errors = process.communicate(timeout=30)[1]
        return process.returncode, log + errors

    code, log = run("epoch 2")
    assert code == 75, log
    code, log = run("resuming from")
    assert code == 75, log
