"""A training of two processes that is stopped or killed resumes and ends as an unbroken one."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from jobs import download, preprocess
from jobs.segmentation import checkpoint
from jobs.settings.config import DownloadConfig, PreprocessConfig, TrainConfig
from jobs.storage.manifest import Manifest
from jobs.storage.s3 import Store
from tests.support.films import ROOT, run_job, write_montgomery

pytestmark = pytest.mark.slow

SECONDS = 60
OUT = "s3://lung/resume"
EPOCHS = 8
LAUNCHER = None


@pytest.fixture(scope="module")
def processed(s3: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    films = tmp_path_factory.mktemp("films")
    write_montgomery(films, 40)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in s3.items():
            patch.setenv(name, value)
        store = Store()
        raw = download.run(DownloadConfig(source=films.as_uri(), out=OUT), store)
        return preprocess.run(PreprocessConfig(raw=raw.uri, out=OUT, size=32), store)


def settings(processed: Manifest, run_id: str) -> TrainConfig:
    return TrainConfig(
        processed=processed.uri,
        out=OUT,
        run_id=run_id,
        force=True,
        epochs=EPOCHS,
        batch_size=4,
        network="small",
        precision="float32",
        processes=2,
    )


@pytest.fixture(scope="module")
def unbroken(processed: Manifest, s3: dict[str, str]) -> str:
    """The content hash of a training that is not stopped."""
    arguments = settings(processed, "unbroken").arguments()
    return str(run_job("train", *arguments, environment=s3)["content_hash"])


@pytest.fixture
def training(
    processed: Manifest, s3: dict[str, str]
) -> Iterator[tuple[TrainConfig, subprocess.Popen[bytes]]]:
    config = settings(processed, f"stopped-{uuid.uuid4().hex}")
    process = subprocess.Popen(
        [sys.executable, "-m", "jobs", "train", *config.arguments()],
        cwd=ROOT,
        env=os.environ | s3,
        stderr=subprocess.PIPE,
    )
    yield config, process
    process.kill()
    process.wait()


@pytest.mark.parametrize(
    ("victim", "number", "code"),
    [
        (LAUNCHER, signal.SIGTERM, 75),
        (LAUNCHER, signal.SIGKILL, -signal.SIGKILL),
        (0, signal.SIGTERM, 75),
        (0, signal.SIGKILL, 128 + signal.SIGKILL),
        (1, signal.SIGTERM, 75),
        (1, signal.SIGKILL, 128 + signal.SIGKILL),
    ],
)
def test_a_stopped_training_ends_with_the_code_and_resumes_to_the_unbroken_one(
    training: tuple[TrainConfig, subprocess.Popen[bytes]],
    unbroken: str,
    store: Store,
    s3: dict[str, str],
    victim: int | None,
    number: signal.Signals,
    code: int,
) -> None:
    config, process = training
    last = wait_for_a_checkpoint(store, config, process)
    target = process.pid if victim is LAUNCHER else rank_of(process.pid, victim)
    os.kill(target, number)
    _, messages = process.communicate(timeout=SECONDS)
    assert process.returncode == code, messages.decode()
    saved = checkpoint.from_bytes(store.read(last))
    assert len(saved["history"]) < EPOCHS, "the training had ended before it was stopped"
    result = run_job("train", *config.arguments(), environment=s3)
    assert not result["reused"]
    assert result["content_hash"] == unbroken


def wait_for_a_checkpoint(
    store: Store, config: TrainConfig, process: subprocess.Popen[bytes]
) -> str:
    """The URI of last.pt, once the first epoch has written it."""
    limit = time.monotonic() + SECONDS
    location = f"{OUT}/runs/{config.run_id}/train.json"
    while True:
        assert process.poll() is None and time.monotonic() < limit, "no epoch ended"
        if store.exists(location):
            last = f"{store.read_json(location)['trained']}/last.pt"
            if store.exists(last):
                return last
        time.sleep(0.01)


def rank_of(launcher: int, rank: int) -> int:
    ranks = {
        int(child.environ()["RANK"]): child.pid
        for child in psutil.Process(launcher).children(recursive=True)
        if "RANK" in child.environ()
    }
    return ranks[rank]


STOPS_ITSELF = """
import os, signal, sys, time
from jobs.segmentation.trainer import Trainer
take_step = Trainer.take_step
def stop(self, epoch, step, *arguments):
    row = take_step(self, epoch, step, *arguments)
    if (epoch, step) == (1, 2):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)
    return row
Trainer.take_step = stop
from jobs.cli import main
sys.exit(main(sys.argv[1:]))
"""


def test_a_stop_in_mid_epoch_saves_the_steps_and_removes_the_films_from_the_disk(
    processed: Manifest, store: Store, s3: dict[str, str], tmp_path: Path
) -> None:
    config = dataclasses.replace(settings(processed, "midst"), processes=1)
    process = subprocess.run(
        [sys.executable, "-c", STOPS_ITSELF, "train", *config.arguments()],
        cwd=ROOT,
        env=os.environ | s3 | {"TMPDIR": str(tmp_path)},
        timeout=SECONDS,
    )
    assert process.returncode == 75
    folder = store.read_json(f"{OUT}/runs/midst/train.json")["trained"]
    saved = checkpoint.from_bytes(store.read(f"{folder}/last.pt"))
    assert not saved["history"] and len(saved["steps"]) == 2
    assert not list(tmp_path.glob("train-*"))
