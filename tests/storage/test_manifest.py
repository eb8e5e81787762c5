"""Manifests, fingerprints and parts, on a real S3 server."""

from __future__ import annotations

import gzip
import hashlib
import json
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest

from jobs import errors
from jobs.errors import BadDataError
from jobs.settings.config import DownloadConfig, PreprocessConfig
from jobs.storage import manifest, work_folder
from jobs.storage.manifest import LARGEST_ROWS, inflate, read_manifest
from jobs.storage.s3 import Store
from jobs.storage.work_folder import WorkFolder


def build_folder(store: Store, out: str, *, run_id: str = "one", force: bool = False) -> WorkFolder:
    config = DownloadConfig(source="file:///films", out=out, run_id=run_id, force=force)
    return WorkFolder(
        store, config, job="download", folder="raw", recipe="1", extra={"sha256": "f"}
    )


def finish(folder: WorkFolder, total: int) -> manifest.Manifest:
    def work(number: int) -> dict[str, Any]:
        return {"id": f"film{number}", "film": folder.put(f"films/{number}", str(number).encode())}

    rows = list(folder.write_rows(range(total), total, work))
    return folder.finish(counts={"films": len(rows)}, headline={})


def test_rows_are_read_as_they_were_written(store: Store, out: str) -> None:
    written = finish(build_folder(store, out), 21)
    ids = [row["id"] for row in read_manifest(store, written.uri, "download").rows(store)]
    assert ids == [f"film{number}" for number in range(21)]
    assert len(written.parts) == 3, "21 rows in parts of 8"


def test_the_content_hash_is_that_of_keys_bytes_and_sha256_alone(store: Store, out: str) -> None:
    written = finish(build_folder(store, out), 9)
    lines = []
    for part in ("rows/part-00000.jsonl.gz", "rows/part-00001.jsonl.gz"):
        text = gzip.decompress(store.read(written.uri_of(part)))
        lines.append(f"{part}\t{len(text)}\t{hashlib.sha256(text).hexdigest()}\n")
    assert written.content_hash == hashlib.sha256("".join(lines).encode()).hexdigest()


def test_the_same_work_elsewhere_and_later_has_the_same_content_hash(
    store: Store, out: str
) -> None:
    one = finish(build_folder(store, f"{out}/here"), 9)
    two = finish(build_folder(store, f"{out}/elsewhere", run_id="two"), 9)
    assert one.created_by != two.created_by or one.uri != two.uri
    assert one.content_hash == two.content_hash
    assert one.fingerprint == two.fingerprint


def test_a_file_with_timings_is_listed_but_not_hashed(store: Store, out: str) -> None:
    hashes = set()
    for run, seconds in (("a", b"1.5"), ("b", b"2.5")):
        folder = build_folder(store, f"{out}/{run}")
        folder.add_file("history.json", seconds, "application/json", has_timings=True)
        folder.add_file("model", b"weights", "application/octet-stream")
        written = folder.finish(counts={}, headline={})
        assert written.read_file(store, "history.json") == seconds
        hashes.add(written.content_hash)
    assert len(hashes) == 1


def test_work_done_before_is_reused_and_logged(
    store: Store, out: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    assert build_folder(store, out).finished() is None
    written = finish(build_folder(store, out), 3)
    again = build_folder(store, out, run_id="another").finished()
    assert again == written
    assert again and again.reused and not written.reused
    assert f"reused {written.uri}" in caplog.text


def test_force_does_the_work_again_under_a_fingerprint_of_the_run(store: Store, out: str) -> None:
    written = finish(build_folder(store, out), 3)
    forced = build_folder(store, out, run_id="monday", force=True)
    assert forced.finished() is None
    assert finish(forced, 3).content_hash == written.content_hash
    assert build_folder(store, out, run_id="monday", force=True).finished() is not None
    assert build_folder(store, out, run_id="tuesday", force=True).finished() is None


def test_a_fingerprint_changes_with_each_thing_the_bytes_depend_on() -> None:
    base: dict[str, Any] = {
        "job": "train",
        "recipe": "1",
        "inputs": {"a": "h"},
        "config": {"seed": 0},
    }
    changes: list[dict[str, Any]] = [
        {"job": "x"},
        {"recipe": "2"},
        {"inputs": {"a": "i"}},
        {"config": {"seed": 1}},
    ]
    prints = {manifest.fingerprint(**(base | change)) for change in [{}, *changes]}
    assert len(prints) == 5


def test_settings_that_do_not_change_the_bytes_are_outside_the_identity() -> None:
    one = PreprocessConfig(raw="s3://a/manifest.json", out="s3://a", run_id="one")
    two = PreprocessConfig(raw="s3://b/manifest.json", out="s3://b", run_id="two", force=True)
    settings = {"size": 512, "fit": "stretch", "crop_borders": False}
    assert one.identity() == two.identity() == settings


def test_a_killed_job_resumes_at_its_first_missing_part(store: Store, out: str) -> None:
    numbers: list[int] = []

    def dies_at_20(number: int) -> dict[str, Any]:
        if number == 20:
            raise KeyboardInterrupt
        return {"id": number}

    def counts(number: int) -> dict[str, Any]:
        numbers.append(number)
        return {"id": number}

    with pytest.raises(KeyboardInterrupt):
        list(build_folder(store, out).write_rows(range(30), 30, dies_at_20))
    rows = list(build_folder(store, out).write_rows(range(30), 30, counts))
    assert [row["id"] for row in rows] == list(range(30))
    assert sorted(numbers) == list(range(16, 30)), "two parts of 8 were written"


def test_a_new_part_is_finished_once_after_all_rows_before_it_were_consumed(
    store: Store, out: str
) -> None:
    def work(number: int) -> dict[str, Any]:
        return {"id": number}

    list(build_folder(store, out).write_rows(range(24), 24, work, shard=(1, 3)))
    consumed: list[Any] = []
    parts: list[list[Any]] = []

    def finish(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        assert consumed == list(range(rows[0]["id"]))
        parts.append([row["id"] for row in rows])
        return [row | {"part": len(parts)} for row in rows]

    folder = build_folder(store, out)
    for row in folder.write_rows(range(24), 24, work, finish_part=finish):
        consumed.append(row["id"])
    assert parts == [list(range(8)), list(range(16, 24))], "the part in between was written before"
    assert [row.get("part") for row in folder.rows()] == [1] * 8 + [None] * 8 + [2] * 8


def test_shards_share_parts_and_the_last_one_completes_them(store: Store, out: str) -> None:
    def work(number: int) -> dict[str, Any]:
        return {"id": number}

    for index in (2, 0, 1):
        folder = build_folder(store, out)
        rows = list(folder.write_rows(range(40), 40, work, shard=(index, 3)))
        assert all(row["id"] // 8 % 3 == index for row in rows)
        assert folder.is_complete(40) == (index == 1)
    assert [row["id"] for row in build_folder(store, out).rows()] == list(range(40))


def test_two_finishers_of_the_same_content_agree(store: Store, out: str) -> None:
    assert finish(build_folder(store, out), 3) == finish(build_folder(store, out), 3)


def test_a_finisher_with_other_content_is_refused(store: Store, out: str) -> None:
    finish(build_folder(store, out), 3)
    folder = build_folder(store, out)
    folder.add_file("extra", b"more", "text/plain")
    with pytest.raises(errors.ConflictError, match="other content"):
        folder.finish(counts={}, headline={})


def test_rows_changed_after_the_fact_are_refused(store: Store, out: str) -> None:
    written = finish(build_folder(store, out), 3)
    forged = gzip.compress(json.dumps({"id": "forged"}).encode())
    store.write(written.uri_of("rows/part-00000.jsonl.gz"), forged)
    with pytest.raises(errors.BadDataError, match="part-00000"):
        list(written.rows(store))


@pytest.mark.parametrize("text", ['{"schema_version": 99}', "[]", '{"schema_version": 1}'])
def test_json_that_is_not_a_manifest_is_refused(store: Store, out: str, text: str) -> None:
    store.write(f"{out}/manifest.json", text.encode())
    with pytest.raises(errors.BadDataError, match="manifest"):
        read_manifest(store, f"{out}/manifest.json")


def test_the_manifest_of_another_job_is_refused(store: Store, out: str) -> None:
    written = finish(build_folder(store, out), 1)
    with pytest.raises(errors.ConfigError, match="of download: give that of train"):
        read_manifest(store, written.uri, "train")


@pytest.mark.parametrize(("total", "size"), [(1, 8), (704, 11), (20_000, 256), (1_000_000, 256)])
def test_parts_are_few_for_small_sets_and_bounded_for_large_ones(total: int, size: int) -> None:
    assert work_folder.rows_per_part(total) == size


def test_a_part_that_inflates_without_end_is_refused_before_it_is_in_memory() -> None:
    bomb = gzip.compress(bytes(2**28), mtime=0)
    tracemalloc.start()
    try:
        with pytest.raises(BadDataError, match=r"^rows holds more than 1000 bytes"):
            inflate(bomb, "rows", 1000)
        with pytest.raises(BadDataError, match=r"^rows holds more than 16777216 bytes"):
            inflate(bomb, "rows")
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 2.5 * LARGEST_ROWS


def test_a_part_is_inflated_up_to_the_bound_and_damage_is_told() -> None:
    packed = gzip.compress(b"12345", mtime=0)
    assert inflate(packed, "rows", 5) == b"12345"
    for damaged in (packed[:-9], packed[:-4], packed[:12] + b"\xff" + packed[13:], b"", b"12345"):
        with pytest.raises(BadDataError, match=r"^rows (is|holds)"):
            inflate(damaged, "rows", 5)


@pytest.mark.parametrize("changed", ["content_hash", "files"])
def test_a_header_whose_files_do_not_have_its_content_hash_is_refused(
    store: Store, out: str, changed: str
) -> None:
    folder = build_folder(store, out)
    folder.add_file("a.txt", b"a")
    made = folder.finish(counts={}, headline={})
    header = store.read_json(made.uri)
    other = {"content_hash": "f" * 64, "files": []}
    store.write_json(made.uri, header | {changed: other[changed]})
    with pytest.raises(errors.BadDataError, match="edited or damaged") as caught:
        read_manifest(store, made.uri)
    assert caught.value.exit_code == 65


def test_no_manifest_is_written_while_s3_does_not_list_every_part(
    store: Store, out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One empty listing, as an S3 that is not consistent gives, must not make an empty set."""
    folder = build_folder(store, out)
    list(folder.write_rows(range(20), 20, lambda number: {"id": str(number)}))
    monkeypatch.setattr(Store, "list_objects", lambda self, prefix: iter(()))
    attempts: list[Callable[[], object]] = [
        lambda: [folder.finish(counts={}, headline={})],
        lambda: [*folder.rows()],
    ]
    for attempt in attempts:
        with pytest.raises(errors.ServiceUnavailableError, match="S3 lists 0 of 3 parts"):
            attempt()
    monkeypatch.undo()
    assert not store.exists(folder.uri)
