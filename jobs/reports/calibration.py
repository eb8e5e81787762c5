"""Whether a network's probabilities can be believed: of the pixels called 80 % lung, are 80 %?"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jobs.films.training_pairs import read_pair
from jobs.imaging import geometry
from jobs.runtime.parallel import CPU_THREADS, ordered_map
from jobs.runtime.progress import track
from jobs.storage.manifest import Manifest, Row
from jobs.storage.s3 import Store

MOST_FILMS = 256
MOST_PIXELS = 2**20
BINS = 10
SEED = 0
POINT = ("predicted", "lung", "share")
# Probabilities differ in their last bits from one device to another.
DIGITS = 4


def measure(
    store: Store, processed: Manifest, trained: Manifest, films: Collection[str]
) -> dict[str, Any] | None:
    """The network's probabilities on processed films against their masks, at its own size.

    Args:
        films: ids of those to look at. Of more than MOST_FILMS, so many are taken, evenly spaced.

    Scikit-learn wants all pixels at once, so that of each film the same number is drawn, at most
    MOST_PIXELS in all and every one of a small set: the share of lung in a tenth of them is then
    known to 0.002. Returns what `reliability` does and "films"; None without films.
    """
    records = [row for row in processed.rows(store) if row["id"] in films]
    records = _evenly(records, MOST_FILMS)
    if not records:
        return None
    random = np.random.default_rng(SEED)
    each = MOST_PIXELS // len(records)
    drawn: list[tuple[NDArray[np.bool_], NDArray[np.float32]]] = []
    for truth, probabilities in _predict(store, processed, trained, records):
        places = random.choice(truth.size, min(each, truth.size), replace=False, shuffle=False)
        drawn.append((truth.ravel()[places], probabilities.ravel()[places]))
    truths, probability = (np.concatenate(parts) for parts in zip(*drawn, strict=True))
    return {"films": len(records), **reliability(truths, probability)}


def reliability(truth: NDArray[np.bool_], probability: NDArray[np.float32]) -> dict[str, Any]:
    """Pixels' truth (n,) against their probabilities (n,), 0..1.

    "brier" is the mean squared difference (Brier 1950); "expected_error" the expected calibration
    error: over BINS equal bins the mean of |share that is lung - mean probability|, by the pixels
    in each (Naeini et al., AAAI 2015). "curve" has these of each bin that is not empty, from the
    lowest, with its share of the pixels.
    """
    # Scikit-learn takes a second to import, which nothing before the last figures need wait for.
    from sklearn.calibration import calibration_curve
    from sklearn.metrics import brier_score_loss

    lung, predicted = calibration_curve(truth, probability, n_bins=BINS)
    edges = np.linspace(0, 1, BINS + 1)[1:-1]
    counts = np.bincount(np.searchsorted(edges, probability), minlength=BINS)
    share = counts[counts > 0] / probability.size
    curve = zip(predicted, lung, share, strict=True)
    return {
        "pixels": int(probability.size),
        "brier": round(float(brier_score_loss(truth, probability)), DIGITS),
        "expected_error": round(float(share @ abs(lung - predicted)), DIGITS),
        "curve": [
            {name: round(float(value), DIGITS) for name, value in zip(POINT, point, strict=True)}
            for point in curve
        ],
    }


def _evenly(rows: list[Row], most: int) -> list[Row]:
    chosen = np.linspace(0, len(rows) - 1, min(most, len(rows))).round().astype(int)
    return [rows[place] for place in chosen]


def _predict(
    store: Store, processed: Manifest, trained: Manifest, records: list[Row]
) -> Iterator[tuple[NDArray[np.bool_], NDArray[np.float32]]]:
    """(mask, probabilities) of each film, both (S, S), S the size the network was trained at."""
    # torch takes seconds to import, which evaluate's start need not wait for.
    from jobs.films.network import load_network

    about = json.loads(trained.read_file(store, "model.json"))
    probabilities_of = load_network(about, trained.read_file(store, "model.safetensors"))
    size = about["recipe"]["spatial_size"]
    pairs = ordered_map(lambda row: read_pair(store, processed, row), records, threads=CPU_THREADS)
    for film, mask in track(pairs, len(records), "calibrate"):
        yield geometry.resize_mask(mask, size, size), probabilities_of(film)
