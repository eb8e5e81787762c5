"""The sheet of a run's masks: what the page that shows them reads instead of every row.

sheet.jsonl   a JSON line a film, in the order to look at them: masks for review, the lowest
              quality first, then films that failed, then all others
sheet.json    how many there are of each, the model, what was passed over, and the place of each
              page in sheet.jsonl, so that a page of a million films is one range
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import accumulate
from typing import Any

from jobs.films.rows import PredictionRow

SHEET_JSON, SHEET_ROWS = "sheet.json", "sheet.jsonl"
FILMS_PER_PAGE = 200
COLUMNS = (
    "origin",
    "status",
    "reason",
    "height",
    "width",
    "lung_fraction",
    "quality",
    "review",
    "preview",
)


class Sheet:
    """Takes the rows of a run in any number; holds some 300 bytes of each."""

    def __init__(self) -> None:
        self._review: list[tuple[float, bytes]] = []
        self._failed: list[bytes] = []
        self._others: list[bytes] = []

    def add(self, row: PredictionRow) -> None:
        line = _line(row)
        if row["status"] != "ok":
            self._failed.append(line)
        elif row.get("review", False):
            self._review.append((row.get("quality", 0.0), line))
        else:
            self._others.append(line)

    def files(
        self,
        *,
        run_id: str,
        counts: Mapping[str, int],
        model: Mapping[str, Any],
        skipped: Mapping[str, int],
    ) -> dict[str, bytes]:
        """The content of sheet.jsonl and of sheet.json, by their names.

        Args:
            run_id: of the run that completes the masks; a later one may reuse them.
            counts: the job's figures.
            model: its version and, where they are known, its name and validation Dice.
            skipped: files passed over, by reason.
        """
        # Stable: of equal quality, in the order of the set.
        worst_first = sorted(self._review, key=lambda pair: pair[0])
        lines = [*(line for _, line in worst_first), *self._failed, *self._others]
        ends = list(accumulate(map(len, lines), initial=0))
        summary = {
            "run_id": run_id,
            "counts": dict(counts),
            "sections": {
                "review": len(self._review),
                "failed": len(self._failed),
                "others": len(self._others),
            },
            "model": dict(model),
            "skipped": dict(skipped),
            "films_per_page": FILMS_PER_PAGE,
            # The first byte of each page, and the end of the last one.
            "pages": [*ends[:-1:FILMS_PER_PAGE], ends[-1]],
        }
        return {
            SHEET_ROWS: b"".join(lines),
            # On one line: a million films have 5000 pages.
            SHEET_JSON: json.dumps(summary, ensure_ascii=False).encode() + b"\n",
        }


def _line(row: PredictionRow) -> bytes:
    shown = {name: value for name, value in row.items() if name in COLUMNS}
    return json.dumps(shown, sort_keys=True, ensure_ascii=False).encode() + b"\n"
