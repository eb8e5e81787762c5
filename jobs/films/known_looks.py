"""The films that a network saw in an earlier training, by their looks: `data.looks` of model.json.

A model that is fine-tuned has the looks of the films of the weights that it started from. The films
themselves are elsewhere, so that only their perceptual hashes can tell them.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jobs.errors import BadDataError
from jobs.films.rows import ProcessedRow
from jobs.imaging.perceptual_hash import HASH_BYTES, is_similar_to_one


@dataclass(frozen=True, eq=False)
class KnownLooks:
    """The perceptual hashes of films, uint8 (N, HASH_BYTES); N is 0 where none are known."""

    hashes: NDArray[np.uint8]

    @staticmethod
    def of(*models: Mapping[str, Any]) -> KnownLooks:
        """Those in `data.looks` of any of the contents of model.json.

        Raises BadDataError where one is not of whole hashes.
        """
        packed = b"".join(base64.b64decode(_text(model)) for model in models)
        return KnownLooks(np.frombuffer(packed, np.uint8).reshape(-1, HASH_BYTES))

    def __len__(self) -> int:
        return len(self.hashes)

    def has(self, row: ProcessedRow) -> bool:
        """Whether the film looks like one of them; False for a row of an earlier version."""
        if not len(self.hashes) or "looks" not in row:
            return False
        film = np.frombuffer(bytes.fromhex(row["looks"]), np.uint8)
        return is_similar_to_one(film, self.hashes)

    def count(self, rows: Iterable[ProcessedRow]) -> int:
        return sum(map(self.has, rows))


def looks_text(hashes: Iterable[bytes]) -> str:
    """`data.looks` of perceptual hashes, HASH_BYTES bytes each: sorted, each once, in base64."""
    return base64.b64encode(b"".join(sorted(set(hashes)))).decode()


def _text(model_json: Mapping[str, Any]) -> str:
    text: str = model_json.get("data", {}).get("looks", "")
    if len(base64.b64decode(text)) % HASH_BYTES:
        raise BadDataError(
            f"data.looks of model.json is not of whole hashes, {HASH_BYTES} bytes each: it was "
            "edited or damaged, take another version"
        )
    return text
