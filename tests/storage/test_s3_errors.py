"""What S3, other servers and missing credentials answer: exit code, S3's own words, one remedy."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.utils import formatdate
from pathlib import Path
from time import time

import pytest

from jobs.errors import JobError
from jobs.storage.s3 import Store

ERROR = "<Error><Code>{}</Code><Message>{}</Message></Error>"
SSO = """sso_start_url = https://h.example
sso_region = us-east-1
sso_account_id = 1
sso_role_name = r"""
ROLE = "role_arn = arn:aws:iam::1:role/r"
Answer = Callable[[str], tuple[int, str]]


@contextmanager
def serving(answer: Answer, date: float | None = None) -> Iterator[str]:
    """A server whose status and body `answer` gives for a method; its URL."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def respond(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, body = answer(self.command)
            self.send_response_only(status)
            self.send_header("Date", formatdate(time() if date is None else date, usegmt=True))
            self.send_header("Location", "http://127.0.0.1:9/elsewhere")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body.encode())

        do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = respond  # noqa: N815

        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    monkeypatch.setenv("AWS_RETRY_MODE", "standard")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))


def error_of(
    monkeypatch: pytest.MonkeyPatch, url: str, operation: Callable[[Store], object]
) -> JobError:
    monkeypatch.setenv("AWS_ENDPOINT_URL", url)
    with pytest.raises(JobError) as caught:
        operation(Store())
    assert "\n" not in str(caught.value)
    return caught.value


def read(store: Store) -> object:
    return store.read("s3://lung/film.png")


def check(store: Store) -> None:
    store.check_bucket("s3://lung/pipeline")


@pytest.mark.parametrize(
    ("status", "code", "exit_code", "remedy"),
    [
        (403, "InvalidObjectState", 65, "archived"),
        (403, "QuotaExceeded", 69, "full"),
        (507, "XMinioStorageFull", 69, "full"),
        (429, "TooManyRequests", 69, "takes no more requests now: wait"),
        (503, "SlowDown", 69, "takes no more requests now: wait"),
        (599, "SomethingNew", 69, "start again"),
        (501, "NotImplemented", 2, "its message says why"),
        (400, "SomethingOdd", 2, "its message says why"),
        (400, "KMS.DisabledException", 77, "KMS"),
        (403, "RequestTimeTooSkewed", 77, "clock"),
        (403, "ExpiredToken", 77, "expired"),
        (403, "AccessDenied", 77, "AWS_ACCESS_KEY_ID"),
        (404, "NoSuchBucket", 2, "the bucket must exist"),
        (412, "PreconditionFailed", 75, "another writer"),
        (409, "OperationAborted", 75, "another writer"),
    ],
)
def test_each_answer_has_its_exit_code_its_own_words_and_a_remedy(
    keys: None,
    monkeypatch: pytest.MonkeyPatch,
    status: int,
    code: str,
    exit_code: int,
    remedy: str,
) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    with serving(lambda method: (status, ERROR.format(code, "The words of S3."))) as url:
        error = error_of(monkeypatch, url, read)
    assert error.exit_code == exit_code
    assert f"S3 answered {code} to GetObject: The words of S3: " in str(error)
    assert remedy in str(error).partition("The words of S3: ")[2]


@pytest.mark.parametrize("operation", [check, read])
@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_server_that_redirects_is_no_s3(
    keys: None,
    monkeypatch: pytest.MonkeyPatch,
    status: int,
    operation: Callable[[Store], object],
) -> None:
    with serving(lambda method: (status, "")) as url:
        error = error_of(monkeypatch, url, operation)
    assert error.exit_code == 2
    assert "no S3 answers there: check AWS_ENDPOINT_URL" in str(error)


@pytest.mark.parametrize("body", ["", "<html><body>Welcome</body></html>", "<html>cut", "{}"])
def test_a_page_in_place_of_a_listing_is_no_s3(
    keys: None, monkeypatch: pytest.MonkeyPatch, body: str
) -> None:
    with serving(lambda method: (200, body)) as url:
        error = error_of(monkeypatch, url, check)
    assert error.exit_code == 2
    assert "no S3 answers there" in str(error)


def test_an_object_without_an_etag_is_no_s3s(keys: None, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(lambda method: (200, "")) as url:
        error = error_of(monkeypatch, url, lambda store: store.stat("s3://lung/film.png"))
    assert error.exit_code == 2


def test_a_login_that_a_proxy_asks_for_is_access_refused(
    keys: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(lambda method: (401, "")) as url:
        error = error_of(monkeypatch, url, check)
    assert error.exit_code == 77
    assert "S3 answered 401" in str(error) and "login" in str(error)


@pytest.mark.parametrize(("seconds", "is_clock"), [(-7200, True), (7200, True), (-60, False)])
def test_a_wrong_clock_is_found_by_the_date_of_a_refusal_without_words(
    keys: None, monkeypatch: pytest.MonkeyPatch, seconds: float, is_clock: bool
) -> None:
    with serving(lambda method: (403, ""), date=time() + seconds) as url:
        error = error_of(monkeypatch, url, lambda store: store.stat("s3://lung/film.png"))
    assert error.exit_code == 77
    assert ("this machine's clock" in str(error)) is is_clock


@pytest.mark.parametrize(
    ("profile", "remedy"),
    [
        ("credential_process = false", "credential_process"),
        ("credential_process = echo text", "credential_process"),
        (SSO, "aws sso login"),
        (f"{ROLE}\nsource_profile = other", "mend the profile"),
        (f"{ROLE}\ncredential_source = Moon", "mend the profile"),
        (f"{ROLE}\nweb_identity_token_file = /none/token", "AWS_WEB_IDENTITY_TOKEN_FILE"),
    ],
)
def test_each_way_to_have_no_credentials_is_access_refused_with_its_own_remedy(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, profile: str, remedy: str
) -> None:
    other = "[profile other]\nrole_arn = arn:aws:iam::1:role/r\nsource_profile = mine\n"
    (tmp_path / "config").write_text(f"[profile mine]\n{profile}\n{other}")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_PROFILE", "mine")
    monkeypatch.setenv("HOME", str(tmp_path))
    error = error_of(monkeypatch, "http://127.0.0.1:9", check)
    assert error.exit_code == 77
    assert "there are no S3 credentials" in str(error) and remedy in str(error)


def test_a_conditional_put_that_s3_asks_to_repeat_is_repeated(
    keys: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """AWS answers 409 to a put beside another of the same key."""
    conflict = ERROR.format("ConditionalRequestConflict", "Please retry.")
    answers = iter([(409, conflict), (409, conflict), (200, "")])
    puts: list[str] = []

    def answer(method: str) -> tuple[int, str]:
        if method != "PUT":
            return 200, "<ListBucketResult><Name>lung</Name></ListBucketResult>"
        puts.append(method)
        return next(answers)

    monkeypatch.setattr("jobs.storage.s3.has_conditional_put", lambda *place: True)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    with serving(answer) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        with pytest.raises(KeyError, match="ETag"):  # the stand-in sends none: the put succeeded
            Store().write("s3://lung/a", b"1", if_absent=True)
    assert len(puts) == 3
