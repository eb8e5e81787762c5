"""Reads a run's files in S3 for the training report."""

from __future__ import annotations

import math
import re

from lung.run_folder import safe_run_id
from lung.run_report_page import Step
from lung.s3_files import MIB, S3Files, UnreadableError
from lung.settings import setting

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


class RunFiles:
    """The files of one run.

    A file that does not exist yet is None. Raises UnreadableError where S3 fails.
    """

    def __init__(self, run_id: str) -> None:
        self._out = setting("LUNG_BUCKET_URI").rstrip("/")
        self._run = f"{self._out}/runs/{safe_run_id(run_id)}"
        self._files = S3Files()

    def report(self) -> bytes | None:
        """The page that publish wrote."""
        return self._files.read(f"{self._run}/report.html", LIMITS["report.html"])

    def trained(self) -> tuple[str, int, Step | None] | None:
        """(URI of train's folder, epochs, the step after them); None until train has started."""
        pointer = self._files.read_json(f"{self._run}/train.json", LIMITS["train.json"])
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
        content = self._files.read_json(f"{folder}/history.json", LIMITS["history.json"])
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
        return self._files.read(f"{folder}/curves.svg", LIMITS["curves.svg"])
