"""A zip at a URL: read by ranges, resumed, never mixed, downloaded whole without ranges."""

from __future__ import annotations

import io
import logging
import random
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from jobs.errors import (
    AccessError,
    BadDataError,
    ConfigError,
    ConflictError,
    JobError,
    NotFoundError,
    ServiceUnavailableError,
)
from jobs.sources import retries, web
from jobs.sources.archive import TAIL, LocalZip, ZipSource
from jobs.sources.partial_download import CHUNK
from jobs.sources.retries import FRUITLESS_ATTEMPTS
from jobs.sources.source import Source, open_source
from jobs.sources.web import open_url
from jobs.storage.s3 import Store
from tests.support.archives import zipped
from tests.support.range_server import RangeServer, Reply, range_server

MEMBERS = {f"images/{n}.png": random.Random(n).randbytes(200_000) for n in range(4)}
HTML = Reply(200, {"Content-Type": "text/html"}, b"<html>log in to the guest network</html>")
CUT = 2 * CHUNK
ARCHIVE = zipped(MEMBERS)
REPLACEMENT = zipped({name: content[::-1] for name, content in MEMBERS.items()})


@pytest.fixture
def server() -> Iterator[RangeServer]:
    with range_server({"films.zip": ARCHIVE}) as server:
        yield server


@pytest.fixture
def plain() -> Iterator[RangeServer]:
    """A server without ranges that sends neither an md5 nor an ETag."""
    with range_server({"films.zip": ARCHIVE}, has_ranges=False) as server:
        server.headers = {"ETag": "", "Last-Modified": "", "x-goog-hash": ""}
        yield server


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds of each pause, without waiting."""
    seconds: list[float] = []
    monkeypatch.setattr(retries, "sleep", seconds.append)
    return seconds


def opened(server: RangeServer, scratch: Path, query: str = "") -> ZipSource:
    return open_url(f"{server.url}/films.zip{query}", scratch)


def content(source: Source) -> dict[str, bytes]:
    try:
        return {name: source.read(name) for name in source.names()}
    finally:
        source.close()


def test_the_directory_is_requested_first_and_then_each_member_by_one_range(
    server: RangeServer, tmp_path: Path
) -> None:
    source = opened(server, tmp_path)
    size = len(ARCHIVE)
    assert server.ranges == ["bytes=0-0", f"bytes={size - TAIL}-{size - 1}"]
    assert content(source) == MEMBERS
    with zipfile.ZipFile(io.BytesIO(ARCHIVE)) as archive:
        starts = [info.header_offset for info in archive.infolist()]
        stops = [*starts[1:], archive.start_dir]
    expected = [f"bytes={a}-{b - 1}" for a, b in zip(starts, stops, strict=True)]
    assert server.ranges[2:] == expected
    assert list(tmp_path.iterdir()) == []


def test_a_long_directory_is_read_whole(tmp_path: Path) -> None:
    members = {f"{'deep/' * 40}{n:05}.png": b"" for n in range(2_000)}
    with range_server({"films.zip": zipped(members)}) as server:
        source = opened(server, tmp_path)
    assert source.names() == sorted(members)
    source.close()


def test_the_same_archive_on_disk_in_s3_and_at_two_urls_is_the_same_source(
    server: RangeServer, plain: RangeServer, store: Store, out: str, tmp_path: Path
) -> None:
    path = tmp_path / "local.zip"
    path.write_bytes(ARCHIVE)
    store.write(f"{out}/films.zip", ARCHIVE)
    uris = [path.as_uri(), f"{out}/films.zip", *(f"{s.url}/films.zip" for s in (server, plain))]
    identities = []
    for uri in uris:
        source = open_source(uri, store, tmp_path)
        identities.append(source.identity())
        assert content(source) == MEMBERS
    assert identities == [identities[0]] * 4
    assert server.sent < len(ARCHIVE) + TAIL + 2


def test_a_cut_body_is_resumed_at_the_cut(
    server: RangeServer, tmp_path: Path, pauses: list[float]
) -> None:
    server.fail(Reply(), Reply(), Reply(cut=CUT))
    assert content(opened(server, tmp_path)) == MEMBERS
    assert server.ranges[3].startswith(f"bytes={CUT}-")
    assert len(pauses) == 1


def test_the_pause_is_as_long_as_a_busy_server_asks(
    server: RangeServer, tmp_path: Path, pauses: list[float]
) -> None:
    server.fail(Reply(429, {"Retry-After": "7"}), Reply(503), Reply(), Reply(500))
    assert content(opened(server, tmp_path)) == MEMBERS
    assert (pauses[0], len(pauses)) == (7, 3)


def test_a_server_that_stays_down_is_unavailable(server: RangeServer, tmp_path: Path) -> None:
    source = opened(server, tmp_path)
    server.fail(*[Reply(503)] * FRUITLESS_ATTEMPTS)
    with pytest.raises(ServiceUnavailableError, match=r"films\.zip is not delivered.*503"):
        source.read("images/0.png")
    source.close()


@pytest.mark.parametrize(
    ("status", "error"),
    [(400, ConfigError), (401, AccessError), (403, AccessError), (404, NotFoundError)],
)
def test_a_refusal_is_not_retried_and_shows_no_secrets_of_the_url(
    server: RangeServer, tmp_path: Path, status: int, error: type[JobError], pauses: list[float]
) -> None:
    server.fail(Reply(status))
    url = server.url.replace("http://", "http://anna:hunter2@")
    with pytest.raises(error, match=re.escape(f"({status})")) as raised:
        open_url(f"{url}/films.zip?sig=hunter2", tmp_path)
    assert "hunter2" not in str(raised.value)
    assert pauses == []


def test_no_secret_of_a_url_is_logged(
    server: RangeServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "jobs")
    server.fail(Reply(503), Reply(), Reply(cut=0), Reply(), Reply(), Reply(flip=900))
    url = server.url.replace("http://", "http://anna:hunter2@")
    content(open_url(f"{url}/films.zip?sig=hunter2", tmp_path))
    assert server.requests[0].authorization.startswith("Basic ")
    assert "retry 2" in caplog.text and re.search("reading .* again: ", caplog.text)
    assert "hunter2" not in caplog.text


@pytest.mark.parametrize(
    "headers",
    [{}, {"ETag": ""}, {"ETag": 'W/"weak"'}, {"Last-Modified": ""}],
    ids=["all", "date only", "weak ETag", "ETag only"],
)
def test_an_archive_replaced_while_it_is_read_ends_the_job_with_a_conflict(
    server: RangeServer, tmp_path: Path, headers: dict[str, str]
) -> None:
    server.headers = headers
    source = opened(server, tmp_path)
    source.read("images/0.png")
    server.files["films.zip"] = REPLACEMENT
    server.headers = headers | {"Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT"}
    with pytest.raises(ConflictError, match="changed while it was read") as raised:
        source.read("images/1.png")
    assert raised.value.exit_code == 75
    source.close()


def test_an_archive_that_became_shorter_is_a_conflict(server: RangeServer, tmp_path: Path) -> None:
    source = opened(server, tmp_path)
    server.files["films.zip"] = ARCHIVE[:1000]
    with pytest.raises(ConflictError, match="changed while it was read"):
        source.read("images/3.png")
    source.close()


def test_without_a_version_the_crc_detects_a_replaced_archive(
    server: RangeServer, tmp_path: Path
) -> None:
    server.headers = {"ETag": "", "Last-Modified": ""}
    source = opened(server, tmp_path)
    server.files["films.zip"] = REPLACEMENT
    with pytest.raises(BadDataError, match=r"member 'images/1\.png'.*CRC-32"):
        source.read("images/1.png")
    source.close()


def test_from_a_server_without_ranges_the_archive_is_downloaded_once(
    plain: RangeServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "jobs")
    assert content(opened(plain, tmp_path)) == MEMBERS
    assert plain.ranges == ["bytes=0-0", ""]
    assert "has no ranges" in caplog.text


def test_a_whole_download_is_requested_from_the_cut_on(plain: RangeServer, tmp_path: Path) -> None:
    plain.fail(Reply(), Reply(cut=CUT))
    source = opened(plain, tmp_path)
    assert content(source) == MEMBERS
    assert plain.ranges == ["bytes=0-0", "", f"bytes={CUT}-"]
    assert plain.requests[-1].sent == len(ARCHIVE), "the server ignores the range and sends all"


def test_a_download_is_never_resumed_from_another_archive(
    server: RangeServer, tmp_path: Path
) -> None:
    server.fail(Reply(whole=True), Reply(whole=True, cut=CUT))

    def replace(pause: float) -> None:
        server.files["films.zip"] = REPLACEMENT

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(retries, "sleep", replace)
        source = opened(server, tmp_path)
    assert content(source) == {name: content[::-1] for name, content in MEMBERS.items()}


@pytest.mark.parametrize("has_md5", [True, False], ids=["md5", "no md5"])
def test_a_whole_download_with_a_flipped_byte_is_repeated(
    plain: RangeServer, tmp_path: Path, has_md5: bool
) -> None:
    plain.headers = {} if has_md5 else plain.headers
    plain.fail(Reply(), Reply(flip=1000))
    assert content(opened(plain, tmp_path)) == MEMBERS
    assert plain.ranges == ["bytes=0-0", "", ""]


def test_a_web_page_instead_of_a_zip_is_bad_data_without_a_retry(
    server: RangeServer, tmp_path: Path, pauses: list[float]
) -> None:
    server.headers = {"x-goog-hash": ""}
    server.fail(HTML, HTML)
    with pytest.raises(BadDataError, match=r"is not a zip"):
        opened(server, tmp_path)
    assert pauses == []


def test_an_empty_file_is_bad_data(tmp_path: Path) -> None:
    with range_server({"films.zip": b""}) as server, pytest.raises(BadDataError, match="not a zip"):
        opened(server, tmp_path)


def test_a_request_to_a_server_that_hangs_times_out_and_is_repeated(
    server: RangeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pauses: list[float]
) -> None:
    monkeypatch.setattr(web, "TIMEOUT", (0.3, 0.3))
    server.fail(Reply(delay=0.6))
    assert content(opened(server, tmp_path)) == MEMBERS
    assert len(pauses) == 1


def test_an_untrusted_certificate_is_reported_without_a_retry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pauses: list[float]
) -> None:
    def untrusted(*_: object, **__: object) -> None:
        raise requests.exceptions.SSLError("[SSL: CERTIFICATE_VERIFY_FAILED] self-signed")

    monkeypatch.setattr(requests.Session, "get", untrusted)
    with pytest.raises(AccessError, match="REQUESTS_CA_BUNDLE"):
        open_url("https://films.hospital/films.zip", tmp_path)
    assert pauses == []


def test_a_url_without_a_host_is_refused_with_the_form(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"give https://HOST/PATH\.zip"):
        open_url("https:///films.zip", tmp_path)


@pytest.mark.parametrize(
    "host",
    ["host:80a", "host:99999", "[::1", "*.host", "host..org", "h" * 64 + ".org", "\u2100.org"],
)
def test_an_invalid_url_is_refused_without_a_retry_and_shows_no_secrets(
    tmp_path: Path, host: str, pauses: list[float]
) -> None:
    for user in ("", "anna:hunter2@", "anna:hunt?er2@", "anna:hunt/er2@"):
        with pytest.raises(ConfigError, match=r"give https://HOST/PATH\.zip") as raised:
            open_url(f"https://{user}{host}/x.zip?sig=hunter2", tmp_path)
        assert f"https://{host}/x.zip" in str(raised.value)
        assert "anna" not in str(raised.value) and "er2" not in str(raised.value)
    assert pauses == []


def test_a_password_with_a_slash_is_refused_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="%2F") as raised:
        open_url("https://anna:hunt/er2@host/x.zip", tmp_path)
    assert "anna" not in str(raised.value) and "er2" not in str(raised.value)


def test_a_local_and_a_remote_zip_have_the_same_members(
    server: RangeServer, tmp_path: Path, shared_data: Path
) -> None:
    path = shared_data / "kermany-as-masks-and-labels.zip"
    server.files["films.zip"] = path.read_bytes()
    local, remote = LocalZip(path), opened(server, tmp_path)
    assert local.identity() == remote.identity()
    assert content(local) == content(remote)
