"""The network, the films and the figures of the measurements of predict."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from jobs.imaging import decode
from jobs.segmentation import inference, metrics
from jobs.segmentation.unet import UNet
from jobs.storage.s3 import Store
from tests.bench import predict, predict_scale
from tests.bench.dark_lung import dark_lung, write_trained
from tests.bench.predict_scale import Sample, summarise
from tests.support.films import draw_pair

pytestmark = pytest.mark.slow


def samples(*mebibytes: float, seconds: float = 1.0) -> list[Sample]:
    """Samples `seconds` apart with 100 more films each; the first is before any film."""
    return [Sample(seconds * n, 100 * n, size) for n, size in enumerate(mebibytes)]


def test_the_dark_lung_network_masks_the_lungs_of_a_film() -> None:
    film, left, right = draw_pair(1, 256, 256)
    for network in ("small", "base"):
        probabilities = inference.probabilities(dark_lung(network), film[None], precision="float32")
        assert metrics.dice(probabilities[0] >= 0.5, left | right) > 0.9


def test_films_have_their_size_and_as_much_noise_as_a_real_file() -> None:
    data = predict.draw(0, (300, 250))
    assert decode.decode_film(data).shape == (300, 250)
    assert len(data) > 0.25 * 300 * 250
    assert data != predict.draw(1, (300, 250))


def test_the_job_is_compared_with_its_network_on_the_same_films(
    store: Store, out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("OUT", out), ("NETWORK", "small"), ("SIZE", 64), ("DISTINCT", 2)):
        monkeypatch.setattr(predict, name, value)
    trained = write_trained(store, out, "small", 64, "auto")
    figures = predict.compare(store, trained, 10, (120, 100), rounds=2)
    assert 0 < figures["min"] <= figures["value"] <= figures["max"]
    assert figures["unit"] == "of the throughput"
    assert "10 films of 100x120" in figures["against"]


def test_the_bare_network_computes_every_film_in_the_batches_of_the_job(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    batch_sizes: list[int] = []

    def record_batch(model: UNet, images: NDArray[np.uint8], precision: str) -> NDArray[np.float32]:
        batch_sizes.append(len(images))
        return np.zeros(images.shape, np.float32)

    monkeypatch.setattr(inference, "probabilities", record_batch)
    predict.bare_network(np.zeros((20, 512, 512), np.uint8))()
    assert batch_sizes == [4, 4, 4, 4, 4]


def test_growth_compares_the_second_half_of_the_films_with_the_first() -> None:
    figures = summarise(samples(90, 100, 100, 120, 120))
    assert figures["mebibytes_by_half"] == [100, 120]
    assert figures["growth"] == 0.2
    assert figures["peak_mebibytes"] == 120
    assert figures["films_per_second_by_half"] == [100, 100]


def test_a_falling_throughput_shows_and_the_end_of_the_job_does_not_count() -> None:
    fast, slow = samples(1, 1, 1), [Sample(4, 300, 1), Sample(8, 400, 1), Sample(99, 400, 1)]
    assert summarise([*fast, *slow])["films_per_second_by_half"] == [100, 25]


def test_the_picture_has_a_point_per_sample(tmp_path: Path) -> None:
    figures = {"films": 400, **summarise(samples(90, 100, 110, 120, 120))}
    predict_scale.draw_memory(samples(90, 100, 110, 120, 120), figures, tmp_path / "memory.png")
    picture = np.array(Image.open(tmp_path / "memory.png").convert("RGB"))
    assert picture.shape == (540, 1200, 3)
    blue = (picture[..., 2].astype(int) - picture[..., 0] > 60).any(axis=0)
    assert blue.sum() > 900, "the line goes from the first film to the last"


@pytest.mark.slow
def test_memory_stays_flat_over_many_films_and_a_killed_job_resumes_within_a_minute(
    tmp_path: Path,
) -> None:
    figures, whole_run = predict_scale.measure(3000, tmp_path)
    assert figures["growth"] < 0.15
    assert whole_run[-1].films == 3000
    assert figures["resume_seconds"] < 60
