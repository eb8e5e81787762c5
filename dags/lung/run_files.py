"""Reads a run's files in S3 for the training report, within limits of time and size."""

from __future__ import annotations

import json
import math
import re
from typing import Any

from lung.contract import S3_CONNECTION, bucket_and_key, connection, s3_client
from lung.run_folder import safe_run_id
from lung.run_report_page import Step
from lung.settings import setting

# A person waits for the page.
CONNECT_SECONDS, READ_SECONDS = 2, 5
MIB = 2**20
# The largest size of each file in bytes.
LIMITS = {
    "train.json": MIB,
    "history.json": 4 * MIB,
    "curves.svg": 4 * MIB,
    "report.html": 64 * MIB,
}
# The largest --epochs is 2000.
MOST_EPOCHS = 10_000
# What the page shows of a row of history.json.
SHOWN = ("epoch", "train_loss", "val_loss", "val_dice", "learning_rate", "seconds")
FINGERPRINT = re.compile(r"[0-9a-f]{16}")


class UnreadableError(Exception):
    """S3 or one of its objects cannot be read; every reader of the run may see the message."""


class RunFiles:
    """The files of one run.

    A file that does not exist yet is None. Raises UnreadableError where S3 fails.
    """

    def __init__(self, run_id: str) -> None:
        self._out = setting("LUNG_BUCKET_URI").rstrip("/")
        self._run = f"{self._out}/runs/{safe_run_id(run_id)}"
        self._client = _client()

    def report(self) -> bytes | None:
        """The page that publish wrote."""
        return self._read(f"{self._run}/report.html")

    def trained(self) -> tuple[str, int, Step | None] | None:
        """(URI of train's folder, epochs, the step after them); None until train has started."""
        pointer = self._read_json(f"{self._run}/train.json")
        if pointer is None:
            return None
        try:
            fingerprint, epochs = pointer["trained"].rpartition("/")[2], pointer["epochs"]
            if type(epochs) is not int or not 1 <= epochs <= MOST_EPOCHS:
                raise ValueError(epochs)
            step = Step.of(pointer["step"]) if "step" in pointer else None
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise UnreadableError(f"{self._run}/train.json was not written by train") from error
        if not FINGERPRINT.fullmatch(fingerprint):
            raise UnreadableError(f"{self._run}/train.json names no folder of train")
        return f"{self._out}/trained/{fingerprint}", epochs, step

    def history(self, folder: str) -> list[dict[str, float]]:
        """One row per finished epoch."""
        content = self._read_json(f"{folder}/history.json")
        if content is None:
            return []
        try:
            rows = [{name: float(row[name]) for name in SHOWN} for row in content["epochs"]]
            if not all(0 <= figure < math.inf for row in rows for figure in row.values()):
                raise ValueError("a figure is below 0 or not finite")
            return rows
        except (KeyError, OverflowError, TypeError, ValueError) as error:
            raise UnreadableError(f"{folder}/history.json was not written by train") from error

    def curves(self, folder: str) -> bytes | None:
        """The plot of the history, an SVG file."""
        return self._read(f"{folder}/curves.svg")

    def _read_json(self, uri: str) -> Any:
        data = self._read(uri)
        try:
            return None if data is None else json.loads(data)
        except (RecursionError, ValueError) as error:
            raise UnreadableError(f"{uri} does not hold JSON") from error

    def _read(self, uri: str) -> bytes | None:
        from botocore.exceptions import BotoCoreError, ClientError

        limit = LIMITS[uri.rpartition("/")[2]]
        try:
            answer = self._client.get_object(**bucket_and_key(uri))
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
    """An S3 client of the connection with short timeouts and no retry."""
    from botocore.exceptions import BotoCoreError

    # Without the connection the hook would use the server's own AWS credentials.
    if connection(S3_CONNECTION) is None:
        raise UnreadableError(f"The connection {S3_CONNECTION!r} is not defined")
    try:
        return s3_client(connect_seconds=CONNECT_SECONDS, read_seconds=READ_SECONDS, attempts=1)
    except (BotoCoreError, ValueError) as error:
        kind = type(error).__name__
        raise UnreadableError(f"The connection {S3_CONNECTION!r} is not valid: {kind}") from error
