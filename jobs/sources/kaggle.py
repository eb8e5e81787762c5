"""A Kaggle dataset, downloaded when it is first read: `kaggle://OWNER/NAME[@VERSION]`.

kagglehub finds the credentials and signs in. The body is fetched here, because kagglehub 1.0.2
retries nothing, appends the error page of an expired storage URL to the file, and unpacks to disk
what can be read from the archive.
"""

from __future__ import annotations

import logging
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
from jobs.sources.transfer import DamagedError, Retries, save, size_of, verify

log = logging.getLogger(__name__)

URI = re.compile(r"kaggle://([A-Za-z0-9_-]+/[A-Za-z0-9_-]+)(?:@([1-9][0-9]*))?")
TIMEOUT = (10, 60)  # seconds to connect, and between two reads
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
        self._folder = scratch / "kaggle" / self.handle
        self._archive: ZipSource | None = None
        self._lock = Lock()

    def identity(self) -> dict[str, str]:
        """The handle and the version, the current one where none is given: one small request."""
        with self._lock:
            return {"handle": self.handle, "version": str(self._known_version())}

    def names(self) -> list[str]:
        return self._opened().names()

    def read(self, name: str) -> bytes:
        return self._opened().read(name)

    def close(self) -> None:
        if self._archive:
            self._archive.close()

    def _opened(self) -> ZipSource:
        with self._lock:
            if self._archive is None:
                self._archive = ZipSource(self._download())
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

    def _download(self) -> Path:
        """The archive's path, which the file gets only when whole and verified."""
        archive = self._folder / f"{self._known_version()}.zip"
        if not archive.exists():
            self._folder.mkdir(parents=True, exist_ok=True)
            part = archive.with_suffix(".part")
            log.info("downloading %s, version %d", self.retries.name, self._version)
            self.retries.run(lambda: self._fetch(part), part)
            log.info("downloaded %d bytes, %d retries", size_of(part), self.retries.count)
            part.replace(archive)
        return archive

    def _fetch(self, part: Path) -> None:
        """One attempt, from where the last one was cut; every attempt asks for a fresh URL."""
        import requests
        from kagglesdk.datasets.types.dataset_api_service import ApiDownloadDatasetRequest

        request = ApiDownloadDatasetRequest()
        request.owner_slug, request.dataset_slug = self.handle.split("/")
        request.dataset_version_number = self._version
        with _client() as client:
            with client.datasets.dataset_api_client.download_dataset(request) as whole:
                size, have = int(whole.headers.get("Content-Length", 0)), size_of(part)
                if not 0 < have <= size:
                    save(whole, part)
            if 0 < have < size:
                resume = {"Range": f"bytes={have}-"}
                with requests.get(whole.url, headers=resume, stream=True, timeout=TIMEOUT) as rest:
                    save(rest, part)
        verify(part, size, whole.headers.get("x-goog-hash", ""))

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
def _client() -> Iterator[Any]:
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
    session.send = partial(session.send, timeout=TIMEOUT)
    with session:
        yield client
