"""Probabilities from saved weights, batches, and refused weights."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from jobs.errors import BadDataError
from jobs.segmentation import checkpoint, inference
from jobs.segmentation.inference import (
    films_at_once,
    in_batches,
    load_model,
    probabilities,
    probabilities_of_all,
)
from jobs.segmentation.unet import UNet


def weights_of(model: UNet) -> bytes:
    return checkpoint.to_safetensors(model.state_dict())


@pytest.fixture
def model() -> UNet:
    torch.manual_seed(0)
    model = UNet(base_channels=4, depth=2)
    model(torch.randn(8, 1, 16, 16))
    return model


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (3, 16, 16), dtype=np.uint8)


def test_probabilities_are_those_of_the_saved_network(model: UNet, images: np.ndarray) -> None:
    loaded = load_model(weights_of(model), model.architecture)
    lung = probabilities(loaded, images, precision="float32")
    assert lung.shape == (3, 16, 16) and lung.dtype == np.float32
    assert not loaded.training
    pixels = images.astype(np.float32)
    standard = (pixels - pixels.mean((1, 2), keepdims=True)) / pixels.std((1, 2), keepdims=True)
    with torch.no_grad():
        logits = model.eval()(torch.from_numpy(standard[:, None]))
    np.testing.assert_allclose(lung, torch.sigmoid(logits)[:, 0].numpy(), atol=1e-5)


def test_a_film_has_the_same_mask_alone_and_in_a_batch(model: UNet, images: np.ndarray) -> None:
    loaded = load_model(weights_of(model), model.architecture)
    batch = probabilities(loaded, images)
    alone = np.concatenate([probabilities(loaded, image[None]) for image in images])
    np.testing.assert_allclose(batch, alone, atol=1e-6)


def test_bfloat16_probabilities_are_near_and_float32(model: UNet, images: np.ndarray) -> None:
    loaded = load_model(weights_of(model), model.architecture)
    exact = probabilities(loaded, images, precision="float32")
    near = probabilities(loaded, images, precision="bfloat16")
    assert near.dtype == np.float32
    assert 0 < abs(near - exact).max() < 0.05


def test_weights_of_another_architecture_are_bad_data(model: UNet) -> None:
    with pytest.raises(BadDataError, match="'base_channels': 8"):
        load_model(weights_of(model), model.architecture | {"base_channels": 8})


def test_a_network_larger_than_its_weights_is_refused_before_it_is_built(
    model: UNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    devices = []
    build = UNet.__init__

    def recording(network: UNet, **architecture: int) -> None:
        build(network, **architecture)
        devices.append(next(network.parameters()).device.type)

    monkeypatch.setattr(UNet, "__init__", recording)
    with pytest.raises(BadDataError, match="'depth': 8"):
        load_model(weights_of(model), model.architecture | {"base_channels": 13, "depth": 8})
    assert devices == ["meta"]


def test_damaged_weights_are_bad_data(model: UNet) -> None:
    with pytest.raises(BadDataError, match="bytes are damaged"):
        load_model(weights_of(model)[:-100], model.architecture)


@pytest.mark.parametrize(("count", "most"), [(1, 4), (4, 4), (5, 4), (11, 4), (12, 5), (256, 64)])
def test_batches_are_few_even_and_in_order(count: int, most: int) -> None:
    batches = list(in_batches(range(count), most))
    assert [item for batch in batches for item in batch] == list(range(count))
    assert len(batches) == math.ceil(count / most)
    sizes = [len(batch) for batch in batches]
    assert max(sizes) <= most and max(sizes) - min(sizes) <= 1
    assert list(in_batches([], most)) == []


def test_a_cpu_computes_few_large_films_at_once_and_many_small_ones(model: UNet) -> None:
    sizes = (1024, 512, 256, 64, 2048)
    assert [films_at_once(model, size) for size in sizes] == [1, 4, 16, 64, 1]


def test_the_probabilities_of_any_number_of_films_are_in_their_order(
    model: UNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = np.random.default_rng(0).integers(0, 256, (7, 16, 16), dtype=np.uint8)
    monkeypatch.setattr(inference, "PIXELS_AT_ONCE", {"cpu": 3 * 16**2})
    lung = probabilities_of_all(model.eval(), images)
    alone = np.concatenate([probabilities(model, image[None]) for image in images])
    np.testing.assert_allclose(lung, alone, atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "size", "threads", "expected"),
    [("cpu", 512, 8, 2), ("cpu", 512, 1, 1), ("cpu", 2048, 8, 1), ("cuda", 512, 8, 1)],
)
def test_batches_are_computed_side_by_side_on_a_cpu_with_threads_and_memory_to_share(
    monkeypatch: pytest.MonkeyPatch, kind: str, size: int, threads: int, expected: int
) -> None:
    monkeypatch.setattr(inference, "local_device", lambda: torch.device(kind))
    monkeypatch.setattr(inference, "THREADS", threads)
    assert inference.batches_at_once(size) == expected
