"""The fields of Airflow's form: lists where a value is one of a few, and patterns for texts.

Airflow searches a text for its field's pattern; the command line matches the whole text. Both
refuse the same texts, before anything runs.
"""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest

from jobs import errors
from jobs.cli import RUN_DEFAULTS, build_parser
from jobs.settings.config import JOBS, build_config
from jobs.sources.catalogue import FAMILY_SOURCES
from scripts.airflow.airflow_home import FORM_DEFAULTS, PHANTOMS

ROOT = Path(__file__).resolve().parents[2]
FORM = json.loads((ROOT / "dags/lung/params.json").read_text(encoding="utf-8"))
FIELDS = {(job, name): schema for job, fields in FORM.items() for name, schema in fields.items()}
PAGES = ("README.md", "CONTRIBUTING.md", "dags/README.md", "docs/films.md", "docs/architecture.md")

GOOD = {
    "source": [
        "kaggle://hospital/lungs",
        "kaggle://hospital_1/lungs-2@3",
        "https://films.hospital/films.zip",
        "https://anna:secret@films.hospital:8443/a/films.zip?download=1#x",
        "http://127.0.0.1:8000/films",
        "file:///films",
        "file:///c+d/my films.zip",
        "s3://lung/films.zip",
        "s3://lung/a+b/c",
        "synthetic://phantoms",
        "synthetic://phantoms?films=1",
        "synthetic://phantoms?films=100000&seed=7",
        "synthetic://phantoms?seed=7&films=48",
        "kaggle://a/b@2+file:///c+d/e.zip+s3://films/g+synthetic://phantoms?films=2",
    ],
    "patients": ["", "s3://lung/patients.csv", "s3://lung/a/b c.CSV", "file:///data/patients.csv"],
    "split_file": ["", "s3://lung/split.csv", "s3://lung/a/.b/split.Csv"],
    "name": ["lung-unet", "a", "2026.v_1-x"],
    "mask_values": ["", "1,2", "65535", "#Ff0000,7"],
    "inbox": ["s3://lung/inbox", "s3://lung/inbox/"],
    "force_champion": ["", "the old one masks the heart"],
}
NEAR_MISSES = {
    "source": [
        "",
        "my films",
        "/films",
        "kagle://hospital/lungs",
        "Kaggle://hospital/lungs",
        "kaggle:/hospital/lungs",
        "kaggle://hospital",
        "kaggle://hospital/lungs/films",
        "kaggle://hospital/lungs@latest",
        "kaggle://hospital/lungs@0",
        "kaggle://hospital/my lungs",
        "kaggle://hospital/lungs\n",
        "https://www.kaggle.com",
        "https:///films.zip",
        "htps://films.hospital/films.zip",
        "ftp://films.hospital/films.zip",
        "file://films",
        "file:/films",
        "file:///",
        "s3://",
        "s3:/lung/films",
        "S3://lung/films",
        "s3a://lung/films",
        "gs://lung/films",
        "synthetic://hearts",
        "synthetic://phantoms?film=48",
        "synthetic://phantoms?films=0",
        "synthetic://phantoms?films=100001",
        "synthetic://phantoms?films=48&seed=-1",
        "synthetic://phantoms?films=48&films=49",
        "synthetic://phantoms?films=48;seed=0",
        "kaggle://a/b+kagle://c/d",
        "kaggle://a/b+",
        "kaggle://a/b,kaggle://c/d",
        "kaggle://a/b kaggle://c/d",
        "https://a+kaggle://b/c",
    ],
    "patients": ["s3://lung/patients.cvs", "s3://lung/.csv", "s3://lung/patients.csv/", "x.csv"],
    "split_file": [
        "s3://lung/split.cvs",
        "s3://split.csv",
        "file:///split.csv",
        "s3://lung/s.csv\n",
    ],
    "name": ["", "-a", "a/b", "a b", "a" * 65, "a\n"],
    "mask_values": ["65536", "1, 2", "#f00", "1\n"],
    "inbox": ["", "lung/inbox", "s3://lung//inbox", "S3://lung/inbox"],
    "force_champion": ["two\nlines", "a tab\there"],
}


def cases(values: dict[str, list[str]]) -> list[tuple[str, str, str]]:
    """(job, field, text) for each text and each job that has the field."""
    return [(job, name, text) for job, name in FIELDS for text in values.get(name, [])]


def config(job: str, name: str, value: Any) -> Any:
    """The job's config with the value, by way of the command line."""
    required = {"raw", "processed", "trained", "films", "predictions", "evaluation"}
    fields = [item.name for item in dataclasses.fields(JOBS[job])]
    flags = [f"--{field}=s3://lung/x/manifest.json" for field in fields if field in required]
    flag = f"--{name.replace('_', '-')}={value}"
    arguments = build_parser().parse_args([job, *flags, "--out=s3://lung/out", flag])
    return build_config(job, vars(arguments))


@pytest.mark.parametrize(("job", "name", "text"), cases(GOOD))
def test_a_text_of_the_accepted_form_passes_the_form_and_the_command_line(
    job: str, name: str, text: str
) -> None:
    assert re.search(FIELDS[job, name]["pattern"], text)
    assert getattr(config(job, name, text), name) == text


@pytest.mark.parametrize(("job", "name", "text"), cases(NEAR_MISSES))
def test_a_near_miss_is_refused_by_the_form_and_by_the_job_with_the_forms_words(
    job: str, name: str, text: str
) -> None:
    schema = FIELDS[job, name]
    assert not re.search(schema["pattern"], text)
    with pytest.raises(errors.ConfigError) as caught:
        config(job, name, text)
    assert caught.value.exit_code == 2
    assert str(caught.value).endswith(f", give: {schema['description']}")


def test_of_several_sources_the_wrong_one_is_named() -> None:
    with pytest.raises(errors.ConfigError) as caught:
        config("download", "source", "kaggle://a/b+kagle://c/d+s3://lung/films")
    assert "has a part of the wrong form, 'kagle://c/d', give: " in str(caught.value)


def test_the_defaults_and_all_sources_in_the_documentation_pass() -> None:
    pattern = FORM["download"]["source"]["pattern"]
    uri = re.compile(r"(?:kaggle|https|file|s3|synthetic)://[^\s`'…]*[A-Za-z0-9]")
    texts = [(ROOT / page).read_text(encoding="utf-8") for page in PAGES]
    commands = re.findall(r"(?:SOURCE=|--source )'?([^\s'`…]+)", "\n".join(texts))
    films = (ROOT / "docs/films.md").read_text(encoding="utf-8")
    table = [row for row in films.splitlines() if row.startswith("| ") and "://" in row]
    examples = {*commands, *uri.findall("\n".join(table)), PHANTOMS, str(RUN_DEFAULTS["source"])}
    assert len(examples) >= 8, examples
    for example in [*examples, FORM["download"]["source"]["default"]]:
        assert re.search(pattern, example), example


def test_the_forms_in_the_fields_descriptions_pass() -> None:
    uri = re.compile(r"[a-z0-9]+://[^\s,]*[A-Za-z0-9]")
    for (job, name), schema in FIELDS.items():
        text = schema["description"].replace("[@VERSION]", "@3")
        for example in uri.findall(text):
            assert re.search(schema["pattern"], example), (job, name, example)


def test_a_value_that_is_one_of_a_few_is_a_list_on_the_form() -> None:
    lists = {name: schema["enum"] for (_, name), schema in FIELDS.items() if "enum" in schema}
    assert lists.keys() == {"fit", "network", "precision"}
    several = {name: schema for (_, name), schema in FIELDS.items() if "examples" in schema}
    assert several.keys() == {"train_sources", "test_sources"}
    for schema in several.values():
        assert set(schema["examples"]) == {*FAMILY_SOURCES.values(), "custom"}
        assert schema["type"] == ["array", "null"]
        assert schema["items"] == {"enum": schema["examples"]}


@pytest.mark.parametrize("text", ["montgomry", "montgomery shenzhen", "montgomery,", "all"])
@pytest.mark.parametrize(
    ("job", "name"), [("train", "train_sources"), ("evaluate", "test_sources")]
)
def test_a_misspelt_name_of_a_source_is_refused_with_the_names(
    job: str, name: str, text: str
) -> None:
    with pytest.raises(errors.ConfigError, match=r"wrong form, give: Sources to .*shenzhen"):
        config(job, name, text)
    for accepted in ("", "phantoms", "shenzhen,montgomery,custom"):
        assert getattr(config(job, name, accepted), name) == accepted


@pytest.mark.parametrize("uri", ["s3://lung/rawmanifest.json", "s3://lung/raw/manifest.jsn"])
def test_a_misspelt_manifest_is_refused(uri: str) -> None:
    with pytest.raises(errors.ConfigError, match=r"--raw .* wrong form, give: URI of the raw"):
        build_config("preprocess", {"raw": uri, "out": "s3://lung/out"})


def test_a_number_has_its_bounds_in_the_text_beside_it_since_the_form_clamps_it() -> None:
    numbers = {key: schema for key, schema in FIELDS.items() if "minimum" in schema}
    assert len(numbers) >= 8
    for (job, name), schema in FIELDS.items():
        assert ("minimum" in schema) == (schema["type"] in ("integer", "number")), (job, name)
    for schema in numbers.values():
        bounds = f"(from {schema['minimum']} to {schema['maximum']})"
        assert schema["description"].endswith(bounds)


def test_the_patterns_are_ones_that_browsers_read() -> None:
    for schema in FIELDS.values():
        # The flag v wants "/" and "-" escaped in brackets.
        assert not re.search(r"(?<!\\)/|[^\\]-\]|\[\^?-", schema.get("pattern", ""))


def test_the_form_of_make_airflow_has_the_defaults_of_run_local() -> None:
    # The GPUs of the form decide the number of processes.
    assert {"source": PHANTOMS, "processes": 1, **FORM_DEFAULTS} == RUN_DEFAULTS
