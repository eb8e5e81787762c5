"""The Kaggle source against a stub that speaks Kaggle's protocol and fails in its ways."""

from __future__ import annotations

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
    ConflictError,
    NotFoundError,
    ServiceUnavailableError,
)
from jobs.sources import kaggle, retries, web
from jobs.sources.kaggle import KaggleSource
from jobs.sources.partial_download import CHUNK
from jobs.sources.retries import FRUITLESS_ATTEMPTS
from tests.support.archives import zipped
from tests.support.kaggle_stub import EXPIRED, SIGNATURE, TOKEN, KaggleStub, kaggle_stub
from tests.support.range_server import Reply

URI = "kaggle://hospital/lungs"
# Requests to storage before the first member: for the first byte, and for the directory.
BEFORE_A_MEMBER = 2

MEMBERS = {"images/a.png": random.Random(0).randbytes(300_000), "masks/a.png": b"mask"}
ARCHIVE = zipped(MEMBERS, zipfile.ZIP_STORED)


@pytest.fixture
def stub() -> Iterator[KaggleStub]:
    with kaggle_stub({"hospital/lungs": ARCHIVE}) as stub:
        yield stub


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds of each pause, without waiting."""
    seconds: list[float] = []
    monkeypatch.setattr(retries, "sleep", seconds.append)
    monkeypatch.setattr("kagglehub.clients.get_user_agent", lambda: "kagglehub")
    return seconds


def content(source: KaggleSource) -> dict[str, bytes]:
    try:
        return {name: source.read(name) for name in source.names()}
    finally:
        source.close()


def test_a_dataset_is_read_through_kaggles_protocol(stub: KaggleStub, tmp_path: Path) -> None:
    assert content(KaggleSource(URI, tmp_path)) == MEMBERS
    operations = [request.operation for request in stub.requests]
    storage = ["storage"] * (BEFORE_A_MEMBER + len(MEMBERS))
    assert operations == ["GetDataset", "DownloadDataset", *storage]
    assert list(tmp_path.iterdir()) == []


def test_the_token_is_sent_to_kaggle_and_not_to_storage(stub: KaggleStub, tmp_path: Path) -> None:
    content(KaggleSource(URI, tmp_path))
    sent = {(request.operation == "storage", request.authorization) for request in stub.requests}
    assert sent == {(False, f"Bearer {TOKEN}"), (True, "")}


def test_the_identity_is_the_current_version_and_downloads_nothing(
    stub: KaggleStub, tmp_path: Path
) -> None:
    source = KaggleSource(URI, tmp_path)
    assert source.identity() == source.identity() == {"handle": "hospital/lungs", "version": "3"}
    assert [request.operation for request in stub.requests] == ["GetDataset"]
    assert list(tmp_path.iterdir()) == []


def test_a_version_in_the_uri_takes_no_request(stub: KaggleStub, tmp_path: Path) -> None:
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


def fail_in_a_member(stub: KaggleStub, *replies: Reply) -> None:
    stub.fail("storage", *[Reply()] * BEFORE_A_MEMBER, *replies)


def test_a_cut_body_is_resumed_at_the_cut(
    stub: KaggleStub, tmp_path: Path, pauses: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    fail_in_a_member(stub, Reply(cut=2 * CHUNK), Reply(cut=CHUNK))
    source = KaggleSource(URI, tmp_path)
    assert content(source) == MEMBERS
    assert source.retries.count == len(pauses) == 2
    starts = [request.range.partition("-")[0] for request in stub.requests_for("storage")]
    assert starts[2:5] == ["bytes=0", f"bytes={2 * CHUNK}", f"bytes={3 * CHUNK}"]
    assert len(stub.requests_for("DownloadDataset")) == 1
    assert "retry 1" in caplog.text and "retry 2" in caplog.text


def test_attempts_that_bring_new_bytes_are_unlimited(
    stub: KaggleStub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web, "CHUNK", 2**13)
    fail_in_a_member(stub, *[Reply(cut=10_000)] * (3 * FRUITLESS_ATTEMPTS))
    assert content(KaggleSource(URI, tmp_path)) == MEMBERS


def test_an_expired_url_is_replaced_and_its_error_page_is_not_content(
    stub: KaggleStub, tmp_path: Path
) -> None:
    fail_in_a_member(stub, Reply(cut=100_000), Reply(403, body=EXPIRED), Reply(403, body=EXPIRED))
    source = KaggleSource(URI, tmp_path)
    assert content(source) == MEMBERS
    assert source.retries.count == 3
    assert len(stub.requests_for("DownloadDataset")) == 3
    assert stub.requests_for("storage")[5].range.startswith(f"bytes={CHUNK}-")


def test_a_range_that_storage_ignores_once_is_requested_again(
    stub: KaggleStub, tmp_path: Path
) -> None:
    fail_in_a_member(stub, Reply(whole=True))
    source = KaggleSource(URI, tmp_path)
    assert content(source) == MEMBERS
    assert source.retries.count == 1


def test_a_member_with_a_flipped_byte_is_read_again(
    stub: KaggleStub, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fail_in_a_member(stub, Reply(flip=1000))
    with caplog.at_level(logging.INFO):
        assert content(KaggleSource(URI, tmp_path)) == MEMBERS
    assert re.search(r"reading .*images/a\.png.* again: .*CRC-32 differs", caplog.text)
    first = stub.requests_for("storage")[BEFORE_A_MEMBER].range
    assert [request.range for request in stub.requests_for("storage")].count(first) == 2


def test_a_member_that_stays_damaged_is_refused_by_name(stub: KaggleStub, tmp_path: Path) -> None:
    fail_in_a_member(stub, *[Reply(flip=1000)] * 20)
    with pytest.raises(BadDataError, match=r"hospital/lungs: member 'images/a\.png'.*CRC-32"):
        content(KaggleSource(URI, tmp_path))
    assert len(stub.requests_for("storage")) == BEFORE_A_MEMBER + 2


def test_without_ranges_the_archive_is_downloaded_and_its_md5_tested(
    stub: KaggleStub, tmp_path: Path
) -> None:
    stub.storage.has_ranges = False
    stub.fail("storage", Reply(), Reply(flip=1000))
    source = KaggleSource(URI, tmp_path)
    assert content(source) == MEMBERS
    assert source.retries.count == 1
    assert len(stub.requests_for("storage")) == 3


def test_an_archive_that_is_replaced_while_it_is_read_is_a_conflict(
    stub: KaggleStub, tmp_path: Path
) -> None:
    source = KaggleSource(URI, tmp_path)
    names = source.names()
    stub.storage.files["hospital/lungs"] = ARCHIVE.replace(b"mask", b"MASK")
    with pytest.raises(ConflictError, match="changed while it was read: start this again"):
        source.read(names[0])
    source.close()


@pytest.mark.parametrize("operation", ["GetDataset", "DownloadDataset", "storage"])
@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_request_to_a_busy_service_is_repeated(
    stub: KaggleStub, tmp_path: Path, operation: str, status: int
) -> None:
    stub.fail(operation, Reply(status), Reply(status))
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
    for attempt, pause in enumerate(pauses, start=1):
        assert 2**attempt / 2 <= pause <= 2**attempt


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
@pytest.mark.parametrize("operation", ["GetDataset", "DownloadDataset"])
def test_a_refusal_is_reported_with_its_remedy_and_not_retried(
    stub: KaggleStub,
    tmp_path: Path,
    operation: str,
    status: int,
    error: type[Exception],
    remedy: str,
) -> None:
    stub.fail(operation, Reply(status))
    with pytest.raises(error, match=re.escape(remedy)):
        KaggleSource(URI, tmp_path).names()
    assert len(stub.requests_for(operation)) == 1


def test_a_request_answered_by_a_web_page_is_repeated(stub: KaggleStub, tmp_path: Path) -> None:
    html = Reply(200, {"Content-Type": "text/html"}, b"<html>log in to the guest network</html>")
    stub.fail("GetDataset", html)
    assert KaggleSource(URI, tmp_path).identity()["version"] == "3"
    assert len(stub.requests) == 2


def test_a_request_to_a_server_that_hangs_times_out_and_is_repeated(
    stub: KaggleStub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (kaggle, web):
        monkeypatch.setattr(module, "TIMEOUT", (0.3, 0.3))
    for operation in ("GetDataset", "storage"):
        stub.fail(operation, Reply(delay=0.6))
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


def test_no_secret_is_logged(
    stub: KaggleStub, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "jobs")
    stub.fail("storage", Reply(), Reply(cut=100_000), Reply(403), *[Reply(503)] * 20)
    with pytest.raises(ServiceUnavailableError) as raised:
        KaggleSource(URI, tmp_path).names()
    text = caplog.text + str(raised.value)
    assert not any(secret in text for secret in ("X-Goog", SIGNATURE, TOKEN))
    assert {"403", "503"} <= set(re.findall("[0-9]+", text))


def test_another_process_can_use_the_stub(stub: KaggleStub, tmp_path: Path) -> None:
    program = (
        "import sys, pathlib; from jobs.sources.kaggle import KaggleSource; "
        "print(KaggleSource(sys.argv[1], pathlib.Path(sys.argv[2])).names())"
    )
    command = [sys.executable, "-c", program, URI, str(tmp_path)]
    process = subprocess.run(
        command, env=os.environ | stub.environment, capture_output=True, text=True, check=True
    )
    assert process.stdout.splitlines()[-1] == str(sorted(MEMBERS))


def test_a_dataset_that_is_not_an_archive_is_bad_data(tmp_path: Path) -> None:
    with kaggle_stub({"hospital/lungs": b"a page of text"}), pytest.raises(BadDataError):
        KaggleSource(URI, tmp_path).names()
