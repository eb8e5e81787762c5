"""The embedded S3 server's folders: private, swept of what killed owners left, named when full."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import stat
import tempfile
from pathlib import Path
from typing import NamedTuple

import pytest

from jobs.errors import AccessError, ConfigError, ServiceUnavailableError
from jobs.storage.server_folder import disk_errors_named, make_private, scratch_folder


class Usage(NamedTuple):
    total: int
    used: int
    free: int


def left_folder(place: Path, name: str, pid: str) -> Path:
    folder = place / f"lung-s3-{name}"
    folder.mkdir()
    (folder / "owner").write_text(pid)
    (folder / "key.pem").write_text("key")
    return folder


def test_a_start_removes_what_killed_owners_left_and_nothing_of_living_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    killed = left_folder(tmp_path, "killed", "20\n")
    alive = left_folder(tmp_path, "alive", "40\n")
    starting = left_folder(tmp_path, "starting", "")
    foreign = tmp_path / "lung-s3-without-owner"
    foreign.mkdir()
    with (alive / "owner").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with scratch_folder() as own:
            left = {own.name, alive.name, starting.name, foreign.name}
            assert {path.name for path in tmp_path.iterdir()} == left
    assert not killed.exists() and not own.exists()


def test_files_of_an_earlier_version_are_closed_to_other_users(tmp_path: Path) -> None:
    folder = tmp_path / "s3"
    (folder / "data" / "filerldb2").mkdir(parents=True)
    (folder / "data" / "lung_1.dat").write_bytes(b"film")
    (folder / "data" / "filerldb2" / "LOG").write_bytes(b"names")
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o777)
    make_private(folder)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (folder, *folder.rglob("*"))}
    assert modes == {
        "s3": 0o700,
        "data": 0o700,
        "filerldb2": 0o700,
        "lung_1.dat": 0o600,
        "LOG": 0o600,
    }


def test_a_full_disk_is_named_with_its_folder_and_the_space_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(36_000_000, 35_500_000, 500_000))
    with pytest.raises(ServiceUnavailableError) as caught, disk_errors_named(tmp_path):
        raise ServiceUnavailableError("s3://lung/a: S3 answered InternalError: check its address")
    assert str(caught.value).startswith(
        f"no space on the disk of {tmp_path}: 0.5 MB of 36.0 MB are free: free some, or"
    )
    assert str(caught.value).endswith("(s3://lung/a: S3 answered InternalError)")


def test_an_error_beside_space_enough_stays_what_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**9, 10**8, 9 * 10**8))
    error = ServiceUnavailableError("https://films.example: does not answer: try again")
    with pytest.raises(ServiceUnavailableError) as caught, disk_errors_named(tmp_path):
        raise error
    assert caught.value is error


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_file_that_a_full_disk_refuses_is_named(tmp_path: Path, code: int) -> None:
    path = tmp_path / "local" / "masks" / "a.png"
    with pytest.raises(ServiceUnavailableError) as caught, disk_errors_named(tmp_path):
        raise OSError(code, os.strerror(code), str(path))
    assert str(caught.value).startswith(f"no space on the disk of {path}: ")


def test_a_folder_where_a_file_is_to_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "skipped.csv").mkdir()
    with pytest.raises(ConfigError, match=r"skipped\.csv': remove it"), disk_errors_named(tmp_path):
        (tmp_path / "skipped.csv").write_bytes(b"")


def test_a_folder_without_the_right_to_write_is_an_access_error(tmp_path: Path) -> None:
    with pytest.raises(AccessError, match=r"'/films'.*give --folder"), disk_errors_named(tmp_path):
        raise PermissionError(errno.EACCES, "Permission denied", "/films")


@pytest.mark.parametrize("below", ["", "deeper"])
def test_a_folder_below_a_file_is_a_wrong_setting_that_is_named(tmp_path: Path, below: str) -> None:
    (tmp_path / "notes").write_text("x")
    folder = tmp_path / "notes" / below / ".s3"
    with pytest.raises(ConfigError, match=f"^{folder}: .*Not a directory.*: give another --folder"):
        make_private(folder)
