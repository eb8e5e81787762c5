"""Films in S3: what is listed below a prefix, and what is read of it."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest

from jobs import download, preprocess
from jobs.errors import BadDataError, NotFoundError
from jobs.local import copy_to_incoming
from jobs.settings.config import DownloadConfig, PreprocessConfig
from jobs.sources.bucket import BucketSource
from jobs.storage.s3 import Store
from tests.support.films import draw_pair, png


def test_an_empty_object_is_a_file_and_the_marker_of_a_folder_is_none(
    store: Store, out: str
) -> None:
    for name in ("", "images/", "images/cut.png"):
        store.write(f"{out}/films/{name}", b"")
    source = BucketSource(f"{out}/films", store)
    assert source.names() == ["images/cut.png"]
    assert (source.size("images/cut.png"), source.read("images/cut.png")) == (0, b"")


def test_a_prefix_of_markers_alone_is_empty(store: Store, out: str) -> None:
    store.write(f"{out}/films/images/", b"")
    with pytest.raises(NotFoundError, match="nothing below"):
        BucketSource(f"{out}/films", store)


def test_a_film_whose_upload_was_cut_to_nothing_is_quarantined_with_its_reason(
    store: Store, out: str
) -> None:
    for number in range(40):
        film, left, right = draw_pair(number)
        store.write(f"{out}/films/images/{number}.png", png(film))
        store.write(f"{out}/films/masks/{number}.png", png(left | right))
    store.write(f"{out}/films/images/7.png", b"")
    raw = download.run(DownloadConfig(source=f"{out}/films", out=f"{out}/made"), store)
    assert raw.counts["films"] == 40
    config = PreprocessConfig(raw=raw.uri, out=f"{out}/made", size=32)
    made = preprocess.run(config, store)
    assert made.counts["quarantined"] == 1
    (row,) = csv.DictReader(io.StringIO(made.read_file(store, "quarantine.csv").decode()))
    assert (row["origin"], row["reason"]) == ("images/7.png", "undecodable: an empty file")


def test_an_object_too_large_to_be_read_is_refused_by_name_before_any_is_copied(
    store: Store, out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.write(f"{out}/films/images/a.png", png(draw_pair(1)[0]))
    store.write(f"{out}/films/images/b.png", bytes(2**16 + 1))
    monkeypatch.setattr("jobs.sources.source.LARGEST_FILE", 2**16)
    source = BucketSource(f"{out}/films", store)
    refusal = rf"{out}/films/images/b\.png is too large: .*: leave it out of the source"
    for refused in (source.size, source.read):
        with pytest.raises(BadDataError, match=refusal):
            refused("images/b.png")
    with pytest.raises(BadDataError, match=refusal):
        download.run(DownloadConfig(source=f"{out}/films", out=f"{out}/made"), store)
    assert list(store.list_objects(f"{out}/made")) == []


def test_a_large_file_that_is_no_film_does_not_keep_a_folder_from_being_copied(
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
