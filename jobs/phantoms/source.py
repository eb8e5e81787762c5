"""Synthetic chest X-rays with lung masks: `synthetic://phantoms?films=48&seed=0`.

A patient is a set of random lengths. Organs are ellipsoids, rods and ribbons whose path lengths
along the beam add up. The Beer-Lambert law turns the path lengths into an exposure, the detector
adds scatter and noise, and the characteristic curve of film shows lungs dark and bone bright.

The masks follow the annotation of the films that this project is measured on: a lung field ends at
the ribs, at the dome of the diaphragm and beside the spine. It includes the lung behind the heart
and the opacities of disease, whereas the masks of Montgomery, Shenzhen and JSRT exclude the heart.
"leftMask" holds the lung on the viewer's left. Lengths are in cm: x to the viewer's right from the
midline, y down from the apex of the lungs.
"""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from concurrent.futures import Future
from dataclasses import dataclass
from functools import cached_property
from urllib.parse import parse_qsl

import cv2
import numpy as np
from numpy.random import PCG64, Generator, SeedSequence
from numpy.typing import NDArray

from jobs.errors import ConfigError, NotFoundError
from jobs.imaging.encode import encode_mask, encode_png
from jobs.phantoms.anatomy import Patient, optical_depth
from jobs.phantoms.projection import Canvas, Film, Floats, develop, enlarge, positions

# Part of the identity; it rises with every change of the films.
RECIPE = "1"
DEFAULTS = {"films": "48", "seed": "0"}
MAX_FILMS = 100_000
FORM = "synthetic://phantoms?films=48&seed=0, films from 1 to 100000 and seed 0 or more"
ROOT = "Montgomery/MontgomerySet"
FOLDERS = ("CXR_png", "ManualMask/leftMask", "ManualMask/rightMask")
# Pixels.
LARGEST_SIDE = 2000
# Encoded films, about 1.5 MB each.
CACHED_FILMS = 64
ABNORMAL_SHARE = 0.45

# Pixels of the film's long side on the canvas for soft tissue, and on the canvas for bone.
SOFT_PIXELS, SHARP_PIXELS = 360, 760


@dataclass(frozen=True)
class Phantom:
    """One film: image uint8 (H, W); masks of the viewer's left and right lung, bool (H, W)."""

    image: Film
    left: NDArray[np.bool_]
    right: NDArray[np.bool_]


def print_film(gray: Floats, grain: Floats, rng: Generator) -> Film:
    """The film, uint8 (H, W) with sides of 800 to 2000 pixels, from gray levels on the canvas.

    Adds noise of the standard deviation `grain`, to most films a marker, to some black borders.
    """
    scale = rng.uniform(800 / min(gray.shape), LARGEST_SIDE / max(gray.shape))
    height, width = (round(side * scale) for side in gray.shape)
    image = enlarge(gray, (width, height))
    noise = rng.standard_normal(image.shape, dtype=np.float32)
    image += noise * enlarge(grain, (width, height))
    film = np.rint(np.clip(image, 0, 255)).astype(np.uint8)
    # The side marker, a letter of lead.
    if rng.random() < 0.75:
        corner = (round(width * rng.uniform(0.03, 0.2)), round(height * rng.uniform(0.06, 0.25)))
        size, stroke = width / 600, max(2, width // 250)
        cv2.putText(film, "R", corner, cv2.FONT_HERSHEY_SIMPLEX, size, (235,), stroke, cv2.LINE_AA)
    # The opening of the collimator, a quadrilateral.
    if rng.random() < 0.4:
        outward = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
        corners = (outward * rng.uniform(0.45, 0.51, (4, 2)) + 0.5) * [width, height]
        opening = np.zeros_like(film)
        cv2.fillPoly(opening, [np.rint(corners * 16).astype(np.int32)], (255,), cv2.LINE_AA, 4)
        film = np.asarray(cv2.multiply(film, opening, scale=1 / 255), np.uint8)
    return film


def draw(seed: int, number: int) -> Phantom:
    """Draw the film `number` (from 1) of `seed`, with sides of 800 to 2000 pixels."""
    rng = generator(seed, number)
    abnormal, patient = rng.random() < ABNORMAL_SHARE, Patient.sample(rng)
    width = 2 * patient.width / rng.uniform(0.66, 0.9)
    height = min(max(patient.height / rng.uniform(0.6, 0.92), 0.58 * width), 1.22 * width)
    shift = height * rng.normal(-0.02, 0.04)
    center = (width * rng.normal(0, 0.025), patient.height / 2 + shift)
    soft, sharp = (Canvas(center, (width, height), side) for side in (SOFT_PIXELS, SHARP_PIXELS))
    gray, grain = develop(optical_depth(soft, sharp, patient, abnormal, rng), sharp, rng)
    fields = [enlarge(lung.field(soft), sharp.shape[::-1]) for lung in patient.lungs]
    maps, edge = positions(sharp, rng), cv2.BORDER_REPLICATE
    gray, grain, left, right = (
        np.asarray(cv2.remap(plane, *maps, cv2.INTER_LINEAR, borderMode=edge), np.float32)
        for plane in (gray, grain, *fields)
    )
    image = print_film(gray, grain, rng)
    size = image.shape[::-1]
    return Phantom(image, enlarge(left, size) > 0, enlarge(right, size) > 0)


def is_abnormal(seed: int, number: int) -> bool:
    """Whether the film shows disease; its name needs this before the film is drawn."""
    return generator(seed, number).random() < ABNORMAL_SHARE


def generator(seed: int, number: int) -> Generator:
    """The random numbers of one film, independent of all other films."""
    return Generator(PCG64(SeedSequence([seed, number])))


class PhantomSource:
    """Phantoms in the layout of Montgomery, drawn on reading, by any number of threads."""

    def __init__(self, query: str = "") -> None:
        """`query` is the part of the URI after "?"; ConfigError for another form than FORM."""
        fields = parse_qsl(query, keep_blank_values=True)
        values = DEFAULTS | dict(fields)
        are_names_valid = values.keys() == DEFAULTS.keys() and len(dict(fields)) == len(fields)
        are_numbers = all(re.fullmatch(r"[0-9]{1,18}", value) for value in values.values())
        if not (are_names_valid and are_numbers and 1 <= int(values["films"]) <= MAX_FILMS):
            raise ConfigError(f"source synthetic://phantoms?{query} is not accepted: give {FORM}")
        self.films, self.seed = int(values["films"]), int(values["seed"])
        # The files of the last films by film number, oldest first.
        self._cache: OrderedDict[int, Future[tuple[bytes, ...]]] = OrderedDict()
        self._lock = threading.Lock()

    def identity(self) -> dict[str, str]:
        numbers = {"films": str(self.films), "seed": str(self.seed)}
        return {"generator": "phantoms", "recipe": RECIPE} | numbers

    def names(self) -> list[str]:
        return sorted(self._entries)

    def size(self, name: str) -> int:
        """An upper bound without drawing the PNG: one byte per pixel of the largest film."""
        return LARGEST_SIDE**2

    def read(self, name: str) -> bytes:
        """The PNG `name`; NotFoundError if it does not exist.

        A film is drawn once for its three files if fewer than CACHED_FILMS other films are read
        between the first and the last of them.
        """
        if name not in self._entries:
            raise NotFoundError(f"phantom {name!r} does not exist: give one of names()")
        number, folder = self._entries[name]
        return self._files(number)[folder]

    def close(self) -> None:
        with self._lock:
            self._cache.clear()

    @cached_property
    def _entries(self) -> dict[str, tuple[int, int]]:
        """{name: (film number, index into FOLDERS)}."""
        entries = {}
        for number in range(1, self.films + 1):
            file = f"PHANTOM_{number:04d}_{is_abnormal(self.seed, number):d}.png"
            for index, folder in enumerate(FOLDERS):
                entries[f"{ROOT}/{folder}/{file}"] = (number, index)
        return entries

    def _files(self, number: int) -> tuple[bytes, ...]:
        """Film, left and right mask; the first thread draws them, others wait for the result."""
        with self._lock:
            is_first = number not in self._cache
            future = self._cache.setdefault(number, Future())
            if len(self._cache) > CACHED_FILMS:
                self._cache.popitem(last=False)
        if is_first:
            try:
                future.set_result(encode(draw(self.seed, number)))
            except BaseException as error:
                future.set_exception(error)
                raise
        return future.result()


def encode(phantom: Phantom) -> tuple[bytes, ...]:
    """PNGs in the order of FOLDERS."""
    masks = (encode_mask(phantom.left), encode_mask(phantom.right))
    return (encode_png(phantom.image), *masks)
