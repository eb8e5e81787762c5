from __future__ import annotations

import base64
import io
import json
import logging
import os
import random
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest

from jobs.errors import (
    AccessError,
    BadDataError,
    ConfigError,
    NotFoundError,
    ServiceUnavailableError,
)
from jobs.sources import kaggle, transfer
from jobs.sources.kaggle import KaggleSource
from jobs.sources.transfer import CHUNK, FRUITLESS_ATTEMPTS
from tests.kaggle_stub import EXPIRED, SIGNATURE, TOKEN, KaggleStub, Reply, kaggle_stub

URI = "kaggle://hospital/lungs"
NO_MD5 = {"x-goog-hash": ""}


MEMBERS = {"images/a.png": random.Random(0).randbytes(300_000), "masks/a.png": b"mask"}
with zipfile.ZipFile(_stream := io.BytesIO(), "w") as _archive:
    for _name, _content in MEMBERS.items():
        _archive.writestr(_name, _content)
ARCHIVE = _stream.getvalue()


@pytest.fixture
def stub() -> Iterator[KaggleStub]:
    with kaggle_stub({"hospital/lungs": ARCHIVE}) as stub:
        yield stub


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that were waited for, without waiting."""
    waited: list[float] = []
    monkeypatch.setattr(transfer, "sleep", waited.append)
    monkeypatch.setattr("kagglehub.clients.get_user_agent", lambda: "kagglehub")
    return waited


def content(source: KaggleSource) -> dict[str, bytes]:
    try:
        return {name: source.read(name) for name in source.names()}
    finally:
        source.close()


def test_a_dataset_is_read_through_kaggles_protocol(stub: KaggleStub, tmp_path: Path) -> None:
    assert content(KaggleSource(URI, tmp_path)) == MEMBERS
    asked = " ".join(request.what for request in stub.requests)
    assert asked == "GetDataset DownloadDataset storage"


def test_the_token_goes_to_kaggle_and_not_to_storage(stub: KaggleStub, tmp_path: Path) -> None:
    content(KaggleSource(URI, tmp_path))
    assert [request.authorization for request in stub.requests] == [f"Bearer {TOKEN}"] * 2 + [""]


def test_the_identity_is_the_current_version_and_downloads_nothing(
    stub: KaggleStub, tmp_path: Path
) -> None:
    source = KaggleSource(URI, tmp_path)
    assert source.identity() == source.identity() == {"handle": "hospital/lungs", "version": "3"}
    assert [request.what for request in stub.requests] == ["GetDataset"]
    assert list(tmp_path.iterdir()) == []


def test_a_given_version_is_not_asked_for(stub: KaggleStub, tmp_path: Path) -> None:
    source = KaggleSource(URI + "@3", tmp_path)
    assert source.identity() == {"handle": "hospital/lungs", "version": "3"}
    assert stub.requests == []
    assert content(source) == MEMBERS


@pytest.mark.parametrize(
    "uri", ["kaggle://lungs", "kaggle://a/b/c", "kaggle://a/b@latest", "kaggle://../b@1"]
)
def test_a_wrong_uri_is_refused_with_the_accepted_form(uri: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=re.escape("kaggle://OWNER/NAME")):
        KaggleSource(uri, tmp_path)


def test_a_cut_body_is_resumed_where_it_was_cut(
    stub: KaggleStub, tmp_path: Path, pauses: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    stub.fail("storage", Reply(cut=2 * CHUNK), Reply(), Reply(cut=CHUNK))
    source = KaggleSource(URI, tmp_path)
    assert content(source) == MEMBERS
    assert source.retries.count == len(pauses) == 2
    # Each resumption first follows the fresh redirect, and leaves that body unread.
    ranges = [request.range for request in stub.asked("storage")]
    assert ranges == ["", "", f"bytes={2 * CHUNK}-", "", f"bytes={3 * CHUNK}-"]
    assert "retry 1" in caplog.text and "retry 2" in caplog.text


def test_a_download_that_goes_on_growing_is_never_given_up(
    stub: KaggleStub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "CHUNK", 2**13)
    cuts = [Reply(cut=10_000)] + [Reply(), Reply(cut=10_000)] * (2 * FRUITLESS_ATTEMPTS)
    stub.fail("storage", *cuts)
    assert content(KaggleSource(URI, tmp_path)) == MEMBERS


def test_a_part_left_by_a_killed_job_is_completed(stub: KaggleStub, tmp_path: Path) -> None:
    folder = tmp_path / "kaggle" / "hospital" / "lungs"
    folder.mkdir(parents=True)
    (folder / "3.part").write_bytes(ARCHIVE[:200_000])
    assert content(KaggleSource(URI, tmp_path)) == MEMBERS
    assert stub.asked("storage")[-1].range == "bytes=200000-"


@pytest.mark.parametrize("headers", [{}, NO_MD5], ids=["md5", "no md5"])
def test_an_expired_urls_error_page_never_ends_up_in_the_file(
    stub: KaggleStub, tmp_path: Path, headers: dict[str, str]
) -> None:
    expired = Reply(status=403, body=EXPIRED, headers=headers)
    stub.fail("storage", Reply(cut=100_000, headers=headers), Reply(headers=headers), expired)
    stub.fail("storage", expired, Reply(headers=headers), Reply(headers=headers))
    source = KaggleSource(URI, tmp_path)
    assert content(source) == MEMBERS
    assert source.retries.count == 3
    assert stub.asked("storage")[-1].range == f"bytes={CHUNK}-"


def test_a_range_that_is_ignored_starts_the_file_again(stub: KaggleStub, tmp_path: Path) -> None:
    stub.fail("storage", Reply(cut=100_000), Reply(), Reply(whole=True))
    source = KaggleSource(URI, tmp_path)
    assert content(source) == MEMBERS
    assert source.retries.count == 1


@pytest.mark.parametrize("headers", [{}, NO_MD5], ids=["md5", "no md5"])
def test_a_flipped_byte_is_caught_and_downloaded_again(
    stub: KaggleStub, tmp_path: Path, headers: dict[str, str]
) -> None:
    flipped = bytearray(ARCHIVE)
    flipped[1000] ^= 1
    stub.fail("storage", Reply(body=bytes(flipped), headers=headers))
    source = KaggleSource(URI, tmp_path)
    assert content(source) == MEMBERS
    assert source.retries.count == 1
    assert stub.asked("storage")[-1].range == ""


def test_an_archive_that_is_always_corrupt_is_given_up(stub: KaggleStub, tmp_path: Path) -> None:
    stub.fail("storage", *[Reply(body=ARCHIVE[::-1])] * FRUITLESS_ATTEMPTS)
    with pytest.raises(ServiceUnavailableError, match="md5"):
        KaggleSource(URI, tmp_path).names()
    assert len(stub.asked("storage")) == FRUITLESS_ATTEMPTS
    assert not any(path.is_file() for path in tmp_path.rglob("*"))


@pytest.mark.parametrize("what", ["GetDataset", "DownloadDataset", "storage"])
@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_service_is_asked_again(
    stub: KaggleStub, tmp_path: Path, what: str, status: int
) -> None:
    stub.fail(what, Reply(status), Reply(status))
    source = KaggleSource(URI, tmp_path)
    assert content(source) == MEMBERS
    assert source.retries.count == 2


def test_pauses_grow_and_end_in_service_unavailable(
    stub: KaggleStub, tmp_path: Path, pauses: list[float]
) -> None:
    stub.fail("GetDataset", *[Reply(503)] * FRUITLESS_ATTEMPTS)
    with pytest.raises(ServiceUnavailableError, match=r"hospital/lungs.*503.*again later"):
        KaggleSource(URI, tmp_path).identity()
    assert len(stub.requests) == FRUITLESS_ATTEMPTS
    for number, pause in enumerate(pauses, start=1):
        assert 2**number / 2 <= pause <= 2**number


def test_retry_after_is_honored_in_seconds_and_as_a_date(
    stub: KaggleStub, tmp_path: Path, pauses: list[float]
) -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)
    stub.fail("GetDataset", *[Reply(429, {"Retry-After": after}) for after in ("77", date)])
    KaggleSource(URI, tmp_path).identity()
    assert pauses[0] == 77
    assert 80 < pauses[1] <= 90


def test_a_very_long_retry_after_is_left_to_the_scheduler(
    stub: KaggleStub, tmp_path: Path, pauses: list[float]
) -> None:
    stub.fail("GetDataset", Reply(429, {"Retry-After": "86400"}))
    with pytest.raises(ServiceUnavailableError, match="86400 s"):
        KaggleSource(URI, tmp_path).identity()
    assert pauses == []


@pytest.mark.parametrize(
    ("status", "error", "remedy"),
    [
        (400, ConfigError, "400"),
        (401, AccessError, "https://www.kaggle.com/settings/api"),
        (403, AccessError, "accept the terms at https://www.kaggle.com/datasets/hospital/lungs"),
        (404, NotFoundError, "https://www.kaggle.com/datasets/hospital/lungs"),
    ],
)
@pytest.mark.parametrize("what", ["GetDataset", "DownloadDataset"])
def test_a_refusal_is_said_at_once_with_its_remedy(
    stub: KaggleStub, tmp_path: Path, what: str, status: int, error: type[Exception], remedy: str
) -> None:
    stub.fail(what, Reply(status))
    with pytest.raises(error, match=re.escape(remedy)):
        KaggleSource(URI, tmp_path).names()
    assert len(stub.asked(what)) == 1


def test_a_page_in_place_of_the_answer_is_asked_for_again(stub: KaggleStub, tmp_path: Path) -> None:
    html = Reply(200, {"Content-Type": "text/html"}, b"<html>log in to the guest network</html>")
    stub.fail("GetDataset", html)
    assert KaggleSource(URI, tmp_path).identity()["version"] == "3"
    assert len(stub.requests) == 2


def test_a_server_that_hangs_is_timed_out(
    stub: KaggleStub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kaggle, "TIMEOUT", (0.3, 0.3))
    for what in ("GetDataset", "storage"):
        stub.fail(what, Reply(delay=0.6))
    source = KaggleSource(URI, tmp_path)
    assert content(source) == MEMBERS
    assert source.retries.count == 2


def test_a_service_that_is_down_is_unavailable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with kaggle_stub({}) as stub:
        pass
    for name, value in stub.environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ServiceUnavailableError, match="Unable to connect"):
        KaggleSource(URI, tmp_path).identity()


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


def test_no_secret_is_logged(
    stub: KaggleStub, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "jobs")
    stub.fail("storage", Reply(cut=100_000), Reply(), Reply(403), *[Reply(503)] * 20)
    with pytest.raises(ServiceUnavailableError) as raised:
        KaggleSource(URI, tmp_path).names()
    told = caplog.text + str(raised.value)
    assert not any(secret in told for secret in ("X-Goog", SIGNATURE, TOKEN))
    assert {"403", "503"} <= set(re.findall("[0-9]+", told))


def test_another_process_can_be_sent_to_the_stub(stub: KaggleStub, tmp_path: Path) -> None:
    program = (
        "import sys, pathlib; from jobs.sources.kaggle import KaggleSource; "
        "print(KaggleSource(sys.argv[1], pathlib.Path(sys.argv[2])).names())"
    )
    command = [sys.executable, "-c", program, URI, str(tmp_path)]
    done = subprocess.run(
        command, env=os.environ | stub.environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == str(sorted(MEMBERS))


def test_a_dataset_that_is_no_archive_is_bad_data(tmp_path: Path) -> None:
    with kaggle_stub({"hospital/lungs": b"a page of text"}), pytest.raises(BadDataError):
        KaggleSource(URI, tmp_path).names()
