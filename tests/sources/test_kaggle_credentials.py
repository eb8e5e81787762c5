"""Every form of Kaggle's credentials, and the errors for invalid ones."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.errors import AccessError
from jobs.sources.kaggle import KaggleSource
from tests.support.kaggle_stub import KaggleStub, kaggle_stub

URI = "kaggle://hospital/lungs"


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Iterator[KaggleStub]:
    monkeypatch.setattr("kagglehub.clients.get_user_agent", lambda: "kagglehub")
    with kaggle_stub({"hospital/lungs": b""}) as stub:
        yield stub


def basic(username: str, key: str) -> str:
    return "Basic " + base64.b64encode(f"{username}:{key}".encode()).decode()


KEY_FILE = {".kaggle/kaggle.json": json.dumps({"username": "anna", "key": "k1"})}


@pytest.mark.parametrize(
    ("variables", "files", "authorization"),
    [
        ({"KAGGLE_API_TOKEN": "t1"}, {}, "Bearer t1"),
        ({"KAGGLE_API_TOKEN": "HOME/secret"}, {"secret": "t2\n"}, "Bearer t2"),
        ({}, {".kaggle/access_token": "t3\n"}, "Bearer t3"),
        ({"KAGGLE_USERNAME": "anna", "KAGGLE_KEY": "k0"}, {}, basic("anna", "k0")),
        ({}, KEY_FILE, basic("anna", "k1")),
        ({"KAGGLE_API_TOKEN": "t1"}, KEY_FILE, "Bearer t1"),
        ({}, {}, ""),
    ],
)
def test_every_form_of_credentials_is_sent(
    stub: KaggleStub,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    files: dict[str, str],
    authorization: str,
) -> None:
    set_up_home(tmp_path, monkeypatch, files)
    for name, value in variables.items():
        monkeypatch.setenv(name, value.replace("HOME", str(tmp_path)))
    KaggleSource(URI, tmp_path).identity()
    assert stub.requests[0].authorization == authorization


def set_up_home(home: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str]) -> None:
    for name in ("KAGGLE_API_TOKEN", "KAGGLE_USERNAME", "KAGGLE_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(home / ".kaggle"))
    for name, text in files.items():
        (home / name).parent.mkdir(exist_ok=True)
        (home / name).write_text(text)


@pytest.mark.parametrize("token", ["hunter2\nx", "hunter2" * 100, "hunter2\N{EM DASH}x"])
def test_a_malformed_token_is_refused_and_not_shown(
    stub: KaggleStub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    set_up_home(tmp_path, monkeypatch, {})
    monkeypatch.setenv("KAGGLE_API_TOKEN", token)
    with pytest.raises(AccessError, match="settings/api") as raised:
        KaggleSource(URI, tmp_path).identity()
    assert "hunter2" not in str(raised.value)
    assert raised.value.__suppress_context__


def test_an_unreadable_credentials_file_is_refused(
    stub: KaggleStub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_up_home(tmp_path, monkeypatch, {".kaggle/kaggle.json": "{not json"})
    with pytest.raises(AccessError, match=r"kaggle\.json"):
        KaggleSource(URI, tmp_path).identity()
