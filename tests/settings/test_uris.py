"""URIs of S3 with parts on which servers disagree are refused before a request, with one error."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest

from jobs import errors
from jobs.cli import main
from jobs.settings.config import JOBS, build_config

FORM = json.loads(
    (Path(__file__).resolve().parents[2] / "dags/lung/params.json").read_text(encoding="utf-8")
)
# What stands between bucket and file, and the words of the error.
UNSOUND = {
    "/a//b": "an empty folder (//)",
    "//b": "an empty folder (//)",
    "/a/../b": "a folder named . or ..",
    "/..": "a folder named . or ..",
    "/a/./b": "a folder named . or ..",
    "/a\nb": "a control character",
    "/a\x1b[2Jb": "a control character",
    "/a\x85b": "a control character",
}
SOUND = ["/a b", "/.hidden", "/a..b/..c/d..", "/肺/я", "/a+b", "/a&b=c"]
# A URI that every flag for S3 accepts one of, by what is given for its middle.
FORMS = ("s3://lung{}/x/manifest.json", "s3://lung{}/x.csv", "s3://lung{}/x")


def values(job: str, **changes: Any) -> dict[str, Any]:
    """The least that the job's config needs, with `changes`."""
    required = {
        item.name: "s3://lung/x/manifest.json"
        for item in dataclasses.fields(JOBS[job])
        if item.default is dataclasses.MISSING
    }
    return {**required, "out": "s3://lung/out", **changes}


def accepts(job: str, name: str, value: str) -> bool:
    try:
        build_config(job, values(job, **{name: value}))
    except errors.ConfigError:
        return False
    return True


def flags_of_uris() -> list[tuple[str, str, str]]:
    """(job, field, form of a URI that it accepts), judged by what the flags accept, not by names.

    A field that accepts any text, such as a reason, is none.
    """
    texts = [
        (job, item.name)
        for job, config in JOBS.items()
        for item in dataclasses.fields(config)
        if item.type == "str" and not accepts(job, item.name, "no uri")
    ]
    return [
        (job, name, next(form for form in FORMS if accepts(job, name, form.format("/ok"))))
        for job, name in texts
        if any(accepts(job, name, form.format("/ok")) for form in FORMS)
    ]


FLAGS = flags_of_uris()


def refusal(job: str, name: str, value: str) -> str:
    with pytest.raises(errors.ConfigError) as caught:
        build_config(job, values(job, **{name: value}))
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_the_flags_of_uris_are_these() -> None:
    assert {name for _, name, _ in FLAGS} == {
        *("out", "source", "patients", "raw", "split_file", "processed", "trained", "films"),
        *("predictions", "evaluation", "inbox"),
    }


@pytest.mark.parametrize(("job", "name", "form"), FLAGS)
@pytest.mark.parametrize("middle", UNSOUND)
def test_a_uri_with_an_unsound_part_is_refused_by_every_flag(
    job: str, name: str, form: str, middle: str
) -> None:
    uri = form.format(middle)
    error = refusal(job, name, uri)
    flag = "--" + name.replace("_", "-")
    assert error.startswith(f"{flag} {uri!r} has {UNSOUND[middle]}, give: "), error
    assert "s3://BUCKET/" in error and len(error.splitlines()) == 1


@pytest.mark.parametrize("middle", SOUND)
@pytest.mark.parametrize(("job", "name", "form"), FLAGS)
def test_a_uri_with_an_unusual_part_is_accepted_by_every_flag(
    job: str, name: str, form: str, middle: str
) -> None:
    assert accepts(job, name, form.format(middle))


@pytest.mark.parametrize("name", ["out", "source", "films", "inbox"])
@pytest.mark.parametrize("end", [" ", "\t", "\n", "\u3000", "/ "])
def test_a_prefix_with_a_space_at_its_end_is_refused(name: str, end: str) -> None:
    job = next(job for job, field, _ in FLAGS if field == name)
    words = "a control character" if end in "\t\n" else "a space at its end"
    assert words in refusal(job, name, "s3://lung/a" + end)


@pytest.mark.parametrize("middle", UNSOUND)
@pytest.mark.parametrize("joined", ["{}+synthetic://phantoms", "file:///a//../b+{}+s3://lung/ok"])
def test_each_of_several_sources_is_judged_alone(joined: str, middle: str) -> None:
    assert UNSOUND[middle] in refusal("download", "source", joined.format(f"s3://films{middle}/x"))
    assert accepts("download", "source", joined.format("s3://films/a+b/x"))


def test_the_form_of_airflow_refuses_what_the_flags_refuse() -> None:
    """As Airflow does it: by a search for the pattern, in which $ matches before a last newline."""
    fields = [(job, name, form) for job, name, form in FLAGS if name in FORM[job]]
    assert {name for _, name, _ in fields} == {"source", "patients", "split_file", "inbox"}
    for job, name, form in fields:
        pattern = FORM[job][name]["pattern"]
        assert all(re.search(pattern, form.format(middle)) for middle in ["", *SOUND])
        assert not any(re.search(pattern, form.format(middle)) for middle in UNSOUND)
        assert not re.search(pattern, form.format("/ok") + "\n")


def test_the_defaults_of_the_form_are_accepted_by_their_patterns() -> None:
    for fields in FORM.values():
        for schema in fields.values():
            assert re.search(schema.get("pattern", ""), str(schema["default"]))


@pytest.mark.parametrize(
    "arguments",
    [
        ["incoming", "--source", "file:///films", "--out", "s3://lung//p"],
        ["incoming", "--source", "s3://lung/a/../b", "--out", "s3://lung/p"],
        ["champion", "--out", "s3://lung/p/.."],
        ["run", "--source", "s3://lung//films"],
        ["run", "--patients", "s3://lung/./patients.csv"],
    ],
)
def test_commands_beside_the_jobs_refuse_such_uris_without_a_request(
    arguments: list[str],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_client(*_: Any, **__: Any) -> None:
        raise AssertionError("S3 was asked")

    monkeypatch.setattr("jobs.storage.s3.connect", no_client)
    monkeypatch.setattr("jobs.local.embedded_s3", no_client)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    folder = ["--folder", str(tmp_path)] if arguments[0] == "run" else []
    assert main([*arguments, *folder]) == 2
    (error,) = (record.getMessage() for record in caplog.records if record.levelname == "ERROR")
    assert any(f" has {words}, give: " in error for words in UNSOUND.values()), error
