"""`make kaggle-test` against the stand-in: passed, failed and skipped, each with its exit code."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sources import kaggle_site
from tests.sources.test_public_layouts import yoctoman
from tests.support.archives import zipped
from tests.support.kaggle_stub import VERSION, KaggleStub, kaggle_stub
from tests.support.range_server import Reply

MASKS = zipped({name: b"mask " + name.encode() for name in yoctoman()})


@pytest.fixture
def stub() -> Iterator[KaggleStub]:
    with kaggle_stub({kaggle_site.HANDLE: MASKS}) as stub:
        yield stub


@pytest.fixture
def no_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of Kaggle's files in a home without a token."""
    for name in ("KAGGLE_API_TOKEN", "KAGGLE_USERNAME", "KAGGLE_KEY"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / ".kaggle"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(folder))
    return folder


@pytest.mark.slow
def test_the_set_is_copied_and_its_counts_are_those_of_its_page(
    stub: KaggleStub, capfd: pytest.CaptureFixture[str]
) -> None:
    assert kaggle_site.main() == 0
    line = capfd.readouterr().out.splitlines()[-1]
    assert line.startswith("PASSED kaggle-test: films 662, pairs 566, without_mask 96 in ")
    assert line.endswith(f" s from yoctoman/shcxr-lung-mask, version {VERSION}")
    assert len(stub.requests_for("storage")) >= 566, "every mask is read from Kaggle's storage"


@pytest.mark.slow
def test_other_counts_fail(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(kaggle_site.EXPECTED, "films", 4)
    masks = zipped(dict.fromkeys(yoctoman()[:3], b"mask"))
    with kaggle_stub({kaggle_site.HANDLE: masks}):
        assert kaggle_site.main() == 1
    line = capfd.readouterr().err.splitlines()[-1]
    assert line.startswith("FAILED kaggle-test: films 4, pairs 3, without_mask 1 in ")
    assert "page says {'films': 4, 'pairs': 566" in line


@pytest.mark.slow
def test_a_refused_token_fails_with_the_jobs_own_message(
    stub: KaggleStub, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(kaggle_site.EXPECTED, "films", 1)
    stub.fail("GetDataset", Reply(401))
    assert kaggle_site.main() == 1
    *_, job, last = capfd.readouterr().err.splitlines()
    assert "AccessError: Kaggle refuses the credentials (401)" in job
    assert last.startswith("FAILED kaggle-test: download ended with 77 after ")


@pytest.mark.slow
def test_two_minutes_without_an_end_fail(
    stub: KaggleStub, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(kaggle_site.EXPECTED, "films", 1)
    monkeypatch.setattr(kaggle_site, "SECONDS", 0.1)
    assert kaggle_site.main() == 1
    assert "FAILED kaggle-test: not done after 0.1 s" in capfd.readouterr().err


@pytest.mark.usefixtures("no_token")
def test_without_a_token_it_is_skipped_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert kaggle_site.main() == 0
    line = capsys.readouterr().out
    assert line.startswith("SKIPPED kaggle-test: there is no Kaggle token: create a token at https")


@pytest.mark.parametrize(
    ("variables", "file", "content"),
    [
        ({"KAGGLE_API_TOKEN": "KGAT_x"}, "", ""),
        ({"KAGGLE_USERNAME": "anna", "KAGGLE_KEY": "k"}, "", ""),
        ({}, "access_token", "KGAT_x"),
        ({}, "kaggle.json", json.dumps({"username": "anna", "key": "k"})),
        # The job says what is wrong with it.
        ({}, "kaggle.json", "{not json"),
    ],
)
def test_every_form_of_a_token_counts(
    no_token: Path,
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    file: str,
    content: str,
) -> None:
    assert not kaggle_site.has_token()
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    if file:
        (no_token / file).write_text(content)
    assert kaggle_site.has_token()


def test_the_films_have_the_names_of_shenzhens(tmp_path: Path) -> None:
    kaggle_site.draw_films(tmp_path / "films")
    names = {path.stem for path in (tmp_path / "films").iterdir()}
    assert len(names) == 662
    assert {Path(mask).stem.removesuffix("_mask") for mask in yoctoman()} < names
