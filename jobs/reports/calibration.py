"""Calibration of a network's probabilities: of the pixels called 80 % lung, are 80 % lung?"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jobs.films.rows import ProcessedRow, processed_rows
from jobs.films.training_pairs import read_pair
from jobs.imaging import geometry
from jobs.runtime.parallel import CPU_THREADS, ordered_map
from jobs.runtime.progress import track
from jobs.storage.manifest import Manifest
from jobs.storage.s3 import Store

MOST_FILMS = 256
# Pixels sampled in all: the share of lung in a tenth of them is then known to 0.002.
MOST_PIXELS = 2**20
BINS = 10
SEED = 0
# Decimals of every figure: the last bits of probabilities differ from one device to another.
DIGITS = 4

# Reads (content of model.json, weights).
ReadNetwork = Callable[[], tuple[Mapping[str, Any], bytes]]


def measure(
    store: Store, processed: Manifest, network: ReadNetwork, films: Collection[str]
) -> dict[str, Any] | None:
    """Compare the probabilities of processed films with their masks, at the network's size.

    Args:
        films: ids of the films; of more than MOST_FILMS, MOST_FILMS evenly spaced ones are used.

    Scikit-learn needs all pixels at once, so the same number of each film's pixels is sampled, at
    most MOST_PIXELS in all. Returns the figures of `reliability` and "films"; None without films.
    """
    rows = [row for row in processed_rows(store, processed) if row["id"] in films]
    rows = _evenly_spaced(rows, MOST_FILMS)
    if not rows:
        return None
    random = np.random.default_rng(SEED)
    pixels_per_film = MOST_PIXELS // len(rows)
    samples: list[tuple[NDArray[np.bool_], NDArray[np.float32]]] = []
    for truth, probabilities in _predict(store, processed, network, rows):
        count = min(pixels_per_film, truth.size)
        pixels = random.choice(truth.size, count, replace=False, shuffle=False)
        samples.append((truth.ravel()[pixels], probabilities.ravel()[pixels]))
    truth, probability = (np.concatenate(parts) for parts in zip(*samples, strict=True))
    return {"films": len(rows), **reliability(truth, probability)}


def reliability(truth: NDArray[np.bool_], probability: NDArray[np.float32]) -> dict[str, Any]:
    """Calibration figures of pixels with truth (n,) and probability (n,), 0..1.

    "brier" is the mean squared difference (Brier 1950). "expected_error" is the expected
    calibration error: over BINS equal bins, the mean of |share of lung - mean probability|,
    weighted by the pixels in each (Naeini et al., AAAI 2015). "curve" has a point for each bin with
    pixels, from the lowest: its mean probability ("predicted"), its share of lung ("lung") and its
    share of all pixels ("share").
    """
    # Scikit-learn takes a second to import, which a job without test films does not need.
    from sklearn.calibration import calibration_curve
    from sklearn.metrics import brier_score_loss

    lung, predicted = calibration_curve(truth, probability, n_bins=BINS)
    edges = np.linspace(0, 1, BINS + 1)[1:-1]
    counts = np.bincount(np.searchsorted(edges, probability), minlength=BINS)
    share = counts[counts > 0] / probability.size
    bins = {"predicted": predicted, "lung": lung, "share": share}
    return {
        "pixels": int(probability.size),
        "brier": round(float(brier_score_loss(truth, probability)), DIGITS),
        "expected_error": round(float(share @ abs(lung - predicted)), DIGITS),
        "curve": [
            {name: round(float(values[index]), DIGITS) for name, values in bins.items()}
            for index in range(len(share))
        ],
    }


def _evenly_spaced(rows: Sequence[ProcessedRow], most: int) -> list[ProcessedRow]:
    indices = np.linspace(0, len(rows) - 1, min(most, len(rows))).round().astype(int)
    return [rows[index] for index in indices]


def _predict(
    store: Store, processed: Manifest, network: ReadNetwork, rows: Sequence[ProcessedRow]
) -> Iterator[tuple[NDArray[np.bool_], NDArray[np.float32]]]:
    """(mask, probabilities) of each film, both (S, S), S the size the network was trained at."""
    # Loads torch, which takes seconds.
    from jobs.films.network import load_network

    model_json, weights = network()
    probabilities_of = load_network(model_json, weights)
    size = model_json["recipe"]["spatial_size"]
    pairs = ordered_map(lambda row: read_pair(store, processed, row), rows, threads=CPU_THREADS)
    for film, mask in track(pairs, len(rows), "calibrate"):
        yield geometry.resize_mask(mask, size, size), probabilities_of(film)
