"""The whole chain on one machine, called as `python -m jobs run` calls it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from jobs.chain import INPUTS
from jobs.errors import ConfigError
from jobs.local import KEYS, predict_folder, run_chain, serve_s3
from tests.support.films import draw_pair, png


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
    }
    assert run_chain(values, folder=tmp_path) == 0
    assert s3_variables() == before
    printed = capsys.readouterr().out
    assert [line.split()[0] for line in printed.splitlines() if line.startswith("  ")] == [*INPUTS]
    assert (tmp_path / "two-ranks" / "report.html").exists()
    chosen = chosen_films(tmp_path)
    for _ in range(2):
        assert predict_folder(chosen, folder=tmp_path, to=chosen / "out") == 0
        masks = sorted(path.name for path in (chosen / "out/masks").iterdir())
        assert masks == ["one.png", "two.png"]
    assert "passed over: text and metadata 1" in capsys.readouterr().out


def chosen_films(folder: Path) -> Path:
    """Links to two films elsewhere and a note, as people make to choose films."""
    (folder / "pacs").mkdir()
    chosen = folder / "chosen"
    chosen.mkdir()
    for number, name in enumerate(("one", "two")):
        (folder / f"pacs/{number}.png").write_bytes(png(draw_pair(number)[0]))
        (chosen / f"{name}.png").symlink_to(folder / f"pacs/{number}.png")
    (chosen / "notes.txt").write_text("for Monday")
    return chosen
