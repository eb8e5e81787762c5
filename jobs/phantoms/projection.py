"""The projection of phantoms: path lengths along the beam, and the film that they expose.

Lengths are in cm: x to the viewer's right from the midline, y down from the apex of the lungs.
"""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

# Share of the film's side that is drawn beyond each of its edges, for the rotation.
MARGIN = 0.09
# cm of path per gray level of the 8-bit layers on which cv2 draws.
LAYER_UNIT = 0.01

Floats = NDArray[np.float32]
Film = NDArray[np.uint8]
Point = tuple[float, float]


class Canvas:
    """A grid on which shapes are drawn as path lengths in cm, float32 (H, W).

    `x` (1, W) and `y` (H, 1) are the coordinates of the pixels in cm; `shape` is (H, W); `pitch` is
    the side of a pixel in cm; `film` is the (width, height) of the film on the grid in pixels.
    """

    def __init__(self, center: Point, size: Point, pixels: int) -> None:
        """A film of `size` (width, height) in cm around `center`, its long side of `pixels`."""
        self.pitch = max(size) / pixels
        self.film = (round(size[0] / self.pitch), round(size[1] / self.pitch))
        columns, rows = (round(side * (1 + 2 * MARGIN)) for side in self.film)
        self.shape = (rows, columns)
        self.origin = (center[0] - columns * self.pitch / 2, center[1] - rows * self.pitch / 2)
        self.x: Floats = (self.origin[0] + np.arange(columns, dtype=np.float32) * self.pitch)[None]
        self.y: Floats = (self.origin[1] + np.arange(rows, dtype=np.float32) * self.pitch)[:, None]

    def ball(self, center: Point, radii: Point, depth: float, tilt: float = 0.0) -> Floats:
        """Paths through an ellipsoid, `depth` cm at its center, turned clockwise by `tilt` rad."""
        x, y, cosine, sine = self.x - center[0], self.y - center[1], math.cos(tilt), math.sin(tilt)
        along = x * (cosine / radii[0]) + y * (sine / radii[0])
        across = y * (cosine / radii[1]) - x * (sine / radii[1])
        square: Floats = 1 - along * along - across * across
        return np.sqrt(np.maximum(square, 0)) * np.float32(depth)

    def rod(self, start: Point, end: Point, radius: float, taper: float = 1.0) -> Floats:
        """Paths through a round rod whose radius is multiplied by `taper` towards its end."""
        dx, dy = end[0] - start[0], end[1] - start[1]
        x, y, square = self.x - start[0], self.y - start[1], dx * dx + dy * dy
        share = np.clip(x * (dx / square) + y * (dy / square), 0, 1)
        x, y, reach = x - share * dx, y - share * dy, radius + share * (radius * (taper - 1))
        return 2 * np.sqrt(np.maximum(reach * reach - x * x - y * y, 0))

    def pixels(self, points: NDArray[np.float64]) -> NDArray[np.int32]:
        """Points (..., 2) as cv2's fixed-point pixels with 4 fractional bits."""
        return np.rint((points - self.origin) / self.pitch * 16).astype(np.int32)

    def bone(self, layer: Film, line: NDArray[np.float64], half: Any, path: float) -> None:
        """Draw a bone along `line` (N, 2) in cm: a dense cortex around a faint core, round ends.

        `half` is half of its width in cm, one value or N; `path` is the path in cm through the
        cortex.
        """
        step = np.gradient(line, axis=0)
        length = np.hypot(*step.T)
        normal = np.stack([-step[:, 1], step[:, 0]], 1) / length[:, None]
        to_end = np.minimum(np.cumsum(length), np.cumsum(length[::-1])[::-1]) - length[0]
        half = half * np.sqrt(1 - (1 - np.clip(to_end / np.max(half), 0, 1)) ** 2)
        for width, share in ((1.0, 1.0), (0.7, 0.55)):
            offset = normal * (width * half)[:, None]
            outline = self.pixels(np.concatenate([line + offset, (line - offset)[::-1]]))
            cv2.fillPoly(layer, [outline], (path * share / LAYER_UNIT,), cv2.LINE_AA, 4)

    def paths(self, layer: Film, blur: float) -> Floats:
        """The path lengths of a layer, blurred by `blur` cm."""
        soft = cv2.GaussianBlur(layer, (0, 0), blur / self.pitch)
        return soft.astype(np.float32) * np.float32(LAYER_UNIT)

    def noise(self, rng: Generator, cell: float) -> Floats:
        """Smooth noise of about unit variance with grains of about `cell` cm."""
        rows, columns = (max(4, round(side * self.pitch / cell)) for side in self.shape)
        return enlarge(rng.standard_normal((rows, columns), dtype=np.float32), self.shape[::-1])


def enlarge(plane: Floats, size: tuple[int, int]) -> Floats:
    """A plane (H, W) at `size` (width, height) in pixels, by cubic interpolation."""
    return cv2.resize(plane, size, interpolation=cv2.INTER_CUBIC).astype(np.float32, copy=False)


def union(*paths: Floats) -> Floats:
    """Overlapping organs as one organ with rounded seams: the 4-norm of their path lengths."""
    total = np.zeros_like(paths[0])
    for path in paths:
        total += (path * path) ** 2
    return np.sqrt(np.sqrt(total))


def develop(depth: Floats, canvas: Canvas, rng: Generator) -> tuple[Floats, Floats]:
    """Expose the film: gray levels, 0..255, and the standard deviation of their noise.

    `depth` is the optical depth (no unit), float32 (H, W).
    """
    # Beer-Lambert's law, and scatter as a blurred share of the exposure.
    exposure = np.exp(-depth)
    scatter = blurred(np.minimum(exposure, 0.12), 3.5 / canvas.pitch)
    exposure += rng.uniform(0.15, 0.5) * scatter
    # A processed film has less contrast between large structures than between small ones.
    level = -np.log(exposure)
    level -= rng.uniform(0.1, 0.5) * blurred(np.maximum(level, 1.0), 5.0 / canvas.pitch)
    rows, columns = (int(side * 0.15) for side in canvas.shape)
    middle = (slice(rows, -rows, 6), slice(columns, -columns, 6))
    # The gray scale spans the levels in the middle of the film.
    low, high = np.percentile(level[middle], [2, 98]).tolist()
    low -= rng.uniform(-0.05, 0.35) * (high - low)
    level = (level - low) / ((high - low) * rng.uniform(0.98, 1.08))
    # The toe of the film's characteristic curve, then its shoulder.
    level = 0.5 * (level + np.sqrt(level * level + 0.004))
    level = np.where(level > 1, 1.2 - 0.2 * np.exp(5 - 5 * np.maximum(level, 1)), level)
    black, white = rng.uniform(0, 25) if rng.random() < 0.4 else 0.0, rng.uniform(185, 230)
    gray = black + (white - black) * level ** rng.uniform(0.6, 1.1)
    grain = rng.uniform(0.8, 3.5) / np.sqrt(exposure / float(np.median(exposure[middle])))
    return gray, np.minimum(grain, 8)


def blurred(image: Floats, sigma: float) -> Floats:
    """A wide Gaussian blur, `sigma` in pixels, computed at an eighth of the size."""
    small = cv2.resize(image, None, fx=1 / 8, fy=1 / 8, interpolation=cv2.INTER_AREA)
    soft = np.asarray(cv2.GaussianBlur(small, (0, 0), sigma / 8), np.float32)
    return enlarge(soft, image.shape[::-1])


def positions(canvas: Canvas, rng: Generator) -> tuple[Floats, Floats]:
    """(x, y) of each film pixel on the canvas: a rotated film of a patient who bends a little."""
    columns, rows = canvas.film
    x = (np.arange(columns, dtype=np.float32) / columns - 0.5)[None]
    y = (np.arange(rows, dtype=np.float32) / rows - 0.5)[:, None]
    sway, lean = rng.normal(0, 0.01, 2).tolist()
    phase = rng.uniform(0, 2 * math.pi, 4).tolist()
    across = x + sway * np.sin(4.5 * y + phase[0]) + 0.004 * np.sin(17 * y + 5 * x + phase[1])
    down = y + lean * np.sin(5 * x + phase[2]) + 0.004 * np.sin(15 * x - 6 * y + phase[3])
    angle = math.radians(min(8.0, max(-8.0, rng.normal(0, 3))))
    cosine, sine = math.cos(angle), math.sin(angle)
    return (
        columns * cosine * across - rows * sine * down + canvas.shape[1] / 2,
        columns * sine * across + rows * cosine * down + canvas.shape[0] / 2,
    )
