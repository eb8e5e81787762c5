"""Augmentation: film and mask move together, by the right amounts, from random numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from jobs.segmentation import augment
from jobs.segmentation.augment import (
    DRAWS,
    MAX_LOG_GAMMA,
    MAX_NOISE,
    MAX_SCALING,
    MAX_SHIFT,
    draw,
    standardize,
)

SIDE = 64


def disc(column: float, row: float, radius: float) -> Tensor:
    """(1, SIDE, SIDE) uint8: 1 in a disc, whose center is in pixels from the upper left corner."""
    rows, columns = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    inside = (columns + 0.5 - column) ** 2 + (rows + 0.5 - row) ** 2 <= radius**2
    return inside.to(torch.uint8)[None]


def draws_of(*amounts: float) -> Tensor:
    """(1, DRAWS): the first columns hold the amounts, the others 0."""
    return torch.tensor([[*amounts, *[0.0] * (DRAWS - len(amounts))]], dtype=torch.float64)


def move(mask: Tensor, *amounts: float) -> tuple[Tensor, Tensor]:
    image, target = augment.augment(200 * mask, mask, draws_of(*amounts))
    return image[0, 0], target[0, 0]


def center(mask: Tensor) -> tuple[float, float]:
    rows, columns = torch.nonzero(mask, as_tuple=True)
    return columns.float().mean().item() + 0.5, rows.float().mean().item() + 0.5


def test_draws_of_zero_change_nothing() -> None:
    images = torch.randint(0, 256, (2, 16, 16), dtype=torch.uint8)
    masks = (images > 100).to(torch.uint8)
    moved, target = augment.augment(images, masks, torch.zeros(2, DRAWS))
    torch.testing.assert_close(moved[:, 0] * 255, images.float(), atol=1e-3, rtol=0)
    assert torch.equal(target[:, 0], masks.float())
    assert moved.dtype == target.dtype == torch.float32


def test_a_whole_draw_of_rotation_turns_by_fifteen_degrees() -> None:
    _, target = move(disc(32 + 20, 32, 6), 1)
    column, row = center(target)
    assert abs(math.degrees(math.atan2(row - 32, column - 32))) == pytest.approx(15, abs=0.5)
    assert math.hypot(row - 32, column - 32) == pytest.approx(20, abs=0.2)


@pytest.mark.parametrize("sign", [-1, 1])
def test_a_whole_draw_of_scaling_enlarges_or_shrinks_by_a_fifth(sign: int) -> None:
    _, target = move(disc(32, 32, 20), 0, sign)
    radius = math.sqrt(target.sum().item() / math.pi)
    assert radius == pytest.approx(20 * (1 + sign * MAX_SCALING), abs=0.3)


@pytest.mark.parametrize("turned", [0.0, 1.0])
def test_a_whole_draw_of_shift_moves_by_a_tenth_of_the_side(turned: float) -> None:
    _, target = move(disc(32, 32, 10), turned, 0, 1)
    column, row = center(target)
    assert math.hypot(row - 32, column - 32) == pytest.approx(SIDE * MAX_SHIFT, abs=0.5)


def test_gamma_brightens_and_darkens_between_fixed_black_and_white() -> None:
    images = torch.tensor([[[0, 128], [255, 255]]] * 3, dtype=torch.uint8)
    draws = torch.cat([draws_of(0, 0, 0, 0, gamma) for gamma in (-1, 0, 1)])
    moved, _ = augment.augment(images, images // 255, draws)
    assert moved[:, 0, 0, 0].tolist() == [0, 0, 0]
    torch.testing.assert_close(moved[:, 0, 1], torch.ones(3, 2))
    expected = [(128 / 255) ** math.exp(MAX_LOG_GAMMA * gamma) for gamma in (-1, 0, 1)]
    assert moved[:, 0, 0, 1].tolist() == pytest.approx(expected, abs=1e-5)


def test_a_blurred_film_keeps_its_mean_and_loses_its_texture() -> None:
    board = ((torch.arange(SIDE)[:, None] + torch.arange(SIDE)) % 2 * 200).to(torch.uint8)[None]
    deviations = []
    for softness in (-1, 0, 0.5, 1):
        image, _ = augment.augment(board, board // 200, draws_of(0, 0, 0, 0, 0, softness))
        assert image.mean() == pytest.approx(100 / 255, abs=1e-3)
        deviations.append(image.std().item())
    sharp = 100 / 255
    assert deviations == pytest.approx([sharp, sharp, sharp / 2, 0], abs=2e-3)


def test_noise_has_the_strength_of_its_draw_and_a_seed_for_each_film() -> None:
    films = torch.full((3, SIDE, SIDE), 128, dtype=torch.uint8)
    draws = torch.cat(
        [
            draws_of(0, 0, 0, 0, 0, 0, noise, 7 + number)
            for number, noise in enumerate((1.0, -0.5, 1.0))
        ]
    )
    noisy, _ = augment.augment(films, films // 255, draws)
    grain = noisy[:, 0] - 128 / 255
    np.testing.assert_allclose(grain.std(dim=(1, 2)), MAX_NOISE * np.array([1, 0.5, 1]), rtol=0.05)
    np.testing.assert_allclose(grain.mean(dim=(1, 2)), 0, atol=0.01)
    assert np.corrcoef(grain[0].flatten(), grain[2].flatten())[0, 1] < 0.1
    alone, _ = augment.augment(films[2:], films[2:] // 255, draws[2:])
    assert torch.equal(alone[0], noisy[2])


def test_film_and_mask_move_together_for_any_draw() -> None:
    mask = disc(26, 36, 15)
    for step in range(1, 11):
        image, target = move(mask, *draw(0, 1, step, 1)[0, :5].tolist())
        # Gamma bends the soft edge of the film alone, by less than a pixel.
        assert ((image > image.max() / 2) != (target > 0)).sum() < 0.05 * target.sum()
        assert set(target.unique().tolist()) == {0.0, 1.0}


def test_draws_are_in_range_and_depend_on_the_arguments_alone() -> None:
    torch.manual_seed(1)
    first = draw(3, 2, 1, 1000)
    torch.manual_seed(2)
    assert torch.equal(first, draw(3, 2, 1, 1000))
    assert first.shape == (1000, DRAWS) and first.dtype == torch.float64
    amounts, seeds = first[:, :-1], first[:, -1]
    assert amounts.min() >= -1 and amounts.max() <= 1
    np.testing.assert_allclose(amounts.mean(dim=0), 0, atol=0.06)
    assert torch.equal(seeds, seeds.round()) and len(seeds.unique()) == 1000
    others = [draw(*key, 1000) for key in [(2, 2, 1), (3, 1, 1), (3, 2, 2), (2, 3, 1), (1, 2, 3)]]
    assert not any(torch.equal(first, other) for other in others)


def test_standardized_images_do_not_depend_on_exposure_and_contrast() -> None:
    pixels = torch.randint(20, 100, (3, 32, 32), generator=torch.Generator().manual_seed(0))
    images = pixels.to(torch.uint8)
    standard = standardize(images)
    assert standard.shape == (3, 1, 32, 32) and standard.dtype == torch.float32
    expected = (pixels - pixels.double().mean((1, 2), True)) / pixels.double().std(
        (1, 2), correction=0, keepdim=True
    )
    torch.testing.assert_close(standard[:, 0].double(), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(standard, standardize(images * 2 + 30), atol=1e-4, rtol=0)
    torch.testing.assert_close(
        standard, standardize(images[:, None].float() / 255), atol=1e-4, rtol=0
    )


@pytest.mark.parametrize("grey", [0, 127, 255])
def test_a_film_of_one_grey_has_no_nan(grey: int) -> None:
    assert torch.equal(
        standardize(torch.full((1, 8, 8), grey, dtype=torch.uint8)), torch.zeros(1, 1, 8, 8)
    )


def test_an_empty_slice_is_augmented_and_standardized_to_an_empty_batch() -> None:
    empty = torch.zeros(0, SIDE, SIDE, dtype=torch.uint8)
    image, target = augment.augment(empty, empty, draw(0, 1, 1, 0))
    assert image.shape == target.shape == standardize(image).shape == (0, 1, SIDE, SIDE)
