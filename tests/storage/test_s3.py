"""Store against a real S3 server; the oracles are plain boto3 and hashlib."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import PartialCredentialsError

from jobs import errors
from jobs.storage import s3
from jobs.storage.s3 import Store, split_uri


@pytest.fixture
def plain(s3: dict[str, str]) -> Any:
    """A client of boto3's, independent of `Store`."""
    return boto3.session.Session(
        aws_access_key_id=s3["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=s3["AWS_SECRET_ACCESS_KEY"],
        region_name="us-east-1",
    ).client("s3", endpoint_url=s3["AWS_ENDPOINT_URL"])


def test_another_client_reads_the_bytes_and_type_that_were_written(
    store: Store, out: str, plain: Any
) -> None:
    store.write(f"{out}/a", b"lungs", content_type="text/plain")
    bucket, key = split_uri(f"{out}/a")
    answer = plain.get_object(Bucket=bucket, Key=key)
    assert answer["Body"].read() == b"lungs"
    assert answer["ContentType"] == "text/plain"


def test_a_conditional_put_has_one_winner_among_many_threads(store: Store, out: str) -> None:
    start = threading.Barrier(16)

    def attempt(number: int) -> int | None:
        start.wait()
        try:
            store.write(f"{out}/lock", str(number).encode(), if_absent=True)
        except errors.ConflictError:
            return None
        return number

    with ThreadPoolExecutor(16) as pool:
        winners = [number for number in pool.map(attempt, range(16)) if number is not None]
    assert len(winners) == 1
    assert store.read(f"{out}/lock") == str(winners[0]).encode()


def test_a_second_writer_with_a_stale_etag_is_refused(store: Store, out: str) -> None:
    first = store.write(f"{out}/last.pt", b"mine")
    store.write(f"{out}/last.pt", b"theirs")
    with pytest.raises(errors.ConflictError) as caught:
        store.write(f"{out}/last.pt", b"mine again", if_etag=first)
    assert caught.value.exit_code == 75
    assert store.read(f"{out}/last.pt") == b"theirs"


def test_without_conditional_put_a_store_logs_it_once_and_writes(
    store: Store, out: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real = store._client.put_object

    def ignores_conditions(**request: Any) -> Any:
        request.pop("IfNoneMatch", None)
        request.pop("IfMatch", None)
        return real(**request)

    monkeypatch.setattr(store._client, "put_object", ignores_conditions)
    store.write(f"{out}/a", b"1", if_absent=True)
    store.write(f"{out}/a", b"2", if_absent=True)
    assert store.read(f"{out}/a") == b"2"
    assert [r.message for r in caplog.records].count(
        "This S3 has no conditional put: locking is off"
    ) == 1


def test_the_probe_for_conditional_puts_is_deleted(store: Store, out: str) -> None:
    store.write(f"{out}/a", b"1", if_absent=True)
    assert [item.uri for item in store.list_objects(out)] == [f"{out}/a"]


def test_changed_bytes_are_refused_by_their_sha256(store: Store, out: str) -> None:
    digest = hashlib.sha256(b"film").hexdigest()
    store.write(f"{out}/film.png", b"film")
    assert store.read(f"{out}/film.png", sha256=digest) == b"film"
    store.write(f"{out}/film.png", b"fiim")
    with pytest.raises(errors.BadDataError, match=r"film\.png does not match its manifest"):
        store.read(f"{out}/film.png", sha256=digest)


@pytest.mark.slow
def test_a_listing_goes_over_every_page_in_key_order(store: Store, out: str) -> None:
    count = store.write_many((f"{out}/many/{n:05d}", b"x") for n in range(1203))
    listed = [item.uri for item in store.list_objects(f"{out}/many/")]
    assert count == 1203
    assert listed == [f"{out}/many/{n:05d}" for n in range(1203)]


def test_many_objects_are_read_in_the_order_of_their_uris(store: Store, out: str) -> None:
    uris = [f"{out}/{n}" for n in range(40)]
    store.write_many((uri, uri.encode()) for uri in uris)
    assert list(store.read_many(reversed(uris))) == [uri.encode() for uri in reversed(uris)]


@pytest.mark.slow
def test_deleting_more_than_one_batch_leaves_nothing(store: Store, out: str) -> None:
    uris = [f"{out}/{n}" for n in range(1001)]
    store.write_many((uri, b"") for uri in uris)
    store.delete(uris)
    assert list(store.list_objects(out)) == []


def refusing(code: str) -> Any:
    """A DeleteObjects that S3 answers with 200, and with an error for each key."""

    def delete_objects(Delete: dict[str, Any], **_: Any) -> Any:  # noqa: N803
        keys = [item["Key"] for item in Delete["Objects"]]
        return {"Errors": [{"Key": key, "Code": code, "Message": "no"} for key in keys]}

    return delete_objects


@pytest.mark.parametrize(
    ("code", "kind"),
    [("AccessDenied", errors.AccessError), ("InternalError", errors.ServiceUnavailableError)],
)
def test_a_key_that_cannot_be_deleted_is_named_in_the_error(
    store: Store,
    out: str,
    monkeypatch: pytest.MonkeyPatch,
    code: str,
    kind: type[errors.JobError],
) -> None:
    monkeypatch.setattr(store._client, "delete_objects", refusing(code))
    with pytest.raises(kind, match=f"^{out}/a: S3 answered {code} to DeleteObjects"):
        store.delete([f"{out}/a", f"{out}/b"])


def test_a_probe_that_may_not_be_deleted_is_logged_and_prevents_no_write(
    store: Store, out: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(store._client, "delete_objects", refusing("AccessDenied"))
    store.write(f"{out}/a", b"1", if_absent=True)
    with pytest.raises(errors.ConflictError):
        store.write(f"{out}/a", b"2", if_absent=True)
    (message,) = [r.message for r in caplog.records if "probe" in r.message]
    assert f"{out}/.probe-" in message and "AccessDenied" in message


def test_a_large_file_is_uploaded_in_parts_and_read_whole(
    store: Store, out: str, plain: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "MULTIPART_BYTES", 2**20)
    (tmp_path / "big").write_bytes(data := os.urandom(20 * 2**20))
    store.upload(tmp_path / "big", f"{out}/big")
    assert store.read(f"{out}/big") == data
    bucket, key = split_uri(f"{out}/big")
    etag = plain.head_object(Bucket=bucket, Key=key)["ETag"]
    assert etag.strip('"').endswith("-3"), "three parts of 8 MiB were expected"


def test_an_upload_that_fails_midway_leaves_no_parts_behind(
    store: Store, out: str, plain: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "MULTIPART_BYTES", 2**20)
    (tmp_path / "big").write_bytes(bytes(20 * 2**20))
    real = store._client.upload_part

    def fails_on_the_second(**request: Any) -> Any:
        if request["PartNumber"] == 2:
            raise ConnectionResetError("cable pulled")
        return real(**request)

    monkeypatch.setattr(store._client, "upload_part", fails_on_the_second)
    with pytest.raises((errors.JobError, ConnectionResetError)):
        store.upload(tmp_path / "big", f"{out}/big")
    bucket, key = split_uri(f"{out}/big")
    assert not store.exists(f"{out}/big")
    assert not plain.list_multipart_uploads(Bucket=bucket, Prefix=key).get("Uploads")


@pytest.mark.parametrize(
    ("uri", "kind", "code"),
    [
        ("s3://lung/absent", errors.NotFoundError, 2),
        ("s3://no-such-bucket/a", errors.NotFoundError, 2),
        ("https://lung/a", errors.ConfigError, 2),
        ("s3:///a", errors.ConfigError, 2),
        ("s3://Bad_Bucket!/a", errors.ConfigError, 2),
    ],
)
def test_a_wrong_address_is_named_with_its_exit_code(
    store: Store, uri: str, kind: type[errors.JobError], code: int
) -> None:
    with pytest.raises(kind) as caught:
        store.read(uri)
    assert uri in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == code


def test_a_wrong_secret_is_access_refused(
    s3: dict[str, str], store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(errors.AccessError, match="AWS_SECRET_ACCESS_KEY") as caught:
        Store().check_bucket("s3://lung")
    assert caught.value.exit_code == 77


@pytest.mark.parametrize(
    ("name", "value", "kind", "words"),
    [
        ("AWS_SECRET_ACCESS_KEY", "", errors.AccessError, "missing: AWS_SECRET_ACCESS_KEY"),
        ("AWS_PROFILE", "nobody", errors.AccessError, r"profile \(nobody\).*AWS_PROFILE"),
        ("AWS_CONFIG_FILE", __file__, errors.ConfigError, "Unable to parse config file"),
        ("AWS_REGION", "us_east!1", errors.ConfigError, "AWS_REGION.*'us_east!1' is not a region"),
        ("AWS_DEFAULT_REGION", "a b", errors.ConfigError, "AWS_DEFAULT_REGION.*'a b' is not a"),
        ("AWS_ENDPOINT_URL", "s3.lan", errors.ConfigError, "AWS_ENDPOINT_URL 's3.lan' is not a"),
        (
            "AWS_ENDPOINT_URL",
            "http://s3:80a",
            errors.ConfigError,
            "http://s3:80a.*AWS_ENDPOINT_URL",
        ),
    ],
)
def test_a_wrong_setting_is_named_with_its_exit_code(
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    value: str,
    kind: type[errors.JobError],
    words: str,
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(kind, match=words):
        Store().check_bucket("s3://lung")


def test_an_empty_region_means_the_default_region(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "")
    assert Store()._client.meta.region_name == "us-east-1"


def test_credentials_that_prove_partial_at_the_first_request_are_access_refused(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def half(**_: Any) -> Any:
        raise PartialCredentialsError(provider="assume-role", cred_var="aws_secret_access_key")

    monkeypatch.setattr(store._client, "list_objects_v2", half)
    with pytest.raises(errors.AccessError, match="missing: aws_secret_access_key"):
        store.check_bucket("s3://lung")


def test_an_absent_server_is_a_service_unavailable(
    s3: dict[str, str], store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(errors.ServiceUnavailableError, match=r"127\.0\.0\.1:9") as caught:
        Store().read("s3://lung/a")
    assert caught.value.exit_code == 69


def test_a_body_cut_short_is_read_again_and_counted(
    store: Store, out: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store.write(f"{out}/film", b"whole")
    real = store._client.get_object
    failures: Iterator[bool] = iter([True, True, False])

    def cut(**request: Any) -> Any:
        answer = real(**request)
        if next(failures):
            answer["Body"].read = _raise_reset
        return answer

    monkeypatch.setattr(store._client, "get_object", cut)
    assert store.read(f"{out}/film") == b"whole"
    assert store.retries == 2
    assert sum("retried" in record.message for record in caplog.records) == 2


def _raise_reset() -> bytes:
    raise ConnectionResetError("cut")


def test_json_that_is_not_json_is_bad_data(store: Store, out: str) -> None:
    store.write(f"{out}/manifest.json", b"<html>")
    with pytest.raises(errors.BadDataError, match="does not hold JSON"):
        store.read_json(f"{out}/manifest.json")


def test_json_never_holds_a_nan(store: Store, out: str) -> None:
    with pytest.raises(ValueError, match="Out of range float"):
        store.write_json(f"{out}/a.json", {"dice": float("nan")})
