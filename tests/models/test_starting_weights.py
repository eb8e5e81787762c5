"""A training from the weights of another model: which they are, and that it begins with them."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from jobs import download, preprocess, train
from jobs.errors import BadDataError, ConfigError, JobError, NotFoundError
from jobs.films.known_looks import looks_text
from jobs.segmentation import checkpoint
from jobs.segmentation.trainer import Trainer
from jobs.settings.config import (
    EPOCHS,
    FINE_TUNING_EPOCHS,
    FINE_TUNING_RATE,
    LEARNING_RATE,
    DownloadConfig,
    PreprocessConfig,
    TrainConfig,
)
from jobs.storage.manifest import Manifest
from jobs.storage.s3 import Store
from tests.models.test_resumed_training import STOPS_ITSELF
from tests.support.films import ROOT, write_montgomery
from tests.support.fits import SMALL, TRAIN, VAL

pytestmark = pytest.mark.slow

OUT = "s3://lung/start"
MODELS = f"{OUT}/models/lung-unet"
URI = f"{MODELS}/v1"
SECONDS = 60
LOOKS = looks_text([bytes(32)])


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


def config_of(processed: Manifest, **changes: Any) -> TrainConfig:
    settings = {"epochs": 2, "batch_size": 4, "network": "small", "precision": "float32"}
    return TrainConfig(
        processed=processed.uri, out=OUT, run_id="start", **{**settings, "processes": 1, **changes}
    )


@pytest.fixture(scope="module")
def package(processed: Manifest, s3: dict[str, str], tmp_path_factory: Any) -> Path:
    """A folder with the package of a trained model, which is in S3 too, as the champion."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in s3.items():
            patch.setenv(name, value)
        store = Store()
        trained = train.run(config_of(processed, seed=7), store)
        weights = trained.read_file(store, "model.safetensors")
        model_json = trained.read_json(store, "model.json")
        sha256 = next(item.sha256 for item in trained.files if item.key == "model.safetensors")
        model_json |= {"version": "v1", "weights": {"sha256": sha256}}
        model_json["data"]["looks"] = LOOKS
        folder: Path = tmp_path_factory.mktemp("package")
        (folder / "model.safetensors").write_bytes(weights)
        (folder / "model.json").write_text(json.dumps(model_json))
        store.write(f"{URI}/model.safetensors", weights)
        store.write_json(f"{URI}/model.json", model_json)
        store.write_json(f"{MODELS}/champion.json", {"version": "v1"})
    return folder


def first_validation(
    monkeypatch: pytest.MonkeyPatch, config: TrainConfig, store: Store
) -> tuple[Manifest, dict[str, torch.Tensor]]:
    """(the trained manifest, the weights with which its first step began)."""
    begun: list[dict[str, torch.Tensor]] = []
    train_epoch = Trainer.train_epoch

    def recorded(self: Trainer, epoch: int, on_step: Any) -> None:
        if epoch == 1:
            begun.append({name: value.clone() for name, value in self.model.state_dict().items()})
        train_epoch(self, epoch, on_step)

    monkeypatch.setattr(Trainer, "train_epoch", recorded)
    return train.run(config, store), begun[0]


def test_it_begins_with_the_weights_and_its_folder_and_model_json_are_of_them(
    processed: Manifest, package: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(processed, init_from=str(package))
    trained, begun = first_validation(monkeypatch, config, store)
    expected = safetensors.torch.load_file(package / "model.safetensors")
    assert begun.keys() == expected.keys()
    assert all(torch.equal(begun[name], expected[name]) for name in expected)
    from_random = train.run(config_of(processed), store)
    assert trained.uri != from_random.uri
    model_json = trained.read_json(store, "model.json")
    sha256 = json.loads((package / "model.json").read_text())["weights"]["sha256"]
    assert model_json["training"]["init_from"] == {"version": "v1", "sha256": sha256}
    assert model_json["data"]["looks"] == LOOKS
    assert "looks" not in from_random.read_json(store, "model.json")["data"]
    assert "init_from" not in from_random.read_json(store, "model.json")["training"]
    assert str(package) not in json.dumps(model_json)


@pytest.mark.parametrize("name", ["champion", URI])
def test_the_same_weights_by_another_name_are_the_same_training(
    name: str, processed: Manifest, package: Path, store: Store
) -> None:
    by_path = train.run(config_of(processed, init_from=str(package)), store)
    again = train.run(config_of(processed, init_from=name), store)
    assert again.uri == by_path.uri and again.reused


def test_ranks_are_started_from_the_version_and_not_from_whatever_is_champion_then(
    processed: Manifest, package: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    launched: list[TrainConfig] = []

    def launch(store: Store, config: TrainConfig, cache: Path) -> None:
        launched.append(config)
        raise ConfigError("launched")

    monkeypatch.setattr("jobs.models.training._launch_ranks", launch)
    config = config_of(processed, init_from="champion", processes=2, force=True)
    with pytest.raises(ConfigError, match="launched"):
        train.run(config, store)
    assert launched[0].init_from == URI


def test_a_stopped_fine_tuning_resumes_to_the_bits_of_an_unbroken_one(
    processed: Manifest, package: Path, store: Store, s3: dict[str, str]
) -> None:
    unbroken = train.run(config_of(processed, init_from=str(package)), store)
    config = dataclasses.replace(
        config_of(processed, init_from=str(package)), force=True, run_id="stopped"
    )
    command = [sys.executable, "-c", STOPS_ITSELF, "train", *config.arguments()]
    stopped = subprocess.run(
        command, cwd=ROOT, env=os.environ | s3, capture_output=True, timeout=SECONDS
    )
    assert stopped.returncode == 75, stopped.stderr.decode()
    resumed = train.run(config, store)
    assert not resumed.reused and resumed.uri != unbroken.uri
    assert resumed.content_hash == unbroken.content_hash


def test_weights_in_float16_begin_as_the_same_numbers_in_float32() -> None:
    plain = Trainer(SMALL, TRAIN, VAL)
    state = plain.model.state_dict()
    halves = {
        name: value.half() if value.is_floating_point() else value for name, value in state.items()
    }
    started = Trainer(
        dataclasses.replace(SMALL, seed=5), TRAIN, VAL, None, checkpoint.to_safetensors(halves)
    )
    for name, value in started.model.state_dict().items():
        assert value.dtype == state[name].dtype
        assert torch.equal(value, halves[name].to(value.dtype))


def test_from_other_weights_the_epochs_are_a_quarter_and_the_rate_is_lower(
    processed: Manifest,
) -> None:
    unset = {"epochs": 0, "learning_rate": 0.0}
    random, tuned = (config_of(processed, init_from=name, **unset) for name in ("", "starter"))
    assert (random.epochs, random.learning_rate) == (EPOCHS, LEARNING_RATE)
    assert (tuned.epochs, tuned.learning_rate) == (FINE_TUNING_EPOCHS, FINE_TUNING_RATE)
    assert 4 * tuned.epochs == random.epochs and tuned.learning_rate < random.learning_rate
    given = config_of(processed, init_from="starter", epochs=3, learning_rate=0.5)
    assert (given.epochs, given.learning_rate) == (3, 0.5)


def edited(package: Path, to: Path, edit: Callable[[dict[str, Any]], None]) -> Path:
    shutil.copytree(package, to)
    content = json.loads((package / "model.json").read_text())
    edit(content)
    (to / "model.json").write_text(json.dumps(content))
    return to


def test_another_architecture_is_refused_with_both_in_words(
    processed: Manifest, package: Path, store: Store
) -> None:
    # The smallest size that the larger network takes.
    config = config_of(processed, init_from=str(package), network="base", force=True)
    with pytest.raises(ConfigError) as caught:
        train.run(config, store)
    assert str(caught.value) == (
        f"--init-from {package} is a network of base_channels 16, depth 3, stem_stride 2, and "
        "--network base is one of base_channels 24, depth 4, stem_stride 2: give the --network "
        "that it was trained with"
    )


def test_what_is_not_there_or_damaged_is_one_clear_error(
    processed: Manifest, package: Path, store: Store, tmp_path: Path
) -> None:
    def error_of(package: str, **changes: Any) -> JobError:
        with pytest.raises(JobError) as caught:
            train.run(config_of(processed, init_from=package, **changes), store)
        return caught.value

    absent = error_of(str(tmp_path / "absent"))
    assert isinstance(absent, NotFoundError) and "model.json" in str(absent)
    other_name = error_of("champion", name="other")
    assert isinstance(other_name, NotFoundError)
    assert f"{OUT}/models/other/champion.json" in str(other_name)
    assert isinstance(error_of(f"{MODELS}/v2"), NotFoundError)
    wrong = edited(package, tmp_path / "wrong", lambda content: content.pop("recipe"))
    assert isinstance(error_of(str(wrong)), BadDataError)
    cut = tmp_path / "cut"
    shutil.copytree(package, cut)
    (cut / "model.safetensors").write_bytes((package / "model.safetensors").read_bytes()[:-1])
    damaged = error_of(str(cut))
    assert isinstance(damaged, BadDataError) and "sha256" in str(damaged)


@pytest.mark.parametrize(
    "name", ["last", "s3://lung/start/v1", "models/v1", "s3://lung//models/a/b"]
)
def test_a_name_of_another_form_is_refused_before_anything_is_read(
    name: str, processed: Manifest
) -> None:
    with pytest.raises(ConfigError, match="--init-from"):
        config_of(processed, init_from=name)
