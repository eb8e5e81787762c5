"""Which masks have the shape of lungs, of their background, or of something else."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from jobs.imaging.lung_shape import is_inverted, unlike_lungs
from tests.support.films import draw_pair, ellipse

HEIGHT, WIDTH = 320, 256
Mask = NDArray[np.bool_]


def oval(top: float, left: float, half_height: float, half_width: float) -> Mask:
    """An ellipse by its center and half axes, as shares of height and width."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    down, across = (y / HEIGHT - top) / half_height, (x / WIDTH - left) / half_width
    return np.asarray(down * down + across * across < 1)


LUNGS = ellipse(HEIGHT, WIDTH, (0.5, 0.3)) | ellipse(HEIGHT, WIDTH, (0.5, 0.7))
TRUNK = oval(0.55, 0.5, 0.42, 0.4)
WIDE = oval(0.5, 0.25, 0.44, 0.22) | oval(0.5, 0.75, 0.44, 0.22)
BOXES = np.zeros((HEIGHT, WIDTH), np.bool_)
BOXES[40:280, 20:110] = BOXES[40:280, 140:230] = True
BRIDGED = LUNGS | oval(0.35, 0.5, 0.05, 0.2)
RINGED = BRIDGED | oval(0.7, 0.5, 0.05, 0.2)


@pytest.mark.parametrize("mask", [LUNGS, WIDE, BOXES, BRIDGED, RINGED, *draw_pair(3)[1:], TRUNK])
def test_lungs_and_bodies_are_not_inverted(mask: Mask) -> None:
    assert not is_inverted(mask)


def test_a_mask_without_holes_is_not_inverted() -> None:
    for fill in (False, True):
        assert not is_inverted(np.full((HEIGHT, WIDTH), fill))
    assert not is_inverted(np.ones((1, 1), np.bool_))


@pytest.mark.parametrize("mask", [LUNGS, WIDE, BOXES, BRIDGED, oval(0.5, 0.3, 0.3, 0.13)])
def test_the_background_of_lungs_is_inverted(mask: Mask) -> None:
    assert is_inverted(~mask)
    bordered = np.pad(~mask, 15)
    assert is_inverted(bordered)
    assert is_inverted(np.pad(~mask, ((0, 0), (40, 40))))


def test_a_trunk_without_its_lungs_is_inverted_as_its_holes_show() -> None:
    small = ellipse(HEIGHT, WIDTH, (0.5, 0.35)) | ellipse(HEIGHT, WIDTH, (0.5, 0.65))
    assert is_inverted(TRUNK & ~small)


def test_lungs_within_a_drawn_frame_are_not_inverted() -> None:
    framed = np.pad(LUNGS[2:-2, 2:-2], 2, constant_values=True)
    assert not is_inverted(framed) and unlike_lungs(framed) == ""


def test_a_background_that_lungs_cut_at_the_films_rim_is_inverted() -> None:
    cut = np.ascontiguousarray(~WIDE[:, 10:-10])
    assert (~cut)[:, 0].any() and (~cut)[:, -1].any()
    assert is_inverted(cut)


@pytest.mark.parametrize("mask", [LUNGS, WIDE, BOXES, BRIDGED, RINGED])
def test_lungs_look_like_lungs_at_every_size(mask: Mask) -> None:
    assert unlike_lungs(mask) == ""
    assert unlike_lungs(np.kron(mask, np.ones((4, 4), np.bool_))) == ""
    assert unlike_lungs(mask[::5, ::5]) == ""


@pytest.mark.parametrize(
    ("mask", "reason"),
    [
        (oval(0.5, 0.3, 0.3, 0.14), "on one side"),
        (oval(0.5, 0.5, 0.3, 0.3), "one part or too many"),
        (TRUNK, "one part or too many"),
        (oval(0.5, 0.5, 0.02, 0.02), "too small or too large"),
        (~oval(0.5, 0.5, 0.2, 0.2), "too small or too large"),
        (oval(0.12, 0.3, 0.1, 0.25) | oval(0.12, 0.7, 0.1, 0.25), "too high or too low"),
        (oval(0.9, 0.3, 0.1, 0.25) | oval(0.9, 0.7, 0.1, 0.25), "too high or too low"),
    ],
)
def test_what_is_not_lungs_is_named(mask: Mask, reason: str) -> None:
    assert unlike_lungs(mask) == reason


def test_ribs_are_too_many_parts() -> None:
    ribs = np.zeros((HEIGHT, WIDTH), np.bool_)
    for top in range(40, 280, 40):
        ribs[top : top + 15, 20:236] = True
    assert unlike_lungs(ribs) == "one part or too many"


def test_a_lung_divided_by_a_device_is_still_a_lung() -> None:
    divided = LUNGS.copy()
    divided[:, 70:76] = False
    assert unlike_lungs(divided) == ""
