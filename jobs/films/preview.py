"""Previews: films drawn small with the outlines of their masks, for the page that shows a run.

A preview is a JPEG of some 10 KB. Those of a part of rows are one object beside the masks,
`previews/<hash>.bin`, and each row says where in it the film's own lies. An object a film would
double the requests of a job; from a pack a page reads ranges.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from itertools import accumulate

import cv2
import numpy as np
from numpy.typing import NDArray

from jobs.films.rows import PredictionRow
from jobs.imaging.geometry import Placement
from jobs.imaging.masks import PREDICTION_COLOR, outline

# Pixels of the longer side, at most.
SIDE = 256
# Of JPEG, 0..100. Without halved colors a thin outline stays sharp.
JPEG = [
    *(cv2.IMWRITE_JPEG_QUALITY, 70),
    *(cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444),
]


def draw(square: NDArray[np.uint8], placement: Placement, mask: NDArray[np.bool_]) -> bytes:
    """The preview of a film, a JPEG, from its square (S, S) and its mask (H, W).

    The film's own pixels, of which there are up to a hundred million, are not read again.
    """
    longer = max(mask.shape)
    height, width = (max(1, round(side * min(SIDE, longer) / longer)) for side in mask.shape)
    film = placement.at(height, width).to_film(square)
    # One pixel of many: a few microseconds whatever the film's size.
    small = cv2.resize(mask.view(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)
    drawing = outline(film, [(small.view(np.bool_), PREDICTION_COLOR)], thickness=1)
    succeeded, jpeg = cv2.imencode(".jpg", cv2.cvtColor(drawing, cv2.COLOR_RGB2BGR), JPEG)
    assert succeeded, "OpenCV could not write a JPEG"
    return jpeg.tobytes()


class Previews:
    """The previews of films under way, until the rows of their part are written.

    write: stores an object under a key relative to the masks' folder.
    """

    def __init__(self, write: Callable[[str, bytes], object]) -> None:
        self._write = write
        self._drawn: dict[str, bytes] = {}

    def keep(self, film_id: str, preview: bytes) -> None:
        """Hold a film's preview for `pack`; threads may call it."""
        self._drawn[film_id] = preview

    def pack(self, rows: Sequence[PredictionRow]) -> list[PredictionRow]:
        """Write the rows' previews as one object; returns the rows with their places in it.

        The object is named by its content, so that a row never points into another writer's.
        """
        previews = [self._drawn.pop(row["id"], b"") for row in rows]
        packed = b"".join(previews)
        if not packed:
            return list(rows)
        key = f"previews/{hashlib.sha256(packed).hexdigest()[:16]}.bin"
        self._write(key, packed)
        starts = accumulate(map(len, previews), initial=0)
        return [
            {**row, "preview": {"key": key, "offset": start, "bytes": len(preview)}}
            if preview
            else row
            for row, preview, start in zip(rows, previews, starts, strict=False)
        ]
