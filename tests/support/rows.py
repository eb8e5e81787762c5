"""A row of the processed manifest, for tests of what reads rows."""

from __future__ import annotations

from typing import Any

FILE = {"key": "images/a.png", "bytes": 1, "sha256": "0" * 64}
# Beside the fields that every row of the film repeats.
OK_FIELDS: dict[str, Any] = {
    "status": "ok",
    "image": FILE,
    "mask": FILE,
    "height": 80,
    "width": 64,
    "crop": [0, 0, 80, 64],
    "box": [0, 0, 512, 512],
}
