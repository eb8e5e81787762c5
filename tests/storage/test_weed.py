"""What `weed` needs to start, and what its absence says."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.errors import ConfigError
from jobs.storage import weed
from jobs.storage.s3_client import S3Settings

SETTINGS = S3Settings("http://127.0.0.1:20000", "access", "secret")


def test_without_openssl_the_error_names_it_and_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match=r"no `openssl` on the PATH: .*apt-get install openssl"):
        weed.start(tmp_path, "127.0.0.1", SETTINGS, tmp_path)


def test_an_openssl_that_fails_is_quoted_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    openssl = tmp_path / "openssl"
    openssl.write_text("#!/bin/sh\necho 'no curve' >&2\necho 'of that name' >&2\nexit 1\n")
    openssl.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    with pytest.raises(ConfigError, match=r"made no certificate: no curve of that name$"):
        weed.start(tmp_path, "127.0.0.1", SETTINGS, tmp_path)


def test_a_server_has_eight_ports_four_of_them_for_grpc() -> None:
    assert sorted(weed.ports(8333)) == [8333, 8334, 8335, 8336, 18333, 18334, 18335, 18336]
