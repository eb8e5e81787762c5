"""The whole chain on one machine, called as `python -m jobs run` calls it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from jobs.chain import INPUTS
from jobs.errors import BadDataError, ConfigError, NotFoundError
from jobs.films.network import load_package
from jobs.imaging import decode
from jobs.local import KEYS, predict_folder, run_chain, serve_s3
from tests.support.films import ROOT, draw_pair, png
from tests.support.starters import VERSION, real_weights, write_starter


@pytest.mark.parametrize("name", KEYS)
def test_one_of_the_two_keys_of_an_s3_server_is_not_enough(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for other in KEYS:
        monkeypatch.delenv(other, raising=False)
    monkeypatch.setenv(name, "given")
    with pytest.raises(ConfigError, match="LUNG_S3_ACCESS_KEY and LUNG_S3_SECRET_KEY: set both"):
        serve_s3(tmp_path, host="127.0.0.1", port=0, program=[])


def s3_variables() -> dict[str, str]:
    names = ("AWS_", "no_proxy", "NO_PROXY")
    return {name: value for name, value in os.environ.items() if name.startswith(names)}


@pytest.mark.parametrize("run_id", ["last_run.json", "Last_Run.json"])
def test_a_run_named_like_the_file_of_the_last_run_is_refused_before_its_first_job(
    tmp_path: Path, run_id: str
) -> None:
    with pytest.raises(ConfigError, match=f"^--run-id {run_id}: .*: give another name$"):
        run_chain({"run_id": run_id, "source": "synthetic://phantoms"}, folder=tmp_path)
    assert not list(tmp_path.iterdir())


def test_more_processes_than_gpus_are_refused_before_the_first_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    values = {"run_id": "r", "source": "synthetic://phantoms", "processes": 3}
    with pytest.raises(ConfigError, match=r"--processes 3 with 2 GPUs: give at most 2"):
        run_chain(values, folder=tmp_path)
    assert not list(tmp_path.iterdir())


def films_folder(folder: Path, name: str) -> Path:
    """A folder with one file."""
    (folder / "films").mkdir()
    (folder / "films" / name).write_bytes(png(draw_pair(1)[0]))
    return folder / "films"


@pytest.mark.parametrize(
    ("name", "met"), [("films.zip", "archives 1"), ("mask.png", "masks 1"), ("a.dcm", "DICOM")]
)
def test_a_folder_without_films_is_named_as_the_user_gave_it(
    tmp_path: Path, name: str, met: str
) -> None:
    films = films_folder(tmp_path, name)
    with pytest.raises(BadDataError, match=rf"^there are no films in {films} \(.*{met}"):
        predict_folder(films, folder=tmp_path, to=tmp_path / "out")


@pytest.mark.parametrize("to", ["notes", "notes/deeper", "x" * 300])
def test_a_folder_of_masks_that_cannot_be_made_is_told_before_the_work(
    tmp_path: Path, to: str
) -> None:
    films = films_folder(tmp_path, "a.png")
    (tmp_path / "notes").write_text("for Monday")
    with pytest.raises(ConfigError, match=f"^--to {tmp_path / to}: the folder cannot be made"):
        predict_folder(films, folder=tmp_path, to=tmp_path / to)


@pytest.mark.slow
def test_the_chain_and_its_ranks_use_the_embedded_s3_whatever_the_aws_variables_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_PROFILE", "hospital")
    before = s3_variables()
    values = {
        "run_id": "two-ranks",
        "source": "synthetic://phantoms?films=16&seed=0",
        "size": 32,
        "epochs": 1,
        "batch_size": 4,
        "network": "small",
        "processes": 2,
        "min_dice": 0.0,
        "starter": False,
    }
    assert run_chain(values, folder=tmp_path) == 0
    assert s3_variables() == before
    printed = capsys.readouterr().out
    assert [line.split()[0] for line in printed.splitlines() if line.startswith("  ")] == [*INPUTS]
    assert (tmp_path / "two-ranks" / "report.html").exists()
    assert (tmp_path / "two-ranks" / "look_alikes.csv").read_text().startswith("film,")
    chosen = chosen_films(tmp_path)
    for _ in range(2):
        assert predict_folder(chosen, folder=tmp_path, to=chosen / "out", model="last") == 0
        masks = sorted(path.name for path in (chosen / "out/masks").iterdir())
        assert masks == ["one.png", "two.png"]
    printed = capsys.readouterr().out
    assert "passed over: links that lead nowhere 1, text and metadata 1: " in printed
    table = (chosen / "out/skipped.csv").read_text()
    assert table == "name,reason\ngone.png,links that lead nowhere\nnotes.txt,text and metadata\n"


@pytest.mark.slow
def test_in_a_fresh_clone_films_are_masked_by_the_starter_with_nothing_run_before(
    tmp_path: Path,
) -> None:
    clone = tmp_path / "clone"
    ignored = shutil.ignore_patterns("__pycache__", "starter")
    shutil.copytree(ROOT / "jobs", clone / "jobs", ignore=ignored)
    starter = write_starter(clone / "jobs/starter", real_weights())
    chosen = chosen_films(tmp_path)
    command = [sys.executable, "-m", "jobs", "masks", "--films", str(chosen), "--to", "out"]
    environment = {name: value for name, value in os.environ.items() if "AWS" not in name}
    process = subprocess.run(
        command, cwd=clone, env=environment, capture_output=True, text=True, timeout=120
    )
    assert process.returncode == 0, process.stderr
    assert process.stdout.startswith("2 masks of 2 films")
    reason = f"the starter that comes with the project, {VERSION}, as nothing was trained here yet"
    assert reason in process.stderr
    masked = load_package(starter)
    for name in ("one", "two"):
        expected = masked(decode.decode_film((chosen / f"{name}.png").read_bytes()))
        mask = decode.decode_mask((clone / f"out/masks/{name}.png").read_bytes())
        assert np.array_equal(mask, expected)


def test_without_starter_and_run_the_error_says_how_to_get_a_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.models.package.STARTER", tmp_path / "starter")
    chosen = chosen_films(tmp_path)
    with pytest.raises(NotFoundError, match=r"^there is no starter in .*: build it by `make st"):
        predict_folder(chosen, folder=tmp_path / "artifacts", to=tmp_path / "out")


def chosen_films(folder: Path) -> Path:
    """Links to two films elsewhere, one that leads nowhere, and a note: films that a user chose."""
    (folder / "pacs").mkdir()
    chosen = folder / "chosen"
    chosen.mkdir()
    for number, name in enumerate(("one", "two")):
        (folder / f"pacs/{number}.png").write_bytes(png(draw_pair(number)[0]))
        (chosen / f"{name}.png").symlink_to(folder / f"pacs/{number}.png")
    (chosen / "gone.png").symlink_to(folder / "pacs/gone.png")
    (chosen / "notes.txt").write_text("for Monday")
    return chosen
