"""Masks: merging, cleaning, measuring and drawing."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from jobs.imaging.geometry import resize

# Red, green, blue, each 0..255.
Color: TypeAlias = tuple[int, int, int]

# Pixels counted at a time.
COUNTED = 2**24
# Pixels of a contact sheet, twice those of the largest that a job draws.
LARGEST_SHEET = 4_000_000

BACKGROUND: Color = (17, 19, 23)
FRAME: Color = (30, 33, 39)
INK: Color = (206, 210, 217)
TRUTH_COLOR: Color = (64, 220, 120)
PREDICTION_COLOR: Color = (255, 82, 82)


def merge(masks: Iterable[NDArray[np.bool_]]) -> NDArray[np.bool_]:
    """The union of one or more masks, bool (H, W); ValueError if their shapes differ.

    The next mask is taken from `masks` only after the ones before it are merged, so that a
    generator need not hold all of them in memory.
    """
    remaining = iter(masks)
    union = next(remaining)
    for mask in remaining:
        if mask.shape != union.shape:
            raise ValueError(f"masks of different shapes: {union.shape} and {mask.shape}")
        union = union | mask
    return union


def lung_fraction(mask: NDArray[np.bool_]) -> float:
    """The share of a mask's pixels that are lung, 0..1."""
    return float(np.count_nonzero(mask) / mask.size)


def largest_components(mask: NDArray[np.bool_], count: int) -> NDArray[np.bool_]:
    """The `count` (1 or more) components of a mask with the most pixels, bool (H, W).

    Pixels that touch at a side or a corner belong to one component (8-connectivity).
    """
    pixels = mask.astype(np.uint8)
    _, hierarchy = cv2.findContours(pixels, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    # Each component has one contour without a parent. Most masks have no component too many, and
    # counting these contours costs a twentieth of labelling every pixel.
    if hierarchy is None or np.count_nonzero(hierarchy[0, :, 3] < 0) <= count:
        return mask.copy()
    labels_count, labels = cv2.connectedComponents(pixels, connectivity=8)
    # In parts: numpy counts a copy in 64 bits.
    sizes = np.zeros(labels_count, np.int64)
    for start in range(0, len(labels), rows := max(1, COUNTED // labels.shape[1])):
        sizes += np.bincount(labels[start : start + rows].ravel(), minlength=labels_count)
    sizes[0] = 0  # the background
    is_largest = np.zeros(len(sizes), dtype=np.bool_)
    is_largest[np.argsort(-sizes, kind="stable")[:count]] = True
    return np.asarray(is_largest[labels])


def fill_holes(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """A mask, bool (H, W), with its holes filled.

    A hole is background without a path to the image's border from side to side (4-connectivity).
    """
    pixels = mask.astype(np.uint8)
    contours, _ = cv2.findContours(pixels, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return np.asarray(cv2.drawContours(pixels, contours, -1, 1, cv2.FILLED) > 0)


def outline(
    image: NDArray[np.uint8],
    masks: Sequence[tuple[NDArray[np.bool_], Color]],
    thickness: int = 2,
) -> NDArray[np.uint8]:
    """A film, uint8 (H, W), with the contour of each mask, bool (H, W), in its color.

    Returns RGB uint8 (H, W, 3). Holes have a contour too; later masks are drawn over earlier ones.
    Raises ValueError if a mask has another shape than the film.
    """
    drawing = np.repeat(image[:, :, np.newaxis], 3, axis=2)
    for mask, color in masks:
        if mask.shape != image.shape:
            raise ValueError(f"a mask of {mask.shape} on a film of {image.shape}")
        contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(drawing, contours, -1, color, thickness, cv2.LINE_AA)
    return drawing


def contact_sheet(
    tiles: Sequence[tuple[NDArray[np.uint8], str]], columns: int, tile: int = 256
) -> NDArray[np.uint8]:
    """Images, RGB uint8 (h, w, 3), in rows with their captions below: RGB uint8 (H, W, 3).

    Each image is scaled to fit a square of `tile` pixels at its aspect ratio; a long caption ends
    in an ellipsis. Without tiles the sheet is an empty row.
    """
    gutter, strip = tile // 20, tile // 9
    rows = max(1, math.ceil(len(tiles) / columns))
    size = (columns * (tile + gutter) + gutter, rows * (tile + strip + gutter) + gutter)
    sheet = Image.new("RGB", size, BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=max(9, tile // 18))
    for index, (image, caption) in enumerate(tiles):
        left = gutter + index % columns * (tile + gutter)
        top = gutter + index // columns * (tile + strip + gutter)
        draw.rectangle((left, top, left + tile - 1, top + tile + strip - 1), FRAME)
        fitted = _fit(image, tile)
        spare_y, spare_x = tile - fitted.shape[0], tile - fitted.shape[1]
        sheet.paste(Image.fromarray(fitted), (left + spare_x // 2, top + spare_y // 2))
        middle = (left + tile / 2, top + tile + strip / 2)
        draw.text(middle, _shorten(caption, font, tile - gutter), INK, font, anchor="mm")
    return np.array(sheet)


def _fit(image: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """An image scaled at its aspect ratio to `side` pixels of its longer side."""
    height, width = image.shape[:2]
    longer = max(height, width)
    return resize(image, max(1, height * side // longer), max(1, width * side // longer))


def _shorten(text: str, font: ImageFont.ImageFont | ImageFont.FreeTypeFont, width: float) -> str:
    """The text, or its longest start that fits `width` pixels together with an ellipsis."""
    cuts = (text[:length].rstrip() + "…" for length in range(len(text) - 1, 0, -1))
    return next((cut for cut in (text, *cuts) if font.getlength(cut) <= width), "")
