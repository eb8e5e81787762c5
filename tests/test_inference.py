"""Probabilities from saved weights, and what is said when weights and architecture differ."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from jobs.errors import BadDataError
from jobs.segmentation import checkpoint
from jobs.segmentation.inference import load_model, probabilities
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
    found = probabilities(loaded, images, precision="float32")
    assert found.shape == (3, 16, 16) and found.dtype == np.float32
    assert not loaded.training
    pixels = images.astype(np.float32)
    standard = (pixels - pixels.mean((1, 2), keepdims=True)) / pixels.std((1, 2), keepdims=True)
    with torch.no_grad():
        logits = model.eval()(torch.from_numpy(standard[:, None]))
    np.testing.assert_allclose(found, torch.sigmoid(logits)[:, 0].numpy(), atol=1e-5)


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


def test_damaged_weights_are_bad_data(model: UNet) -> None:
    with pytest.raises(BadDataError, match="bytes are damaged"):
        load_model(weights_of(model)[:100], model.architecture)
