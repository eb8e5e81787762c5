"""What predict and inbox leave in S3 for the page of a run, without their images' packages."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from jobs.films.sheet import Sheet
from jobs.storage.s3 import Store

FILMS_PER_PACK = 64
PREDICT_MODEL = {"version": "0123456789abcdef", "val_dice": 0.942}
INBOX_MODEL = {"name": "lung-unet", "version": "0123456789abcdef", "val_dice": 0.942}


def picture_of(name: str) -> bytes:
    """Bytes that begin as a JPEG does, and are those of this film alone."""
    return b"\xff\xd8\xff" + name.encode() * 20


def masked(name: str, **columns: Any) -> dict[str, Any]:
    """The row of a film whose mask is good, but for `columns`."""
    good = {"status": "ok", "height": 1200, "width": 1000, "lung_fraction": 0.25, "quality": 0.95}
    return {"id": name, "origin": name, **good, "review": False, **columns}


def doubtful(name: str, quality: float = 0.5) -> dict[str, Any]:
    reason = f"quality {quality:g} is below 0.8"
    return masked(name, quality=quality, review=True, reason=reason)


def failed(name: str, reason: str = "truncated") -> dict[str, Any]:
    return {"id": name, "origin": name, "status": "failed", "reason": reason}


def films(count: int) -> list[dict[str, Any]]:
    return [masked(f"ward/film {number:05}.png") for number in range(count)]


def write_masks(
    store: Store,
    folder: str,
    rows: Sequence[Mapping[str, Any]],
    *,
    sheet: str = "",
    run_id: str = "",
    model: Mapping[str, Any] = PREDICT_MODEL,
    counts: Mapping[str, int] | None = None,
    skipped: Mapping[str, int] | None = None,
) -> None:
    """Write packs of previews below the folder, and the sheet into the folder `sheet`, or here."""
    index = Sheet()
    for start in range(0, len(rows), FILMS_PER_PACK):
        part = rows[start : start + FILMS_PER_PACK]
        pictures = [picture_of(row["id"]) if row["status"] == "ok" else b"" for row in part]
        packed = b"".join(pictures)
        key = f"previews/{hashlib.sha256(packed).hexdigest()[:16]}.bin"
        store.write(f"{folder}/{key}", packed)
        offset = 0
        for row, picture in zip(part, pictures, strict=True):
            place = {"key": key, "offset": offset, "bytes": len(picture)}
            index.add({**row, **({"preview": place} if picture else {})})  # type: ignore[typeddict-item]
            offset += len(picture)
    files = index.files(run_id=run_id, counts=counts or {}, model=model, skipped=skipped or {})
    for name, content in files.items():
        store.write(f"{sheet or folder}/{name}", content)
