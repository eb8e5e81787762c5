"""Objects whose bytes change on the way from a real S3, behind a proxy that damages them."""

from __future__ import annotations

import base64
import hashlib
import logging
import os
import re
import zlib
from collections.abc import Callable
from typing import Any

import pytest
from urllib3.exceptions import SSLError

from jobs import errors
from jobs.settings.config import PredictConfig
from jobs.storage.manifest import Manifest, read_manifest
from jobs.storage.s3 import Store, split_uri
from jobs.storage.verified_read import DamagedObjectError, DamagedTransferError, read_checked
from jobs.storage.work_folder import WorkFolder
from tests.support.fault_proxy import Fault, FaultProxy, flip, flip_elsewhere, shorten

DATA = os.urandom(100_000)
# What a proxy may drop of a response, so that nothing but the other hash is left.
NO_CHECKSUM = {"X-Amz-Checksum-Sha256": ""}
NO_MD5 = {"Etag": '"0123456789abcdef0123456789abcdef-2"'}


def by_manifest(store: Store, uri: str) -> bytes:
    return store.read(uri, sha256=hashlib.sha256(DATA).hexdigest())


def by_s3(store: Store, uri: str) -> bytes:
    return store.read(uri)


def by_listing(store: Store, uri: str) -> bytes:
    return store.read_object(store.stat(uri))


Read = Callable[[Store, str], bytes]
READS = [
    pytest.param(by_manifest, {}, id="sha256 of a manifest"),
    pytest.param(by_s3, NO_MD5, id="stored checksum"),
    pytest.param(by_s3, NO_CHECKSUM, id="MD5 in the ETag"),
    pytest.param(by_listing, NO_CHECKSUM, id="MD5 in a listing's ETag"),
]


@pytest.mark.parametrize("change", [flip, shorten])
@pytest.mark.parametrize(("read", "headers"), READS)
def test_bytes_that_changed_once_are_read_again_and_the_log_says_so(
    store: Store,
    behind: Store,
    proxy: FaultProxy,
    out: str,
    caplog: pytest.LogCaptureFixture,
    read: Read,
    headers: dict[str, str],
    change: Callable[[bytes, int], bytes],
) -> None:
    store.write(f"{out}/film.png", DATA)
    proxy.faults["film.png"] = Fault(change, times=1, headers=headers)
    assert read(behind, f"{out}/film.png") == DATA
    assert proxy.reads["film.png"] == 2
    assert f"{out}/film.png was right at the second read" in caplog.text


@pytest.mark.parametrize(("read", "headers"), READS)
def test_the_same_wrong_bytes_twice_are_a_damaged_object_with_both_hashes_and_a_remedy(
    store: Store,
    behind: Store,
    proxy: FaultProxy,
    out: str,
    read: Read,
    headers: dict[str, str],
) -> None:
    store.write(f"{out}/film.png", DATA)
    proxy.faults["film.png"] = Fault(flip, headers=headers)
    with pytest.raises(DamagedObjectError) as caught:
        read(behind, f"{out}/film.png")
    message, damaged = str(caught.value), flip(DATA, 1)
    if read is by_manifest:
        expected, found = (hashlib.sha256(data).hexdigest() for data in (DATA, damaged))
    elif headers is NO_CHECKSUM:
        expected, found = (hashlib.md5(data).hexdigest() for data in (DATA, damaged))
    else:
        expected, found = (
            base64.b64encode(hashlib.sha256(data).digest()).decode() for data in (DATA, damaged)
        )
    assert f"{out}/film.png" in message and expected in message and found in message
    assert "run the job that wrote it again with --force" in message
    assert caught.value.exit_code == 65
    assert proxy.reads["film.png"] == 2


@pytest.mark.parametrize(("read", "headers"), READS)
def test_other_wrong_bytes_at_each_read_are_a_damaged_way_and_the_job_is_retried(
    store: Store,
    behind: Store,
    proxy: FaultProxy,
    out: str,
    read: Read,
    headers: dict[str, str],
) -> None:
    store.write(f"{out}/film.png", DATA)
    proxy.faults["film.png"] = Fault(flip_elsewhere, headers=headers)
    with pytest.raises(DamagedTransferError, match="other bytes at each read") as caught:
        read(behind, f"{out}/film.png")
    assert f"{out}/film.png" in str(caught.value) and "proxies" in str(caught.value)
    assert caught.value.exit_code == 69


@pytest.mark.parametrize("reset", [False, True])
def test_a_body_that_is_always_cut_is_a_damaged_way(
    store: Store, behind: Store, proxy: FaultProxy, out: str, reset: bool
) -> None:
    store.write(f"{out}/film.png", DATA)
    proxy.faults["film.png"] = Fault(cut=True, reset=reset, times=3)
    assert behind.read(f"{out}/film.png") == DATA
    proxy.faults["film.png"] = Fault(cut=True, reset=reset)
    with pytest.raises(DamagedTransferError, match=r"film\.png") as caught:
        behind.read(f"{out}/film.png")
    assert caught.value.exit_code == 69


def test_bytes_changed_under_tls_are_read_again(
    store: Store, out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TLS finds them itself; urllib3's error passes through botocore as it is."""
    store.write(f"{out}/film.png", DATA)
    real, calls = store._client.get_object, list[Any]()

    def changed_once(**request: Any) -> Any:
        calls.append(request)
        response = real(**request)
        if len(calls) == 1:
            response["Body"].read = _bad_record
        return response

    monkeypatch.setattr(store._client, "get_object", changed_once)
    assert store.read(f"{out}/film.png") == DATA
    assert len(calls) == 2


def _bad_record() -> bytes:
    raise SSLError("decryption failed or bad record mac")


@pytest.mark.parametrize(
    "headers",
    [
        NO_MD5,
        {"X-Amz-Server-Side-Encryption": "aws:kms"},
        {"X-Amz-Server-Side-Encryption": "aws:kms:dsse"},
        {"X-Amz-Server-Side-Encryption-Customer-Algorithm": "AES256"},
        {"Etag": '"another-kind-of-tag"'},
    ],
)
def test_an_etag_that_is_no_md5_is_not_compared(
    store: Store, behind: Store, proxy: FaultProxy, out: str, headers: dict[str, str]
) -> None:
    """The bytes do not have the MD5 that the ETag would be, and are right all the same."""
    store.write(f"{out}/film.png", DATA)
    proxy.faults["film.png"] = Fault(flip, headers=NO_CHECKSUM | headers)
    assert behind.read(f"{out}/film.png") == flip(DATA, 1)


def test_encryption_by_s3s_own_key_leaves_the_etag_an_md5(
    store: Store, behind: Store, proxy: FaultProxy, out: str
) -> None:
    store.write(f"{out}/film.png", DATA)
    headers = NO_CHECKSUM | {"X-Amz-Server-Side-Encryption": "AES256"}
    proxy.faults["film.png"] = Fault(flip, headers=headers)
    with pytest.raises(DamagedObjectError, match="its MD5 is"):
        behind.read(f"{out}/film.png")


@pytest.mark.parametrize(
    ("algorithm", "digest"),
    [
        ("CRC32", lambda data: zlib.crc32(data).to_bytes(4, "big")),
        ("SHA1", lambda data: hashlib.sha1(data).digest()),
        ("SHA256", lambda data: hashlib.sha256(data).digest()),
    ],
)
def test_each_checksum_that_botocore_compares_is_named_with_both_values(
    store: Store,
    behind: Store,
    proxy: FaultProxy,
    out: str,
    algorithm: str,
    digest: Callable[[bytes], bytes],
) -> None:
    bucket, key = split_uri(f"{out}/film.png")
    request = {"Bucket": bucket, "Key": key, "Body": DATA, "ChecksumAlgorithm": algorithm}
    store._client.put_object(**request)
    assert behind.read(f"{out}/film.png") == DATA
    proxy.faults["film.png"] = Fault(flip, headers=NO_MD5)
    expected, found = (base64.b64encode(digest(data)).decode() for data in (DATA, flip(DATA, 1)))
    words = re.escape(f"its {algorithm} is {found}, S3 has {expected}")
    with pytest.raises(DamagedObjectError, match=words):
        behind.read(f"{out}/film.png")


def test_a_large_object_in_parts_has_no_hash_of_the_whole_and_is_read(
    store: Store, behind: Store, out: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.storage.s3.MULTIPART_BYTES", 2**20)
    data = os.urandom(9 * 2**20)
    (tmp_path / "film").write_bytes(data)
    store.upload(tmp_path / "film", f"{out}/film")
    assert store.stat(f"{out}/film").etag.endswith('-2"')
    assert behind.read(f"{out}/film") == data


def test_an_object_that_was_replaced_since_its_listing_is_refused_and_not_damaged(
    store: Store, out: str
) -> None:
    store.write(f"{out}/film.png", DATA)
    item = store.stat(f"{out}/film.png")
    store.write(f"{out}/film.png", b"another film")
    with pytest.raises(errors.ConflictError, match="changed while it was read"):
        store.read_object(item)
    assert store.read(f"{out}/film.png") == b"another film"


def test_an_object_replaced_by_another_of_its_name_is_read_as_it_is_then(
    store: Store, out: str
) -> None:
    """Its ETag comes with its bytes: the two always belong together."""
    store.write(f"{out}/champion.json", b"1")
    store.write(f"{out}/champion.json", b"2")
    assert store.read_tagged(f"{out}/champion.json") == (
        b"2",
        f'"{hashlib.md5(b"2").hexdigest()}"',
    )


@pytest.fixture
def written(store: Store, out: str) -> Manifest:
    """A manifest with a part of 3 rows and a file."""
    config = PredictConfig(trained=f"{out}/t/manifest.json", films=f"{out}/films", out=out)
    folder = WorkFolder(store, config, job="predict", folder="p", recipe="1", inputs={})
    rows = [{"id": str(number)} for number in range(3)]
    list(folder.write_parts(iter(rows), 3, lambda parts: (row for part in parts for row in part)))
    folder.add_file("model.safetensors", DATA)
    return folder.finish(counts={}, headline={})


@pytest.mark.parametrize("name", ["manifest.json", "part-00000.jsonl.gz", "model.safetensors"])
@pytest.mark.parametrize("headers", [{}, NO_CHECKSUM | NO_MD5], ids=["hashes", "no hash in S3"])
def test_manifests_rows_and_files_changed_once_are_read_again(
    behind: Store,
    proxy: FaultProxy,
    written: Manifest,
    name: str,
    headers: dict[str, str],
) -> None:
    proxy.faults[name] = Fault(flip, times=1, headers=headers)
    manifest = read_manifest(behind, written.uri)
    assert manifest.content_hash == written.content_hash
    assert [row["id"] for row in manifest.rows(behind)] == ["0", "1", "2"]
    assert manifest.read_file(behind, "model.safetensors") == DATA
    assert proxy.reads[name] == 2


@pytest.mark.parametrize(
    ("change", "exit_code"), [(flip, 65), (flip_elsewhere, 69)], ids=["the same", "differing"]
)
@pytest.mark.parametrize("headers", [{}, NO_CHECKSUM | NO_MD5], ids=["hashes", "no hash in S3"])
def test_rows_changed_at_each_read_are_65_or_69_with_or_without_a_hash_in_s3(
    behind: Store,
    proxy: FaultProxy,
    written: Manifest,
    headers: dict[str, str],
    change: Callable[[bytes, int], bytes],
    exit_code: int,
) -> None:
    proxy.faults["part-00000.jsonl.gz"] = Fault(change, headers=headers)
    with pytest.raises(errors.JobError, match=r"part-00000\.jsonl\.gz") as caught:
        list(written.rows(behind))
    assert caught.value.exit_code == exit_code


def test_a_check_is_made_of_each_read_and_an_equal_second_one_is_not_made_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    checked: list[bytes] = []

    def refuse(data: bytes) -> bytes:
        checked.append(data)
        raise errors.BadDataError(f"{data!r} is wrong")

    with caplog.at_level(logging.INFO), pytest.raises(errors.BadDataError, match="b'a' is"):
        read_checked("film", iter([b"a", b"a", b"b"]).__next__, refuse)
    assert checked == [b"a"]
    with pytest.raises(DamagedTransferError, match="b'a' is wrong; then b'b' is wrong"):
        read_checked("film", iter([b"a", b"b"]).__next__, refuse)
    assert "reading film again: b'a' is wrong" in caplog.text
