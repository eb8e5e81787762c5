"""S3 over TLS: a certificate that is not trusted ends a job with 77, one line and the remedy."""

from __future__ import annotations

import http.server
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from certifi import where

from jobs.errors import JobError
from jobs.storage.s3 import Store
from tests.support.films import run_job


class TlsServer(NamedTuple):
    """A server that has no bucket, and its certificate, which it signed itself."""

    url: str
    certificate: Path


class NoBucket(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = b"<Error><Code>NoSuchBucket</Code><Message>There is none.</Message></Error>"
        self.send_response(404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
        pass


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsServer]:
    folder = tmp_path_factory.mktemp("tls")
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-nodes", "-newkey", "ec"),
            *("-pkeyopt", "ec_paramgen_curve:prime256v1", "-days", "2", "-subj", "/CN=127.0.0.1"),
            *("-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), NoBucket) as listener:
        # The handshake is left to each connection's thread: one that fails ends that thread alone.
        listener.socket = context.wrap_socket(
            listener.socket, server_side=True, do_handshake_on_connect=False
        )
        listener.handle_error = lambda *_: None  # type: ignore[method-assign]
        thread = threading.Thread(target=listener.serve_forever, daemon=True)
        thread.start()
        yield TlsServer(f"https://127.0.0.1:{listener.server_address[1]}", certificate)
        listener.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def settings(server: TlsServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    # The public authorities: some machines' own bundle is in these variables.
    monkeypatch.setenv("AWS_CA_BUNDLE", where())


def error_of_s3() -> JobError:
    with pytest.raises(JobError) as caught:
        Store().check_bucket("s3://lung/x")
    assert "\n" not in str(caught.value)
    return caught.value


def test_an_s3_whose_certificate_is_not_trusted_ends_a_job_with_one_line_and_its_remedy() -> None:
    arguments = ("download", "--source", "synthetic://phantoms?films=1", "--out", "s3://lung/x")
    process = run_job(*arguments, environment={}, check=False)
    assert process.returncode == 77
    (line,) = process.stderr.splitlines()
    assert "AccessError: s3://lung: S3's certificate is not trusted (" in line
    assert "self-signed certificate" in line.replace("self signed", "self-signed")
    assert line.endswith("give the file of your authority's certificates, PEM, as AWS_CA_BUNDLE")


def test_with_that_remedy_the_s3_answers(
    server: TlsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", str(server.certificate))
    error = error_of_s3()
    assert error.exit_code == 2
    assert "S3 answered NoSuchBucket" in str(error)


@pytest.mark.parametrize("bundle", ["no name", "absent", "folder", "no certificate"])
def test_a_bundle_that_cannot_be_read_is_one_line_with_its_remedy(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, bundle: str
) -> None:
    path = tmp_path / "bundle"
    if bundle == "folder":
        path.mkdir()
    if bundle == "no certificate":
        path.write_text("for Monday")
    monkeypatch.setenv("AWS_CA_BUNDLE", "" if bundle == "no name" else str(path))
    error = error_of_s3()
    assert error.exit_code == 77
    assert "as AWS_CA_BUNDLE" in str(error)
