"""MODEL of `make predict`: which model masks a folder of films, and what the log says of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from jobs.errors import BadDataError, ConfigError, JobError, NotFoundError
from jobs.models import package
from jobs.models.chosen_model import OWN_S3, check_model, choose_model
from jobs.models.last_run import LAST_RUN, Run, last_of_people, read_last_run, write_last_run
from jobs.settings.config import TrainConfig
from jobs.storage.s3 import Store
from jobs.storage.work_folder import WorkFolder
from tests.support.starters import VERSION, write_starter

WEIGHTS = b"weights"


@pytest.fixture(autouse=True)
def starter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = write_starter(tmp_path / "starter", WEIGHTS)
    monkeypatch.setattr("jobs.models.package.STARTER", folder)
    return folder


@pytest.fixture
def embedded(store: Store, monkeypatch: pytest.MonkeyPatch) -> Store:
    """The server of this machine's runs, without AWS variables that name another one."""
    for name in OWN_S3:
        monkeypatch.delenv(name, raising=False)
    return store


def train(store: Store, out: str, run_id: str, *sources: str) -> Run:
    """A run whose model was trained on films of these sources."""
    config = TrainConfig(processed=f"{out}/manifest.json", out=out)
    folder = WorkFolder(
        store, config, job="train", folder="trained", recipe="test", extra={"run": run_id}
    )
    model_json = json.dumps({"data": {"train_sources": sources}}).encode()
    folder.add_file("model.json", model_json)
    manifest = folder.finish(counts={}, headline={})
    return Run(run_id=run_id, trained=manifest.uri)


def note(folder: Path, store: Store, run: Run) -> None:
    write_last_run(folder, store, read_last_run(folder), run)


def test_where_nothing_ran_the_starter_masks(
    embedded: Store, out: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        uri = choose_model(embedded, out, "", None)
    assert uri == f"{out}/models/starter/{VERSION}"
    assert embedded.read(f"{uri}/model.safetensors") == WEIGHTS
    assert embedded.read_json(f"{uri}/model.json")["version"] == VERSION
    assert f"the starter that comes with the project, {VERSION}, as nothing" in caplog.text


def test_the_last_model_of_people_is_the_default_whatever_ran_after_it(
    embedded: Store, out: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first, people, phantoms = (
        train(embedded, out, name, *sources)
        for name, sources in (
            ("first", ["custom"]),
            ("people", ["custom", "phantoms"]),
            ("phantoms", ["phantoms"]),
        )
    )
    for run in (first, people, phantoms):
        note(tmp_path, embedded, run)
    last = read_last_run(tmp_path)
    with caplog.at_level("INFO"):
        assert choose_model(embedded, out, "", last) == people["trained"]
        assert choose_model(embedded, out, "last", last) == phantoms["trained"]
    assert "model: of the run people, the last one on films of people" in caplog.messages
    assert "model: of the last run, phantoms, as --model asks" in caplog.messages


def test_where_all_runs_were_of_phantoms_the_starter_masks(
    embedded: Store, out: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    note(tmp_path, embedded, train(embedded, out, "phantoms", "phantoms"))
    with caplog.at_level("INFO"):
        uri = choose_model(embedded, out, "", read_last_run(tmp_path))
    assert uri == f"{out}/models/starter/{VERSION}"
    assert "no model of this machine was trained on films of people" in caplog.text


def test_without_a_starter_the_last_model_masks_though_it_saw_phantoms_alone(
    embedded: Store,
    out: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("jobs.models.package.STARTER", tmp_path / "none")
    run = train(embedded, out, "phantoms", "phantoms")
    note(tmp_path, embedded, run)
    assert choose_model(embedded, out, "", read_last_run(tmp_path)) == run["trained"]
    assert "of the last run, phantoms, which saw phantoms alone, as there is no st" in caplog.text


@pytest.mark.parametrize("sources", [["custom"], ["phantoms"]])
def test_of_a_file_of_an_earlier_version_the_model_tells_what_it_was_trained_on(
    embedded: Store, out: str, tmp_path: Path, sources: list[str]
) -> None:
    run = train(embedded, out, "old", *sources)
    (tmp_path / LAST_RUN).write_text(json.dumps(run))
    last = read_last_run(tmp_path)
    assert last is not None
    expected = run if sources == ["custom"] else None
    assert last_of_people(embedded, last) == expected
    note(tmp_path, embedded, train(embedded, out, "new", "phantoms"))
    renewed = read_last_run(tmp_path)
    assert renewed is not None and renewed["run_id"] == "new"
    assert renewed["people"] == expected


def test_an_old_file_whose_run_was_deleted_is_one_without_a_run_of_people(
    embedded: Store, out: str, tmp_path: Path
) -> None:
    gone = {"run_id": "old", "trained": f"{out}/trained/gone/manifest.json"}
    (tmp_path / LAST_RUN).write_text(json.dumps(gone))
    note(tmp_path, embedded, train(embedded, out, "new", "phantoms"))
    renewed = read_last_run(tmp_path)
    assert renewed is not None and renewed["people"] is None


def test_a_folder_of_a_package_is_put_into_the_server_anew_each_time(
    embedded: Store, out: str, tmp_path: Path
) -> None:
    folder = write_starter(tmp_path / "mine", b"others")
    uri = choose_model(embedded, out, str(folder), None)
    assert uri == f"{out}/models/given/{VERSION}"
    assert embedded.read(f"{uri}/model.safetensors") == b"others"
    write_starter(folder, b"trained again")
    assert choose_model(embedded, out, str(folder), None) == uri
    assert embedded.read(f"{uri}/model.safetensors") == b"trained again"


def test_a_uri_is_of_the_embedded_server_unless_a_variable_names_another_one(
    embedded: Store,
    out: str,
    s3: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    uri = f"{out}/models/lung-unet/v1"
    with caplog.at_level("INFO"):
        assert choose_model(embedded, out, uri, None) == uri
    assert f"model: {uri} in the embedded S3, as none of AWS_ENDPOINT_URL" in caplog.text
    # The session's server stands in for a hospital's too.
    for name, value in s3.items():
        monkeypatch.setenv(name, value)
    theirs = f"s3://lung/hospital-{out.rpartition('/')[2]}/models/lung-unet/v1"
    about: Any = json.loads(publish_starter(embedded, theirs))
    with caplog.at_level("INFO"):
        chosen = choose_model(embedded, out, theirs, None)
    assert chosen == f"{out}/models/given/v1"
    assert embedded.read(f"{chosen}/model.safetensors") == WEIGHTS
    assert embedded.read_json(f"{chosen}/model.json") == about
    assert f"model: {theirs} in the S3 of AWS_ENDPOINT_URL and AWS_ACCESS_KEY_ID" in caplog.text
    with pytest.raises(NotFoundError, match="/models/lung-unet/v2"):
        choose_model(embedded, out, theirs.replace("/v1", "/v2"), None)


def publish_starter(store: Store, uri: str) -> bytes:
    """Put the stand-in's package below the URI; the content of its model.json."""
    about = (package.STARTER / "model.json").read_bytes()
    store.write(f"{uri}/model.safetensors", WEIGHTS)
    store.write(f"{uri}/model.json", about)
    return about


def error_of(name: str, folder: Path) -> JobError:
    with pytest.raises(JobError) as caught:
        check_model(name, folder, None)
    return caught.value


def test_what_cannot_be_is_refused_before_a_server_is_started(tmp_path: Path) -> None:
    for uri in ("s3://lung/models/v1", "s3://lung", "s3://lung/runs/a/b"):
        error = error_of(uri, tmp_path)
        assert isinstance(error, ConfigError)
        assert str(error).startswith(f"--model '{uri}' has the wrong form, give: s3://BUCKET/")
    last = error_of("last", tmp_path)
    assert isinstance(last, NotFoundError)
    assert f"there is no {tmp_path / LAST_RUN}" in str(last)
    check_model("", tmp_path, None)
    check_model("starter", tmp_path, None)


def test_a_folder_without_a_package_and_an_edited_one_are_one_clear_error(
    embedded: Store, out: str, tmp_path: Path
) -> None:
    with pytest.raises(NotFoundError, match="there is no model package in"):
        choose_model(embedded, out, str(tmp_path), None)
    folder = write_starter(tmp_path / "cut", b"weights")
    (folder / "model.safetensors").write_bytes(b"weight")
    with pytest.raises(BadDataError, match="sha256"):
        choose_model(embedded, out, str(folder), None)
    about = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps(about | {"version": "../x"}))
    with pytest.raises(BadDataError, match="version"):
        choose_model(embedded, out, str(folder), None)
