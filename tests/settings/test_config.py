"""Configs, the command line and the schema of the Airflow form, which are built from them."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from jobs import errors
from jobs.cli import build_parser
from jobs.settings.airflow_form import form_schema
from jobs.settings.config import (
    JOBS,
    DownloadConfig,
    InboxConfig,
    JobConfig,
    PredictConfig,
    PreprocessConfig,
    TrainConfig,
    build_config,
)

ROOT = Path(__file__).resolve().parents[2]
MANIFEST = "s3://lung/p/raw/0/manifest.json"


def preprocess(**changes: Any) -> PreprocessConfig:
    return PreprocessConfig(**{"raw": MANIFEST, "out": "s3://lung/p", **changes})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"size": 500}, ("--size 500", "multiple of 32", "480")),
        ({"size": 0}, ("--size 0", "too small", "32")),
        ({"size": 4096}, ("--size 4096", "too large", "2048")),
        ({"max_quarantined": -0.1}, ("--max-quarantined", "too small", "0.0")),
        ({"max_quarantined": 1.5}, ("--max-quarantined", "too large", "1.0")),
        ({"raw": "raw/manifest.json"}, ("--raw", "wrong form")),
        ({"raw": "s3://lung/raw/"}, ("--raw", "wrong form")),
        ({"out": "/tmp"}, ("--out", "s3://BUCKET/PREFIX")),
        ({"run_id": "../../etc"}, ("--run-id", "wrong form")),
        ({"split_file": "split.csv"}, ("--split-file", "wrong form")),
        ({"mask_values": "lung"}, ("--mask-values 'lung'", "wrong form", "1,2 or 255", "#ff0000")),
        ({"mask_values": "1, 2"}, ("--mask-values", "wrong form")),
        ({"mask_values": "-1"}, ("--mask-values", "wrong form")),
        ({"mask_values": "65536"}, ("--mask-values", "wrong form")),
        ({"mask_values": "1,,2"}, ("--mask-values", "wrong form")),
        ({"mask_values": "ff0000"}, ("--mask-values", "wrong form")),
        ({"mask_values": "#f00"}, ("--mask-values", "wrong form")),
    ],
)
def test_a_value_out_of_bounds_is_refused_with_the_accepted_form(
    changes: dict[str, Any], words: tuple[str, ...]
) -> None:
    with pytest.raises(errors.ConfigError) as caught:
        preprocess(**changes)
    assert all(word in str(caught.value) for word in words), caught.value
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("values", ["0", "1,2", "255", "65535", "#ff0000", "#ff0000,#0000FF,7"])
def test_mask_values_are_gray_values_and_colors(values: str) -> None:
    assert preprocess(mask_values=values).identity()["mask_values"] == values


def test_a_config_without_mask_values_has_the_identity_of_earlier_versions() -> None:
    assert preprocess().identity() == {"size": 512, "fit": "stretch", "crop_borders": False}


def test_a_precision_that_does_not_exist_is_refused() -> None:
    with pytest.raises(errors.ConfigError, match="auto, float32, bfloat16"):
        TrainConfig(processed=MANIFEST, out="s3://lung/p", precision="float8")


@pytest.mark.parametrize(("shard", "expected"), [("1/1", (0, 1)), ("3/16", (2, 16))])
def test_a_shard_counts_from_one(shard: str, expected: tuple[int, int]) -> None:
    config = PredictConfig(trained=MANIFEST, films=MANIFEST, out="s3://lung/p", shard=shard)
    assert config.shard_of() == expected


@pytest.mark.parametrize("shard", ["0/4", "5/4", "1", "a/b"])
def test_a_shard_of_another_form_is_refused(shard: str) -> None:
    with pytest.raises(errors.ConfigError, match="--shard"):
        PredictConfig(trained=MANIFEST, films=MANIFEST, out="s3://lung/p", shard=shard)


def films_from(flag: str, films: str) -> JobConfig:
    """The config of the job with the flag `flag` for films, which writes to s3://lung/pipeline."""
    out = "s3://lung/pipeline"
    if flag == "--source":
        return DownloadConfig(source=f"synthetic://phantoms+{films}", out=out)
    if flag == "--films":
        return PredictConfig(trained=MANIFEST, films=films, out=out)
    return InboxConfig(inbox=films, out=out)


@pytest.mark.parametrize("flag", ["--source", "--films", "--inbox"])
@pytest.mark.parametrize("films", ["s3://lung", "s3://lung/", "s3://lung/pipeline"])
def test_a_prefix_that_contains_the_output_is_refused_as_a_source_of_films(
    flag: str, films: str
) -> None:
    with pytest.raises(errors.ConfigError) as caught:
        films_from(flag, films)
    words = f"{flag} {films} contains --out s3://lung/pipeline: the job would read"
    assert words in str(caught.value)


@pytest.mark.parametrize("flag", ["--source", "--films", "--inbox"])
@pytest.mark.parametrize("films", ["s3://lung/pipe", "s3://lung/pipeline/incoming/0a1b/"])
def test_a_prefix_beside_or_below_the_output_is_accepted_as_a_source_of_films(
    flag: str, films: str
) -> None:
    assert flag in films_from(flag, films).arguments()


def test_an_archive_whose_name_starts_the_output_prefix_is_accepted() -> None:
    DownloadConfig(source="s3://lung/films.ZIP", out="s3://lung/films.ZIP/pipeline")


@pytest.mark.parametrize("job", JOBS)
def test_the_flags_of_a_config_are_parsed_to_the_same_config(job: str) -> None:
    required = {
        item.name: MANIFEST
        for item in dataclasses.fields(JOBS[job])
        if item.default is dataclasses.MISSING
    }
    config = build_config(job, {**required, "out": "s3://lung/p", "run_id": "r1", "force": True})
    parsed = build_parser().parse_args([job, *config.arguments()])
    assert build_config(job, vars(parsed)) == config


@pytest.mark.parametrize("job", JOBS)
def test_the_help_documents_every_flag(job: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        build_parser().parse_args([job, "--help"])
    assert caught.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for item in dataclasses.fields(JOBS[job]):
        assert f"--{item.name.replace('_', '-')}" in text
        assert len(item.metadata["description"]) > 10


def test_an_unknown_flag_exits_with_2() -> None:
    with pytest.raises(SystemExit) as caught:
        build_parser().parse_args(["preprocess", "--sise", "512"])
    assert caught.value.code == 2


def test_every_field_of_the_form_is_documented() -> None:
    schema = form_schema()
    assert schema.keys() == JOBS.keys()
    for fields in schema.values():
        for name, param in fields.items():
            assert param["title"] and param["description"], name
            assert "default" in param, name
            assert ("null" in param["type"]) == (param["default"] in ("", [])), name


def test_a_field_of_two_jobs_differs_only_in_its_section() -> None:
    first_params: dict[str, dict[str, Any]] = {}
    for fields in form_schema().values():
        for name, param in fields.items():
            first = first_params.setdefault(name, param)
            assert param | {"section": ""} == first | {"section": ""}


def test_the_file_of_the_form_is_up_to_date() -> None:
    written = json.loads((ROOT / "dags/lung/params.json").read_text())
    assert written == form_schema(), "run `.venv/bin/python -m jobs schema > dags/lung/params.json`"
