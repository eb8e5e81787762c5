"""Films in S3: the objects below a prefix, listed and read."""

from __future__ import annotations

import csv
import io
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs import download, preprocess
from jobs.errors import BadDataError, ConfigError, JobError, NotFoundError, ServiceUnavailableError
from jobs.local import copy_to_incoming
from jobs.settings.config import DownloadConfig, PreprocessConfig
from jobs.sources.bucket import BucketSource, open_bucket
from jobs.storage.s3 import Store
from tests.support.fault_proxy import Fault, FaultProxy, flip, flip_elsewhere
from tests.support.films import draw_pair, png


def test_an_empty_object_is_a_file_unless_it_marks_a_folder(store: Store, out: str) -> None:
    for name in ("", "images/", "images/cut.png"):
        store.write(f"{out}/films/{name}", b"")
    source = BucketSource(f"{out}/films", store)
    assert source.names() == ["images/cut.png"]
    assert (source.size("images/cut.png"), source.read("images/cut.png")) == (0, b"")


def test_a_prefix_with_folder_markers_alone_is_empty(store: Store, out: str) -> None:
    store.write(f"{out}/films/images/", b"")
    with pytest.raises(NotFoundError, match="no objects below"):
        BucketSource(f"{out}/films", store)


@pytest.mark.parametrize("name", ["films.zip", "film.png"])
def test_one_object_instead_of_a_prefix_is_named_as_one(store: Store, out: str, name: str) -> None:
    store.write(f"{out}/{name}", b"content")
    with pytest.raises(ConfigError, match=f"^{out}/{name} is one object, not a prefix: give the "):
        BucketSource(f"{out}/{name}", store)


def test_an_empty_film_is_quarantined_with_its_reason(store: Store, out: str) -> None:
    for number in range(40):
        film, left, right = draw_pair(number)
        store.write(f"{out}/films/images/{number}.png", png(film))
        store.write(f"{out}/films/masks/{number}.png", png(left | right))
    store.write(f"{out}/films/images/7.png", b"")
    raw = download.run(DownloadConfig(source=f"{out}/films", out=f"{out}/results"), store)
    assert raw.counts["films"] == 40
    config = PreprocessConfig(raw=raw.uri, out=f"{out}/results", size=32)
    processed = preprocess.run(config, store)
    assert processed.counts["quarantined"] == 1
    (row,) = csv.DictReader(io.StringIO(processed.read_file(store, "quarantine.csv").decode()))
    assert (row["origin"], row["reason"]) == ("images/7.png", "undecodable: an empty file")


def test_an_object_that_is_too_large_is_refused_by_name_before_any_is_copied(
    store: Store, out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.write(f"{out}/films/images/a.png", png(draw_pair(1)[0]))
    store.write(f"{out}/films/images/b.png", bytes(2**16 + 1))
    monkeypatch.setattr("jobs.sources.source.LARGEST_FILE", 2**16)
    source = BucketSource(f"{out}/films", store)
    refusal = rf"{out}/films/images/b\.png is too large: .*: leave it out of the source"
    for method in (source.size, source.read):
        with pytest.raises(BadDataError, match=refusal):
            method("images/b.png")
    with pytest.raises(BadDataError, match=refusal):
        download.run(DownloadConfig(source=f"{out}/films", out=f"{out}/results"), store)
    assert list(store.list_objects(f"{out}/results")) == []


def test_a_folder_with_a_large_file_that_is_not_a_film_is_copied(
    store: Store, out: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {"images/a.png": b"film", "tour.mp4": bytes(1001)}
    (tmp_path / "images").mkdir()
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    monkeypatch.setattr("jobs.sources.source.LARGEST_FILE", 1000)
    prefix = copy_to_incoming(store, tmp_path.as_uri(), out)
    assert prefix.startswith(f"{out}/incoming/")
    assert {name: store.read(prefix + name) for name in files} == files


@pytest.mark.parametrize(
    ("name", "start", "kind"),
    [
        ("set.7z", b"7z\xbc\xaf\x27\x1c\0\4", "a 7z archive"),
        ("set.tar.gz", b"\x1f\x8b\x08\0", "a compressed file"),
        ("SET.RAR", b"Rar!\x1a\x07\x01\0", "a RAR archive"),
    ],
)
def test_an_archive_that_is_no_zip_is_refused_as_what_it_is(
    store: Store, out: str, name: str, start: bytes, kind: str
) -> None:
    store.write(f"{out}/{name}", start + bytes(500))
    with pytest.raises(BadDataError, match=f"{out}/{name} is not a zip but {kind}"):
        open_bucket(f"{out}/{name}", store)


def test_a_prefix_whose_name_ends_as_an_archives_is_a_prefix(store: Store, out: str) -> None:
    store.write(f"{out}/set.tar/images/1.png", b"film")
    for uri in (f"{out}/set.tar", f"{out}/set.tar/"):
        assert open_bucket(uri, store).names() == ["images/1.png"]


def test_a_folders_files_keep_the_backslashes_of_their_names_in_s3(
    store: Store, out: str, tmp_path: Path
) -> None:
    """On a server that takes them for slashes too; then the first two would be one object."""
    names = ["a/b.png", "a\\b.png", "c\\d\\e.png", "%5C.png"]
    (tmp_path / "a").mkdir()
    for name in names:
        (tmp_path / name).write_text(name)
    source = BucketSource(copy_to_incoming(store, tmp_path.as_uri(), out), store)
    assert {name: source.read(name).decode() for name in source.names()} == {n: n for n in names}


@pytest.mark.parametrize(
    ("change", "kind", "exit_code"),
    [(flip, BadDataError, 65), (flip_elsewhere, ServiceUnavailableError, 69)],
)
def test_a_member_of_a_zip_is_damaged_where_the_same_bytes_come_twice_else_the_way_is(
    store: Store,
    behind: Store,
    proxy: FaultProxy,
    out: str,
    change: Callable[[bytes, int], bytes],
    kind: type[JobError],
    exit_code: int,
) -> None:
    film, buffer = os.urandom(50_000), io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.png", film)
    store.write(f"{out}/films.zip", buffer.getvalue())
    source = open_bucket(f"{out}/films.zip", behind)
    proxy.faults["films.zip"] = Fault(change, times=1)
    assert source.read("a.png") == film
    proxy.reads.clear()
    proxy.faults["films.zip"] = Fault(change)
    with pytest.raises(kind, match=r"films\.zip: member 'a\.png'") as caught:
        source.read("a.png")
    assert caught.value.exit_code == exit_code
    assert proxy.reads["films.zip"] == 2
