"""A training of several processes: what its ranks are started with, and how it ends with them."""

from __future__ import annotations

import dataclasses
import os
import signal
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from jobs import errors
from jobs.models import training
from jobs.settings.config import TrainConfig
from jobs.storage.s3 import Store

CONFIG = TrainConfig(out="s3://lung/out", processed="s3://lung/manifest.json", processes=2)


def launch_ranks(
    monkeypatch: pytest.MonkeyPatch, store: Store, cache: Path, code: int
) -> list[str]:
    """Launch the ranks of CONFIG, which end with `code`; their command."""
    commands: list[list[str]] = []

    def launch(command: list[str], processes: int, environment: dict[str, str]) -> int:
        assert processes == CONFIG.processes
        assert environment == {**store.environment(), training.CACHE: str(cache)}
        commands.append(command)
        return code

    monkeypatch.setattr(training, "launch", launch)
    training._launch_ranks(store, CONFIG, cache)
    return commands[0]


def test_each_rank_runs_the_same_job_and_finds_the_films(
    monkeypatch: pytest.MonkeyPatch, store: Store, tmp_path: Path
) -> None:
    command = launch_ranks(monkeypatch, store, tmp_path, 0)
    assert command == [sys.executable, "-m", "jobs", "train", *CONFIG.arguments()]
    assert training.CACHE not in os.environ


@pytest.mark.parametrize(("processes", "expected"), [(0, 3), (2, 2)])
def test_by_default_there_are_as_many_ranks_as_gpus_and_the_fingerprint_is_the_same(
    processes: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    launched: list[TrainConfig] = []
    monkeypatch.setattr(training, "default_processes", lambda batch_size: 3)
    monkeypatch.setattr(training, "_fill_cache", lambda *arguments: None)
    monkeypatch.setattr(training, "_launch_ranks", lambda store, config, _: launched.append(config))
    monkeypatch.setattr(training, "read_manifest", lambda *arguments: "trained")
    config = dataclasses.replace(CONFIG, processes=processes)
    folder: Any = SimpleNamespace(store=None, uri="s3://lung/trained")
    processed: Any = None
    training.fit(folder, config, processed)
    assert launched == [dataclasses.replace(config, processes=expected)]
    assert launched[0].identity() == config.identity()


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (1, errors.JobError),
        (2, errors.ConfigError),
        (65, errors.BadDataError),
        (75, errors.InterruptedJobError),
        (3, errors.ProcessError),
        (128 + signal.SIGKILL, errors.ProcessError),
    ],
)
def test_the_job_ends_with_the_code_of_the_launch(
    monkeypatch: pytest.MonkeyPatch,
    store: Store,
    tmp_path: Path,
    code: int,
    kind: type[errors.JobError],
) -> None:
    with pytest.raises(errors.JobError, match=f"ended with {code}: its own message") as caught:
        launch_ranks(monkeypatch, store, tmp_path, code)
    assert type(caught.value) is kind
    assert caught.value.exit_code == code
