"""A Kaggle dataset, read from Kaggle's storage: `kaggle://OWNER/NAME[@VERSION]`.

kagglehub finds the credentials and signs in. It does not read the archive, because kagglehub 1.0.2
never retries, appends the error page of an expired storage URL to the file, and unpacks the archive
to disk. Storage serves ranges, so the archive is read like any zip at a URL, with a new URL when
one has expired; a job that was killed reads only the films that it had not copied. Each member's
CRC-32 is tested. The md5 of the archive is tested only after a whole download, which storage
without ranges requires.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from json import JSONDecodeError
from pathlib import Path
from threading import Lock
from typing import Any

from jobs.errors import AccessError, ConfigError, JobError, NotFoundError
from jobs.sources.archive import ZipSource
from jobs.sources.retries import Retries
from jobs.sources.web import TIMEOUT, WebFile, open_file
from jobs.sources.zip_member import DamagedError

URI = re.compile(r"kaggle://([A-Za-z0-9_-]+/[A-Za-z0-9_-]+)(?:@([1-9][0-9]*))?")
TOKEN_FORMS = (
    "create a token at https://www.kaggle.com/settings/api and give it as KAGGLE_API_TOKEN (the "
    "token or a file holding it), ~/.kaggle/access_token, KAGGLE_USERNAME with KAGGLE_KEY, or "
    "~/.kaggle/kaggle.json"
)


class KaggleSource:
    """One version of a dataset; its members are read from the archive and their CRC-32s tested.

    Raises ConfigError for a URI of another form. Reading raises AccessError (no valid token, terms
    not accepted), NotFoundError, and ServiceUnavailableError after the last retry.
    """

    def __init__(self, uri: str, scratch: Path) -> None:
        match = URI.fullmatch(uri)
        if not match:
            raise ConfigError(f"source {uri!r} has the wrong form: give kaggle://OWNER/NAME[@3]")
        self.handle: str = match[1]
        self.retries = Retries(f"Kaggle dataset {self.handle}", self._refusal)
        self._version = int(match[2] or 0)
        self._scratch = scratch
        self._archive: ZipSource | None = None
        self._lock = Lock()

    def identity(self) -> dict[str, str]:
        """The handle and the version; without @VERSION one small request for the current one."""
        with self._lock:
            return {"handle": self.handle, "version": str(self._resolve_version())}

    def names(self) -> list[str]:
        return self._open_archive().names()

    def size(self, name: str) -> int:
        return self._open_archive().size(name)

    def read(self, name: str) -> bytes:
        return self._open_archive().read(name)

    def close(self) -> None:
        if self._archive:
            self._archive.close()

    def _open_archive(self) -> ZipSource:
        with self._lock:
            if self._archive is None:
                self._resolve_version()
                self._archive = open_file(WebFile(self.retries, self._request_url), self._scratch)
            return self._archive

    def _resolve_version(self) -> int:
        self._version = self._version or self.retries.run(self._request_version)
        return self._version

    def _request_version(self) -> int:
        from kagglesdk.datasets.types.dataset_api_service import (  # type: ignore[import-untyped]
            ApiGetDatasetRequest,
        )

        request = ApiGetDatasetRequest()
        request.owner_slug, request.dataset_slug = self.handle.split("/")
        try:
            with _client() as client:
                dataset = client.datasets.dataset_api_client.get_dataset(request)
        except JSONDecodeError:
            raise DamagedError("the response is not JSON; it may be a proxy's page") from None
        if not dataset.current_version_number:
            raise DamagedError("the response names no current version")
        return int(dataset.current_version_number)

    def _request_url(self) -> str:
        """The archive's URL in storage, whose signature is valid for some hours."""
        from kagglesdk.datasets.types.dataset_api_service import ApiDownloadDatasetRequest

        request = ApiDownloadDatasetRequest()
        request.owner_slug, request.dataset_slug = self.handle.split("/")
        request.dataset_version_number = self._version
        with (
            _client(allow_redirects=False) as client,
            client.datasets.dataset_api_client.download_dataset(request) as response,
        ):
            if "Location" not in response.headers:
                raise DamagedError("the response names no storage URL")
            return str(response.headers["Location"])

    def _refusal(self, error: Exception) -> JobError | None:
        """The error that ends the job at once, or None if another attempt may succeed."""
        response = getattr(error, "response", None)
        # GET requests go to storage alone, which refuses an expired URL; the API is all POST.
        if response is None or response.request.method == "GET":
            return None
        page = f"https://www.kaggle.com/datasets/{self.handle}"
        status = response.status_code
        if status == 401:
            return AccessError(f"Kaggle refuses the credentials (401): {TOKEN_FORMS}")
        if status == 403:
            return AccessError(
                f"Kaggle refuses {self.handle} (403): accept the terms at {page} with the token's "
                "account, or ask its owner for access"
            )
        if status == 404:
            return NotFoundError(
                f"Kaggle has no such dataset or version as {self.handle} (404): check {page}"
            )
        if 400 <= status < 500 and status not in (408, 429):
            return ConfigError(f"Kaggle refuses to serve {self.handle} ({status}): check {page}")
        return None


@contextmanager
def _client(*, allow_redirects: bool = True) -> Iterator[Any]:
    """A signed-in client with timeouts; kagglesdk 0.1.37 sets none."""
    from kagglehub.clients import build_kaggle_client  # type: ignore[import-untyped]
    from kagglehub.config import get_kaggle_credentials  # type: ignore[import-untyped]

    try:
        login = get_kaggle_credentials()
        secrets = [login.username, login.key, login.api_key] if login else []
        if not all(re.fullmatch(r"[!-~]*", secret or "") for secret in secrets):
            raise ValueError("a space, a line break or a character outside ASCII")
        client = build_kaggle_client().__enter__()
    except (OSError, ValueError, TypeError) as error:
        # kagglehub takes the token for a file's name first, so an OSError's text would show it.
        problem = type(error).__name__ if isinstance(error, OSError) else error
        raise AccessError(f"Kaggle credentials cannot be read ({problem}): {TOKEN_FORMS}") from None
    session = client.http_client()._session
    session.send = partial(session.send, timeout=TIMEOUT, allow_redirects=allow_redirects)
    with session:
        yield client
