"""curves: curves.png is curves.svg rendered, with its text where no font is installed."""

from __future__ import annotations

import io
import re

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageColor

from jobs.reports import curves, svg
from tests.support.published import HISTORY

PAPER, TRAIN = (ImageColor.getrgb(color) for color in ("#fdfcf9", "#1668a7"))


@pytest.fixture(scope="module")
def pixels() -> NDArray[np.uint8]:
    """curves.png as RGB uint8 (H, W, 3)."""
    return np.array(Image.open(io.BytesIO(curves.draw_curves(HISTORY))).convert("RGB"))


def test_the_png_has_the_proportions_of_the_svg(pixels: NDArray[np.uint8]) -> None:
    view_box = re.search(r'viewBox="0 0 (\d+) (\d+)"', svg.picture(HISTORY, epochs=4).decode())
    assert view_box
    width, height = (curves.ZOOM * int(side) for side in view_box.groups())
    assert pixels.shape == (height, width, 3)


def test_the_train_line_has_its_color_at_each_epoch(pixels: NDArray[np.uint8]) -> None:
    """Between its ends, where no other mark covers it."""
    (line,) = re.findall(r'class="train" points="([^"]*)"', svg.curves_svg(HISTORY, best=2)["loss"])
    for point in line.split()[1:-1]:
        x, y = (float(number) for number in point.split(","))
        row, column = curves.ZOOM * (y + svg.TITLE_HEIGHT), curves.ZOOM * x
        assert tuple(pixels[round(row), round(column)]) == TRAIN


def test_the_titles_and_the_epochs_are_written(pixels: NDArray[np.uint8]) -> None:
    """With Pillow's font: system fonts are not looked for, so this holds without any."""
    title = pixels[: curves.ZOOM * svg.TITLE_HEIGHT]
    below_the_axis = pixels[curves.ZOOM * (svg.TITLE_HEIGHT + svg.BOTTOM + 6) :]
    for strip in (title, below_the_axis):
        inked = (strip != PAPER).any(axis=2)
        left, right = np.array_split(inked, 2, axis=1)
        assert left.mean() > 0.01 and right.mean() > 0.01
