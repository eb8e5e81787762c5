"""A Kaggle dataset, read where it is stored: `kaggle://OWNER/NAME[@VERSION]`.

kagglehub finds the credentials and signs in. The archive is read here, because kagglehub 1.0.2
retries nothing, appends the error page of an expired storage URL to the file, and unpacks to disk
what can be read from the archive. Storage serves ranges, so it is read as any zip behind a URL is,
with a fresh URL where one has expired: a job that was killed goes on with the films it had not
put. Each member is then tested against its CRC-32; the md5 of the whole, only where storage has no
ranges and it is downloaded whole.
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
    """One version of a dataset; its members are read from the archive, each with its CRC tested.

    Raises ConfigError for a wrong URI. Reading raises AccessError (no valid token, terms not
    accepted), NotFoundError, and ServiceUnavailableError once retries are exhausted.
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
        """The handle and the version, the current one where none is given: one small request."""
        with self._lock:
            return {"handle": self.handle, "version": str(self._known_version())}

    def names(self) -> list[str]:
        return self._opened().names()

    def size(self, name: str) -> int:
        return self._opened().size(name)

    def read(self, name: str) -> bytes:
        return self._opened().read(name)

    def close(self) -> None:
        if self._archive:
            self._archive.close()

    def _opened(self) -> ZipSource:
        with self._lock:
            if self._archive is None:
                self._known_version()
                self._archive = open_file(WebFile(self.retries, self._ask_url), self._scratch)
            return self._archive

    def _known_version(self) -> int:
        self._version = self._version or self.retries.run(self._ask_version)
        return self._version

    def _ask_version(self) -> int:
        from kagglesdk.datasets.types.dataset_api_service import (  # type: ignore[import-untyped]
            ApiGetDatasetRequest,
        )

        request = ApiGetDatasetRequest()
        request.owner_slug, request.dataset_slug = self.handle.split("/")
        try:
            with _client() as client:
                dataset = client.datasets.dataset_api_client.get_dataset(request)
        except JSONDecodeError:
            raise DamagedError("the answer is not JSON but perhaps a proxy's page") from None
        if not dataset.current_version_number:
            raise DamagedError("the answer names no current version")
        return int(dataset.current_version_number)

    def _ask_url(self) -> str:
        """Storage's URL of the archive, signed for some hours."""
        from kagglesdk.datasets.types.dataset_api_service import ApiDownloadDatasetRequest

        request = ApiDownloadDatasetRequest()
        request.owner_slug, request.dataset_slug = self.handle.split("/")
        request.dataset_version_number = self._version
        with (
            _client(allow_redirects=False) as client,
            client.datasets.dataset_api_client.download_dataset(request) as answer,
        ):
            if "Location" not in answer.headers:
                raise DamagedError("the answer names no storage URL")
            return str(answer.headers["Location"])

    def _refusal(self, error: Exception) -> JobError | None:
        """The error that ends the job at once, or None where asking again can help."""
        response = getattr(error, "response", None)
        # The API is posted to; storage is got from, and its refusal means that the URL expired.
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
    """A signed-in client with time-outs, of which kagglesdk 0.1.37 sets none."""
    from kagglehub.clients import build_kaggle_client  # type: ignore[import-untyped]
    from kagglehub.config import get_kaggle_credentials  # type: ignore[import-untyped]

    try:
        found = get_kaggle_credentials()
        secrets = [found.username, found.key, found.api_key] if found else []
        if not all(re.fullmatch(r"[!-~]*", secret or "") for secret in secrets):
            raise ValueError("a space, a line break or a character outside ASCII")
        client = build_kaggle_client().__enter__()
    except (OSError, ValueError, TypeError) as error:
        # The text of an OSError here, and of what HTTP says of a bad header, would show the token.
        problem = type(error).__name__ if isinstance(error, OSError) else error
        raise AccessError(f"Kaggle credentials cannot be read ({problem}): {TOKEN_FORMS}") from None
    session = client.http_client()._session
    session.send = partial(session.send, timeout=TIMEOUT, allow_redirects=allow_redirects)
    with session:
        yield client
