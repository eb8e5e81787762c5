"""What a run has in S3, read for a person who waits: soon or not at all, and only so much."""

from __future__ import annotations

import json
import re
from typing import Any

from lung.contract import S3_CONNECTION, connection, place_of, s3_client
from lung.tasks import safe_run_id, setting

CONNECT_SECONDS, READ_SECONDS = 2, 5
MIB = 2**20
LIMITS = {
    "train.json": MIB,
    "history.json": 4 * MIB,
    "curves.svg": 4 * MIB,
    "report.html": 64 * MIB,
}
FINGERPRINT = re.compile(r"[0-9a-f]{16}")


class UnreadableError(Exception):
    """S3 or what it holds cannot be read; the message is for everybody who may see the run."""


class RunFiles:
    """The files of one run. What was not written yet is None; UnreadableError where S3 fails."""

    def __init__(self, run_id: str) -> None:
        self._out = setting("LUNG_BUCKET_URI").rstrip("/")
        self._run = f"{self._out}/runs/{safe_run_id(run_id)}"
        self._client = _client()

    def report(self) -> bytes | None:
        """The page that publish wrote."""
        return self._read(f"{self._run}/report.html")

    def trained(self) -> tuple[str, int] | None:
        """(the folder that train fills, its number of epochs) from the job's start on."""
        place = self._read_json(f"{self._run}/train.json")
        if place is None:
            return None
        try:
            folder, epochs = str(place["trained"]).rpartition("/")[2], int(place["epochs"])
        except (KeyError, TypeError, ValueError) as error:
            raise UnreadableError(f"{self._run}/train.json is not what train writes") from error
        if not FINGERPRINT.fullmatch(folder):
            raise UnreadableError(f"{self._run}/train.json names no folder of train's")
        return f"{self._out}/trained/{folder}", epochs

    def history(self, folder: str) -> list[dict[str, float]]:
        """A row an epoch, as far as training has come."""
        written = self._read_json(f"{folder}/history.json")
        if written is None:
            return []
        try:
            return [{name: float(row[name]) for name in row} for row in written["epochs"]]
        except (KeyError, TypeError, ValueError) as error:
            raise UnreadableError(f"{folder}/history.json is not what train writes") from error

    def curves(self, folder: str) -> bytes | None:
        """The drawing of the history, an SVG file."""
        return self._read(f"{folder}/curves.svg")

    def _read_json(self, uri: str) -> Any:
        data = self._read(uri)
        try:
            return None if data is None else json.loads(data)
        except ValueError as error:
            raise UnreadableError(f"{uri} does not hold JSON") from error

    def _read(self, uri: str) -> bytes | None:
        from botocore.exceptions import BotoCoreError, ClientError

        limit = LIMITS[uri.rpartition("/")[2]]
        try:
            answer = self._client.get_object(**place_of(uri))
            with answer["Body"] as body:
                data: bytes = body.read(limit + 1)
        except ClientError as error:
            code = error.response.get("Error", {}).get("Code", "unknown")
            if code == "NoSuchKey":
                return None
            raise UnreadableError(f"S3 answered {code} for {uri}") from error
        except (BotoCoreError, OSError) as error:
            raise UnreadableError(f"S3 does not give {uri}: {type(error).__name__}") from error
        if len(data) > limit:
            raise UnreadableError(f"{uri} is larger than {limit // MIB} MiB: open it in its bucket")
        return data


def _client() -> Any:
    """An S3 client of the connection that gives up soon: a page and not a task waits for it."""
    from botocore.exceptions import BotoCoreError

    # The hook would go on without it, as whoever this server is for AWS.
    if connection(S3_CONNECTION) is None:
        raise UnreadableError(f"The connection {S3_CONNECTION!r} is not defined")
    try:
        return s3_client(connect_seconds=CONNECT_SECONDS, read_seconds=READ_SECONDS, attempts=1)
    except (BotoCoreError, ValueError) as error:
        what = type(error).__name__
        raise UnreadableError(f"The connection {S3_CONNECTION!r} is no S3: {what}") from error
