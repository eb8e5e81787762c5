"""The network: shapes, number of parameters, sizes that it refuses, layout."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from jobs.errors import BadDataError
from jobs.segmentation.inference import check_size, load_model
from jobs.segmentation.unet import UNet, check_architecture


@pytest.mark.parametrize(("height", "width"), [(32, 32), (16, 48)])
def test_logits_have_the_size_of_the_image(height: int, width: int) -> None:
    model = UNet(in_channels=2, num_classes=3, base_channels=4, depth=4)
    assert model(torch.zeros(2, 2, height, width)).shape == (2, 3, height, width)


@pytest.mark.parametrize(("height", "width"), [(32, 40), (40, 32), (8, 16)])
def test_a_size_that_does_not_halve_is_refused_with_both_numbers(height: int, width: int) -> None:
    model = UNet(base_channels=4, depth=4)
    with pytest.raises(ValueError, match=rf"{height} x {width}.*multiples of 16"):
        model(torch.zeros(1, 1, height, width))


def test_the_number_of_parameters_is_what_the_diagram_says() -> None:
    def double_conv(narrow: int, wide: int) -> int:
        return 9 * narrow * wide + 9 * wide * wide + 2 * 2 * wide

    down = double_conv(1, 8) + double_conv(8, 16) + double_conv(16, 32)
    up = sum(2 * c * c + c + double_conv(2 * c, c) for c in (16, 8))
    head = 8 + 1
    parameters = sum(p.numel() for p in UNet(base_channels=8, depth=2).parameters())
    assert parameters == down + up + head


@pytest.mark.parametrize("stride", [2, 4])
def test_a_strided_stem_computes_less_and_gives_logits_of_the_same_size(stride: int) -> None:
    model = UNet(base_channels=4, depth=2, stem_stride=stride)
    shapes = []
    model.encoder[0].register_forward_hook(lambda m, i, output: shapes.append(output.shape[-2:]))
    assert model(torch.randn(2, 1, 32, 48)).shape == (2, 1, 32, 48)
    assert shapes == [(32 // stride, 48 // stride)]
    with pytest.raises(ValueError, match=f"multiples of {4 * stride}"):
        model(torch.randn(2, 1, 4, 48))


@pytest.mark.parametrize("stride", [2, 4])
def test_a_strided_stem_moves_nothing(stride: int) -> None:
    """What is symmetric stays so: the grids of the image and of the logits have one center."""
    model = UNet(base_channels=4, depth=1, stem_stride=stride).eval()
    with torch.no_grad():
        for weights in model.parameters():
            if weights.ndim == 4:
                weights.copy_(weights + weights.flip(2) + weights.flip(3) + weights.flip(2, 3))
    images = torch.randn(1, 1, 16, 16)
    torch.testing.assert_close(model(images.flip(3)), model(images).flip(3))


def test_every_parameter_learns_and_every_pixel_near_counts() -> None:
    torch.manual_seed(0)
    model = UNet(base_channels=4, depth=2)
    images = torch.randn(2, 1, 16, 16, requires_grad=True)
    model(images)[:, :, 8, 8].sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
    assert images.grad is not None and (images.grad[..., 8 - 4 : 8 + 5, 8 - 4 : 8 + 5] != 0).all()


def test_features_are_channels_last_throughout() -> None:
    model = UNet(base_channels=4, depth=2)
    layouts = []
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and module.out_channels > 1:
            module.register_forward_hook(
                lambda module, inputs, output: layouts.append(
                    output.is_contiguous(memory_format=torch.channels_last)
                )
            )
    model(torch.randn(2, 1, 16, 16))
    assert len(layouts) == 12 and all(layouts)


def test_the_architecture_rebuilds_the_network() -> None:
    model = UNet(base_channels=4, depth=3)
    again = UNet(**model.architecture)
    again.load_state_dict(model.state_dict())
    images = torch.randn(1, 1, 16, 16)
    assert torch.equal(again.eval()(images), model.eval()(images))


def test_evaluation_does_not_depend_on_the_other_films_of_a_batch() -> None:
    torch.manual_seed(0)
    model = UNet(base_channels=4, depth=2).eval()
    images = torch.randn(3, 1, 16, 16)
    torch.testing.assert_close(model(images)[1:2], model(images[1:2]))


@pytest.mark.parametrize(
    "architecture",
    [
        {"base_channels": 10**6, "depth": 4},
        {"base_channels": 16, "depth": 60},
        {"base_channels": 1024, "depth": 8},
        {"base_channels": 0},
        {"base_channels": 16.0},
        {"depth": True},
        {"depth": "4"},
        {"stem_stride": 10**9},
        {"in_channels": 10**9},
        {"num_classes": -1},
        {"layers": 3},
    ],
)
def test_an_architecture_out_of_bounds_is_refused_before_a_weight_is_made(
    architecture: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match="U-Net"):
        check_architecture(architecture)
    monkeypatch.setattr("torch.nn.Conv2d", None)
    with pytest.raises(BadDataError, match=r"^model\.json names no network"):
        load_model(b"", architecture)


@pytest.mark.parametrize("size", [20_000, 2056, 0, -8, 12, 8.0, "8", None, True])
def test_a_size_that_does_not_suit_the_network_is_refused(size: object) -> None:
    architecture = UNet(base_channels=4, depth=3).architecture
    check_size(architecture, 2048)
    with pytest.raises(BadDataError, match="multiples of 8 up to 2048"):
        check_size(architecture, size)
