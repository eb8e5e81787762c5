"""Folders on this machine as sources, and the forms of a source's URI."""

from __future__ import annotations

import hashlib
import os
import shutil
import tracemalloc
import zipfile
from pathlib import Path

import pytest

from jobs.errors import AccessError, BadDataError, ConfigError, NotFoundError
from jobs.sources.archive import ZipSource
from jobs.sources.folder import FolderSource
from jobs.sources.source import LARGEST_FILE, open_source, split_sources
from jobs.storage.s3 import Store

FILES = {"images/a.png": b"film", "images/deep/b c.PNG": b"another", "masks/a.png": b"mask"}


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path / "films", FILES)


@pytest.fixture
def no_store() -> Store:
    """A store without a server, for sources that do not use S3."""
    return Store.__new__(Store)


def test_files_are_listed_sorted_and_read(folder: Path) -> None:
    (folder / "empty folder").mkdir()
    source = FolderSource(folder)
    assert source.names() == sorted(FILES)
    assert {name: source.read(name) for name in source.names()} == FILES


def test_the_identity_depends_on_the_content_and_not_on_the_path(
    folder: Path, tmp_path: Path
) -> None:
    first = FolderSource(folder).identity()
    moved = Path(shutil.copytree(folder, tmp_path / "elsewhere" / "moved"))
    assert FolderSource(moved).identity() == first
    (moved / "masks/a.png").write_bytes(b"MASK")
    assert FolderSource(moved).identity() != first
    (moved / "masks/a.png").write_bytes(b"mask")
    (moved / "masks/a.png").rename(moved / "masks/b.png")
    assert FolderSource(moved).identity() != first


def test_the_identity_is_a_hash_of_names_sizes_and_contents(folder: Path) -> None:
    digest = hashlib.sha256()
    for name, content in sorted(FILES.items()):
        digest.update(f"{name}\0{len(content)}\0".encode() + hashlib.sha256(content).digest())
    assert FolderSource(folder).identity() == {"sha256": digest.hexdigest()}


def test_a_file_that_is_too_large_is_refused_by_name_and_hashed_in_little_memory(
    folder: Path,
) -> None:
    with open(folder / "images/scan.tif", "wb") as file:
        file.truncate(LARGEST_FILE + 1)
    source = FolderSource(folder)
    words = r"images/scan\.tif is too large: 129 MB are over 128"
    for method in (source.size, source.read):
        with pytest.raises(BadDataError, match=words):
            method("images/scan.tif")
    tracemalloc.start()
    source.identity()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**22


def test_a_link_to_a_file_inside_is_followed(folder: Path) -> None:
    (folder / "images/link.png").symlink_to(folder / "images/a.png")
    source = FolderSource(folder)
    assert source.read("images/link.png") == b"film"


def test_links_out_of_the_folder_and_special_files_are_skipped_and_logged(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    outside = write(tmp_path / "outside", {"secret.png": b"secret"})
    (folder / "images/file.png").symlink_to(outside / "secret.png")
    (folder / "linked").symlink_to(outside)
    (folder / "images/broken.png").symlink_to(folder / "nothing.png")
    (folder / "images/loop.png").symlink_to(folder / "images/loop.png")
    os.mkfifo(folder / "pipe.png")
    assert FolderSource(folder).names() == sorted(FILES)
    assert "skipped 5 links out of the folder" in caplog.text
    reasons = FolderSource(folder).skipped
    assert reasons.pop("linked") == "links to a folder that is not listed there"
    assert reasons.pop("images/file.png") == "links out of the folder"
    assert reasons.pop("images/broken.png") == "links that lead nowhere"
    assert reasons.pop("images/loop.png") == "links that lead nowhere"
    assert [*reasons.values()] == ["special files"]


def test_links_that_a_user_chose_are_followed_to_files_and_folders_and_never_in_a_circle(
    folder: Path, tmp_path: Path
) -> None:
    outside = write(tmp_path / "outside", {"ward/film.png": b"film"})
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "one.png").symlink_to(folder / "images/a.png")
    (mine / "ward").symlink_to(outside / "ward")
    (mine / "circle").symlink_to(mine)
    (mine / "broken.png").symlink_to(folder / "nothing.png")
    source = FolderSource(mine, follows_links=True)
    assert source.names() == ["one.png", "ward/film.png"]
    assert [source.read(name) for name in source.names()] == [FILES["images/a.png"], b"film"]
    assert source.skipped == {
        "circle": "links to a folder that is not listed there",
        "broken.png": "links that lead nowhere",
    }


def test_a_folder_of_links_that_are_not_followed_is_refused_with_a_link_and_where_it_leads(
    folder: Path, tmp_path: Path
) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "one.png").symlink_to(folder / "images/a.png")
    with pytest.raises(BadDataError, match=r"1 links out .*one\.png -> .*/images/a\.png: copy"):
        FolderSource(mine)


def test_what_an_earlier_run_wrote_into_the_folder_is_not_listed(folder: Path) -> None:
    write(folder / "out", {"masks/a.png": b"mask", "b.png": b"picture"})
    assert FolderSource(folder, without=[folder / "out"]).names() == sorted(FILES)


def test_a_folder_reached_through_a_link_is_read(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(folder)
    assert FolderSource(tmp_path / "link").names() == sorted(FILES)


def test_a_name_that_is_not_utf8_is_reported(folder: Path) -> None:
    with open(os.fsencode(folder) + b"/\xff.png", "wb"):
        pass
    with pytest.raises(BadDataError, match="not UTF-8: rename"):
        FolderSource(folder)


def test_a_file_that_was_removed_is_reported_by_name(folder: Path) -> None:
    source = FolderSource(folder)
    (folder / "masks/a.png").unlink()
    for method in (source.size, source.read):
        with pytest.raises(BadDataError, match=r"masks/a\.png cannot be read"):
            method("masks/a.png")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_or_folder_without_read_permission_is_an_access_error(folder: Path) -> None:
    (folder / "masks/a.png").chmod(0)
    with pytest.raises(AccessError, match=r"masks/a\.png"):
        FolderSource(folder).read("masks/a.png")
    (folder / "masks").chmod(0)
    with pytest.raises(AccessError, match="masks"):
        FolderSource(folder)
    (folder / "masks").chmod(0o700)


def test_an_absent_folder_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="nowhere"):
        FolderSource(tmp_path / "nowhere")


def test_a_file_uri_names_a_folder_or_a_zip(folder: Path, tmp_path: Path, no_store: Store) -> None:
    path = tmp_path / "films and masks.ZIP"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("images/a.png", b"film")
    write(folder, {"inner.zip": path.read_bytes()})
    source = open_source(f"file://{folder}", no_store, tmp_path)
    assert isinstance(source, FolderSource)
    assert "inner.zip" in source.names()
    for uri in (f"file://{path}", f"file://{path}".replace(" ", "%20")):
        opened = open_source(uri, no_store, tmp_path)
        assert isinstance(opened, ZipSource)
        assert opened.names() == ["images/a.png"]
        opened.close()


def test_an_absent_path_is_not_found(tmp_path: Path, no_store: Store) -> None:
    with pytest.raises(NotFoundError, match=f"{tmp_path}/none.zip does not exist"):
        open_source(f"file://{tmp_path}/none.zip", no_store, tmp_path)


@pytest.mark.parametrize("uri", ["file://data.zip", "file://data/films", "file://./data.zip"])
def test_a_relative_path_is_refused_with_the_absolute_form(
    uri: str, tmp_path: Path, no_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    absolute = tmp_path / uri.removeprefix("file://")
    with pytest.raises(ConfigError, match=f"give file://{absolute}$"):
        open_source(uri, no_store, tmp_path)


@pytest.mark.parametrize(
    "uri", ["ftp://host/films.zip", "synthetic://hearts", "/data/films.zip", "kaggle:owner/name"]
)
def test_an_unknown_scheme_is_refused_with_every_accepted_form(
    uri: str, tmp_path: Path, no_store: Store
) -> None:
    with pytest.raises(ConfigError, match=r"kaggle://.*file:///.*s3://.*synthetic://") as raised:
        open_source(uri, no_store, tmp_path)
    assert uri in str(raised.value)


def test_a_plus_separates_uris_but_not_the_parts_of_a_path() -> None:
    assert split_sources("kaggle://a/b@2+file:///c+d/e.zip+s3://f/g") == [
        "kaggle://a/b@2",
        "file:///c+d/e.zip",
        "s3://f/g",
    ]
