"""train: histories, checkpoints, model.json, and a training that is stopped or has a rival."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch

from jobs import download, errors, preprocess, train
from jobs.models import training
from jobs.models.epoch_writer import EpochWriter
from jobs.segmentation import checkpoint
from jobs.segmentation.fit_config import NETWORKS
from jobs.settings.config import DownloadConfig, PreprocessConfig, TrainConfig
from jobs.storage.manifest import Manifest
from jobs.storage.s3 import Store
from tests.support.films import ROOT, draw_pair, png, run_job, write_montgomery

pytestmark = pytest.mark.slow

SMALL = {"epochs": 2, "batch_size": 8, "network": "small", "precision": "float32"}


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("films")
    write_montgomery(folder, 24)
    return folder


@pytest.fixture
def processed(store: Store, out: str, films: Path) -> Manifest:
    raw = download.run(DownloadConfig(source=films.as_uri(), out=out), store)
    return preprocess.run(PreprocessConfig(raw=raw.uri, out=out, size=32), store)


@pytest.fixture
def two_sources(store: Store, out: str, films: Path, tmp_path: Path) -> Manifest:
    """Films of another source beside the first."""
    write_montgomery(tmp_path, 24, stem="CHNCXR", seed=1000)
    source = f"{films.as_uri()}+{tmp_path.as_uri()}"
    raw = download.run(DownloadConfig(source=source, out=out), store)
    return preprocess.run(PreprocessConfig(raw=raw.uri, out=out, size=32), store)


def config(processed: Manifest, out: str, **changes: Any) -> TrainConfig:
    return TrainConfig(**{"processed": processed.uri, "out": out, **SMALL, **changes})


def history(store: Store, trained: Manifest) -> list[dict[str, float]]:
    rows: list[dict[str, float]] = json.loads(trained.read_file(store, "history.json"))["epochs"]
    return rows


def test_the_history_is_written_in_three_forms_that_agree(
    store: Store, out: str, processed: Manifest
) -> None:
    trained = train.run(config(processed, out), store)
    rows = history(store, trained)
    assert [row["epoch"] for row in rows] == [1, 2]
    assert all(
        {"train_loss", "val_loss", "val_dice", "learning_rate", "seconds"} <= row.keys()
        for row in rows
    )
    table = list(csv.DictReader(io.StringIO(trained.read_file(store, "history.csv").decode())))
    assert [float(row["val_dice"]) for row in table] == [row["val_dice"] for row in rows]
    assert trained.read_file(store, "curves.png").startswith(b"\x89PNG")
    assert trained.headline["val_dice"] == pytest.approx(rows[-1]["val_dice"], abs=1e-6)


def test_the_result_has_the_last_rows_figures_and_the_histories_uris(
    store: Store, out: str, processed: Manifest
) -> None:
    trained = train.run(config(processed, out), store)
    result, last = trained.result(1.0), history(store, trained)[-1]
    for name in ("train_loss", "val_loss", "val_dice", "learning_rate"):
        assert result["headline"][name] == pytest.approx(last[name], abs=1e-6)
    assert result["headline"]["epoch_seconds"] == pytest.approx(last["seconds"], abs=0.01)
    for name in ("history.json", "history.csv", "curves.svg", "curves.png", "model.safetensors"):
        assert store.exists(result["files"][name])
    assert json.loads(store.read(result["files"]["history.json"]))["epochs"][-1] == last


def test_a_run_names_the_folder_of_its_training_before_it_trains_and_where_it_is_reused(
    store: Store, out: str, processed: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*arguments: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(training.Trainer, "epochs", stop)
        train.run(config(processed, out, run_id="first"), store)
    first = store.read_json(f"{out}/runs/first/train.json")
    trained = train.run(config(processed, out, run_id="first"), store)
    again = train.run(config(processed, out, run_id="second"), store)
    assert again.reused
    assert first == {"trained": trained.root, "epochs": 2}
    assert store.read_json(f"{out}/runs/second/train.json") == first


def test_the_curves_are_written_after_every_epoch(
    store: Store, out: str, processed: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    points: list[int] = []
    write = EpochWriter._write_files

    def count_points(self: Any, result: Any) -> None:
        write(self, result)
        root = ElementTree.fromstring(store.read(self._folder.uri_of("curves.svg")))
        line = root.find(".//{*}polyline[@class='train']")
        assert line is not None
        points.append(len(line.attrib["points"].split()))

    monkeypatch.setattr(EpochWriter, "_write_files", count_points)
    train.run(config(processed, out), store)
    assert points == [1, 2]


def test_the_all_lung_loss_stands_beside_the_losses(
    store: Store, out: str, processed: Manifest
) -> None:
    (row, _) = history(store, train.run(config(processed, out), store))
    fraction = row["lung_fraction"]
    assert 0.1 < fraction < 0.4
    assert row["all_lung_loss"] == pytest.approx(1 - 2 * fraction / (1 + fraction))


def test_model_json_describes_the_network_and_its_films(
    store: Store, out: str, processed: Manifest
) -> None:
    trained = train.run(config(processed, out), store)
    model_json = json.loads(trained.read_file(store, "model.json"))
    recipe = model_json["recipe"]
    assert model_json["architecture"] == {"in_channels": 1, "num_classes": 1} | NETWORKS["small"]
    assert recipe["spatial_size"] == 32
    assert (recipe["fit"], recipe["crop_borders"]) == ("stretch", False)
    assert model_json["data"]["train_films"] == processed.counts["train"]
    assert model_json["data"]["by_source"] == processed.details["by_source"]


def test_model_json_holds_the_placing_of_its_films(
    store: Store, out: str, processed: Manifest
) -> None:
    raw = processed.inputs["raw"]["uri"]
    placing: dict[str, Any] = {"fit": "letterbox", "crop_borders": True}
    placed = preprocess.run(PreprocessConfig(raw=raw, out=out, size=32, **placing), store)
    trained = train.run(config(placed, out, epochs=1), store)
    recipe = json.loads(trained.read_file(store, "model.json"))["recipe"]
    assert placing.items() <= recipe.items()


def test_checkpoints_load_without_running_code(store: Store, out: str, processed: Manifest) -> None:
    trained = train.run(config(processed, out), store)
    for name in ("last.pt", "best.pt"):
        assert "model" in checkpoint.from_bytes(store.read(trained.uri_of(name)))


def test_another_seed_is_another_model_and_the_same_seed_the_same(
    store: Store, out: str, processed: Manifest
) -> None:
    one = train.run(config(processed, out), store)
    again = train.run(config(processed, out, force=True, run_id="again"), store)
    other = train.run(config(processed, out, seed=1), store)
    assert one.content_hash == again.content_hash != other.content_hash
    assert one.uri != again.uri


@pytest.mark.slow
def test_two_processes_have_the_history_of_one(
    store: Store, s3: dict[str, str], out: str, processed: Manifest
) -> None:
    one = history(store, train.run(config(processed, out), store))
    both = config(processed, out, processes=2, force=True, run_id="two")
    result = run_job("train", *both.arguments(), environment=s3)
    two = json.loads(store.read(result["manifest"].replace("manifest.json", "history.json")))
    for alone, together in zip(one, two["epochs"], strict=True):
        for name in ("train_loss", "val_loss", "val_dice"):
            assert together[name] == pytest.approx(alone[name], abs=1e-5), name


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_run_that_was_stopped_ends_as_an_unbroken_one(
    store: Store, s3: dict[str, str], out: str, processed: Manifest, number: signal.Signals
) -> None:
    # Also in a new process: the rounding of sums may depend on a process's threads.
    unbroken = run_job("train", *config(processed, out, epochs=6).arguments(), environment=s3)
    settings = config(processed, out, epochs=6, force=True, run_id="killed")
    command = [sys.executable, "-m", "jobs", "train", *settings.arguments()]
    first = subprocess.Popen(command, cwd=ROOT, env=os.environ | s3, stderr=subprocess.PIPE)
    folder = f"{out}/trained/"
    limit = time.monotonic() + 60
    while not any(
        item.uri.endswith("last.pt") and not unbroken["manifest"].startswith(item.uri[:-7])
        for item in store.list_objects(folder)
    ):
        assert time.monotonic() < limit, "no epoch ended in a minute"
        time.sleep(0.01)
    first.send_signal(number)
    _, messages = first.communicate(timeout=20)
    assert first.returncode == (75 if number == signal.SIGTERM else -9), messages.decode()
    result = run_job("train", *settings.arguments(), environment=s3)
    assert not result["reused"]
    assert result["content_hash"] == unbroken["content_hash"]


def test_a_second_writer_of_the_same_model_is_refused(
    store: Store, out: str, processed: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = EpochWriter._write_files

    def other_writes_first(self: Any, result: Any) -> None:
        if result.history[-1]["epoch"] == 2:
            store.write(self._folder.uri_of("last.pt"), b"theirs")
        write(self, result)

    monkeypatch.setattr(EpochWriter, "_write_files", other_writes_first)
    with pytest.raises(errors.ConflictError) as caught:
        train.run(config(processed, out), store)
    assert caught.value.exit_code == 75
    (best,) = [item.uri for item in store.list_objects(out) if item.uri.endswith("/best.pt")]
    assert checkpoint.from_bytes(store.read(best))["epoch"] == 1, "the refused writer wrote best.pt"


def test_the_best_model_is_that_of_last_pt(
    store: Store, out: str, processed: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a try that was killed between its two puts, or after a rival's late put."""
    finish = EpochWriter.finish
    stale = checkpoint.to_bytes({"model": {}, "config": {}, "epoch": 1})

    def put_a_stale_one(self: Any) -> Any:
        store.write(self._folder.uri_of("best.pt"), stale)
        return finish(self)

    monkeypatch.setattr(EpochWriter, "finish", put_a_stale_one)
    trained = train.run(config(processed, out), store)
    best = checkpoint.from_bytes(store.read(trained.uri_of("best.pt")))
    assert best["epoch"] == trained.headline["best_epoch"]
    weights = checkpoint.from_safetensors(trained.read_file(store, "model.safetensors"))
    assert all(torch.equal(best["model"][name], weights[name]) for name in weights)


def test_a_put_that_is_sent_again_because_its_answer_was_lost_is_not_refused(
    store: Store, out: str, processed: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Store.write
    lost: list[str] = []

    def lose_one_answer(self: Store, uri: str, data: bytes, **options: Any) -> str:
        etag = write(self, uri, data, **options)
        if uri.endswith("/last.pt") and not lost:
            lost.append(uri)
            # As botocore does.
            return write(self, uri, data, **options)
        return etag

    monkeypatch.setattr(Store, "write", lose_one_answer)
    trained = train.run(config(processed, out), store)
    assert lost
    assert trained.counts["epochs"] == config(processed, out).epochs


def test_only_the_named_sources_are_trained_on(
    store: Store, out: str, two_sources: Manifest
) -> None:
    trained = train.run(config(two_sources, out, train_sources="shenzhen"), store)
    data = json.loads(trained.read_file(store, "model.json"))["data"]
    by_source = two_sources.details["by_source"]
    assert data["train_sources"] == ["shenzhen"]
    assert data["train_films"] == by_source["shenzhen"]["train"] < two_sources.counts["train"]
    assert data["val_films"] == by_source["shenzhen"]["val"]
    everything = train.run(config(two_sources, out, train_sources="shenzhen,montgomery"), store)
    assert everything.uri != trained.uri
    data = json.loads(everything.read_file(store, "model.json"))["data"]
    assert data["train_sources"] == ["montgomery", "shenzhen"]
    assert data["train_films"] == two_sources.counts["train"]


def test_a_source_without_films_is_refused_and_the_sources_with_films_are_named(
    store: Store, out: str, two_sources: Manifest
) -> None:
    with pytest.raises(errors.ConfigError, match="of phantoms, give some of montgomery, shenzhen"):
        train.run(config(two_sources, out, train_sources="montgomery,phantoms"), store)


def test_an_epoch_trains_while_the_one_before_is_written(
    store: Store, out: str, processed: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, second_epoch = EpochWriter._write_files, threading.Event()

    def wait_for_the_next_epoch(self: Any, result: Any) -> None:
        if len(result.history) == 1:
            assert second_epoch.wait(30), "the second epoch waited for the first one's files"
        write(self, result)

    def note_second_epoch(self: Any, epoch: int, *arguments: Any) -> Any:
        if epoch == 2:
            second_epoch.set()
        return take_step(self, epoch, *arguments)

    take_step = training.Trainer.take_step
    monkeypatch.setattr(EpochWriter, "_write_files", wait_for_the_next_epoch)
    monkeypatch.setattr(training.Trainer, "take_step", note_second_epoch)
    trained = train.run(config(processed, out), store)
    assert len(history(store, trained)) == 2


def test_three_films_one_a_split_are_trained_on_by_two_processes(
    store: Store, out: str, tmp_path: Path
) -> None:
    for number in (1, 3, 7):
        film, left, right = draw_pair(number)
        for folder, pixels in (("images", film), ("masks", left | right)):
            (tmp_path / folder).mkdir(exist_ok=True)
            (tmp_path / folder / f"case{number:03d}.png").write_bytes(png(pixels))
    raw = download.run(DownloadConfig(source=tmp_path.as_uri(), out=out), store)
    processed = preprocess.run(PreprocessConfig(raw=raw.uri, out=out, size=32), store)
    changes = {"epochs": 1, "batch_size": 1, "learning_rate": 1.0, "processes": 2}
    trained = train.run(config(processed, out, **changes), store)
    assert len(history(store, trained)) == 1


def test_a_damaged_checkpoint_is_refused_and_not_overwritten(
    store: Store, out: str, processed: Manifest
) -> None:
    trained = train.run(config(processed, out), store)
    store.write(trained.uri_of("last.pt"), b"half")
    store.delete([trained.uri])
    with pytest.raises(errors.BadDataError, match="--force"):
        train.run(config(processed, out), store)
