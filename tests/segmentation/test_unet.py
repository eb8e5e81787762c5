"""The network: shapes, size, what it refuses, and its normalisation over several ranks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from jobs.segmentation.distributed import data_parallel, rank, world_size
from jobs.segmentation.losses import dice_loss
from jobs.segmentation.unet import GlobalBatchNorm2d, UNet
from tests.support.ranks import run_ranks

CPU = torch.device("cpu")
SLOW = pytest.mark.slow


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


def training_step(films: int, native: bool) -> dict[str, NDArray[np.float64]]:
    """Gradients, statistics and loss, float64, after one step on this rank's slice of a batch."""
    torch.manual_seed(films)
    images, target = torch.randn(films, 1, 16, 16).double(), torch.rand(films, 1, 16, 16) > 0.6
    model = UNet(base_channels=4, depth=2).double()
    if native:
        for module in model.modules():
            if isinstance(module, GlobalBatchNorm2d):
                module.__class__ = nn.BatchNorm2d  # type: ignore[assignment]
    mine = slice(rank(), None, world_size())
    network = data_parallel(model, CPU)
    loss = dice_loss(network(images[mine]), target[mine])
    loss.backward()
    found = {"loss": loss.detach()} | dict(model.named_buffers())
    found |= {f"d/d {name}": p.grad for name, p in model.named_parameters() if p.grad is not None}
    return {name: tensor.numpy() for name, tensor in found.items()}


@pytest.mark.parametrize(
    ("processes", "films"),
    [(3, 5), *(pytest.param(*sizes, marks=SLOW) for sizes in [(2, 5), (2, 3), (3, 3), (3, 2)])],
)
def test_ranks_give_the_gradients_and_statistics_of_one_process(processes: int, films: int) -> None:
    alone = training_step(films, native=True)
    assert len(alone) == 1 + 3 * 10 + 3 * 10 + 2 * 2 + 2
    for found in run_ranks(training_step, processes, films, False):
        for name, expected in alone.items():
            np.testing.assert_allclose(found[name], expected, rtol=0, atol=1e-12, err_msg=name)


def local_statistics(films: int) -> float:
    """The largest error of a gradient when each rank normalises by its own slice."""
    exact = training_step(films, native=False)
    local = training_step(films, native=True)
    return max(float(abs(local[name] - exact[name]).max()) for name in exact if "d/d" in name)


@SLOW
def test_local_statistics_would_be_far_off() -> None:
    assert min(run_ranks(local_statistics, 2, 4)) > 1e-3


def test_evaluation_does_not_depend_on_the_other_films_of_a_batch() -> None:
    torch.manual_seed(0)
    model = UNet(base_channels=4, depth=2).eval()
    images = torch.randn(3, 1, 16, 16)
    torch.testing.assert_close(model(images)[1:2], model(images[1:2]))
