"""calibration: against sums over pixels, and on films whose probabilities are known."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from jobs.reports import calibration
from jobs.segmentation import inference
from tests.support.published import SIZE, Chain, chain

LUNG, OUTSIDE = 0.83, 0.04  # the fake network's probabilities of dark and of bright pixels


@pytest.fixture(scope="module")
def films(s3: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    with chain(s3, tmp_path_factory.mktemp("films")) as made:
        yield made


def two_valued(network: Any, images: NDArray[np.uint8], *, precision: str) -> NDArray[np.float32]:
    return np.where(images < 125, LUNG, OUTSIDE).astype(np.float32)


def reading(films: Chain, size: int) -> calibration.ReadNetwork:
    """What reads a network that takes films of this size."""
    trained = films.train({"rows": 1.0, "size": size, "special": {}})

    def read() -> tuple[dict[str, Any], bytes]:
        weights = trained.read_file(films.store, "model.safetensors")
        return trained.read_json(films.store, "model.json"), weights

    return read


@pytest.fixture
def figures(films: Chain, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that measures on the test films with the two-valued network."""
    network = reading(films, SIZE)
    names = {row["id"] for row in films.films_of("test")}
    monkeypatch.setattr(inference, "probabilities", two_valued)
    return lambda ids=names: calibration.measure(films.store, films.processed, network, ids)


def pixels(films: Chain, kind: str) -> NDArray[Any]:
    """The pixels of the test films' images or masks, one film after the other."""
    rows = films.films_of("test")
    files = [films.store.read(films.processed.uri_of(row[kind]["key"])) for row in rows]
    return np.concatenate([np.array(Image.open(io.BytesIO(data))).ravel() for data in files])


def test_brier_and_error_and_curve_are_sums_over_pixels_and_bins() -> None:
    random = np.random.default_rng(3)
    probability = random.beta(0.4, 0.4, 50_000).astype(np.float32)
    truth = random.random(50_000) < probability**1.5
    measured = calibration.reliability(truth, probability)
    error, curve = 0.0, []
    for number in range(10):
        inside = (probability > number / 10) & (probability <= (number + 1) / 10)
        inside |= (probability == 0) & (number == 0)
        lung, predicted = truth[inside].mean(), probability[inside].mean(dtype=np.float64)
        error += inside.mean() * abs(lung - predicted)
        curve.append({"predicted": predicted, "lung": lung, "share": inside.mean()})
    assert measured["pixels"] == 50_000
    assert measured["brier"] == pytest.approx(np.mean((truth - probability) ** 2), abs=6e-5)
    assert measured["expected_error"] == pytest.approx(error, abs=6e-5)
    assert measured["expected_error"] > 0.05
    assert measured["curve"] == [pytest.approx(point, abs=6e-5) for point in curve]


def test_calibrated_probabilities_have_no_expected_error() -> None:
    random = np.random.default_rng(4)
    probability = random.random(400_000).astype(np.float32)
    truth = random.random(400_000) < probability
    assert calibration.reliability(truth, probability)["expected_error"] < 0.003


def test_empty_bins_are_left_out_and_the_others_keep_their_shares() -> None:
    probability = np.repeat(np.array([0, 0.05, 0.55, 1], dtype=np.float32), [50, 10, 10, 30])
    truth = np.repeat([False, True, True, True], [50, 10, 10, 30])
    measured = calibration.reliability(truth, probability)
    assert measured["curve"] == [
        {"predicted": 0.0083, "lung": 0.1667, "share": 0.6},
        {"predicted": 0.55, "lung": 1.0, "share": 0.1},
        {"predicted": 1.0, "lung": 1.0, "share": 0.3},
    ]


def test_a_small_set_is_measured_on_every_pixel(films: Chain, figures: Any) -> None:
    dark, truth = pixels(films, "image") < 125, pixels(films, "mask").astype(bool)
    expected = np.where(dark, LUNG, OUTSIDE)
    measured = figures()
    assert measured["films"] == 8
    assert measured["pixels"] == truth.size == 8 * SIZE * SIZE
    assert measured["brier"] == pytest.approx(np.mean((truth - expected) ** 2), abs=6e-5)
    low, high = measured["curve"]
    assert low["lung"] == pytest.approx(truth[~dark].mean(), abs=6e-5)
    assert high["lung"] == pytest.approx(truth[dark].mean(), abs=6e-5)
    assert high["share"] == pytest.approx(dark.mean(), abs=6e-5)


def test_of_a_large_set_the_same_films_and_pixels_are_sampled_each_time(
    figures: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    complete = figures()
    monkeypatch.setattr(calibration, "MOST_FILMS", 5)
    monkeypatch.setattr(calibration, "MOST_PIXELS", 5 * 1000)
    sampled = figures()
    assert (sampled["films"], sampled["pixels"]) == (5, 5000)
    assert sampled == figures()
    assert sampled["brier"] == pytest.approx(complete["brier"], abs=0.02)
    assert sampled["curve"] == [pytest.approx(point, abs=0.03) for point in complete["curve"]]


def test_without_films_there_are_no_figures(figures: Any) -> None:
    assert figures(set()) is None


def test_a_network_of_another_size_is_measured_at_that_size(
    films: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inference, "probabilities", two_valued)
    network = reading(films, 32)
    names = {row["id"] for row in films.films_of("test")}
    measured = calibration.measure(films.store, films.processed, network, names)
    assert measured is not None and measured["pixels"] == 8 * 32 * 32
    json.dumps(measured, allow_nan=False)
