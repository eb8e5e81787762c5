"""Measure preprocess against a naive implementation, and against zlib inflation alone.

The naive implementation follows image processing tutorials: scikit-image in floating point with
anti-aliasing, one film after another. Nothing else in the project uses scikit-image.
"""

from __future__ import annotations

import functools
import importlib
import io
import time
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from jobs.films.rows import RawRow
from jobs.films.square import SquareFilm, square_film
from jobs.imaging import decode, png
from jobs.imaging.geometry import Placing
from jobs.phantoms import source
from jobs.runtime.parallel import ordered_map
from jobs.storage.manifest import FileRow
from tests.bench.rounds import Figure, figure

SIZE = 512
THREADS = 2
# Each film is processed this often, so that starting and joining the threads costs little of it.
COPIES = 6
GRAY_SHAPE, COLOR_SHAPE = (4020, 4892), (3000, 3000)
# Standard deviation in gray levels. Two thirds of the PNG's rows then have the Paeth filter, the
# slowest to undo; in real films four fifths have it.
NOISE = 0.7
REAL_FILMS = Path(__file__).parents[3] / "shared" / "data" / "kermany-as-montgomery.zip"
REAL_COUNT = 4

PLACING = Placing(SIZE)


@dataclass(frozen=True)
class FilmFiles:
    """The PNG files of a film and of its two masks of 1 bit."""

    film: bytes
    left: bytes
    right: bytes


def _entry(name: str) -> FileRow:
    return FileRow(key=name, bytes=0, sha256="")


# The raw row of every film; its keys are the fields of FilmFiles.
ROW = RawRow(
    id="",
    patient="",
    source="phantoms",
    label="unknown",
    origin="",
    film=_entry("film"),
    masks={"left": _entry("left"), "right": _entry("right")},
)


def measure(rounds: int, folder: Path) -> dict[str, Figure]:
    """{key: figure}, the sides alternating within each of `rounds` rounds.

    The naive implementation reads and writes its files in `folder`. Keys that end in _color are of
    color films; keys that end in _real are of the largest real films and need REAL_FILMS.
    """
    sets = {"": [draw_film(GRAY_SHAPE)], "_color": [draw_film(COLOR_SHAPE, color=True)]}
    if REAL_FILMS.exists():
        sets["_real"] = largest_films(REAL_FILMS, REAL_COUNT)
    ratios: dict[str, list[float]] = {}
    for _ in range(rounds):
        for name, films in sets.items():
            ratio = seconds(naive, films, folder) / seconds(ours, films)
            ratios.setdefault(f"preprocess_vs_naive{name}", []).append(ratio)
            if name != "_color":
                streams = [packed_pixels(files.film) for files in films]
                ratio = seconds(decode_and_resize, films) / seconds(inflate, streams)
                ratios.setdefault(f"preprocess_vs_inflate{name}", []).append(ratio)
    return {key: figure(values, *unit_and_reference(key)) for key, values in ratios.items()}


def unit_and_reference(key: str) -> tuple[str, str]:
    """(the unit of a ratio, the side that it is relative to)."""
    if key.startswith("preprocess_vs_naive"):
        return "times as fast", "scikit-image, floating point, one film after another"
    return "times as long", "zlib unpacking the film once"


def seconds(work: Callable[..., None], films: Sequence[Any], *others: Any) -> float:
    """Wall-clock seconds per film."""
    copies = 1 if work is naive else COPIES
    started = time.perf_counter()
    work(list(films) * copies, *others)
    return (time.perf_counter() - started) / (copies * len(films))


def ours(films: Sequence[FilmFiles]) -> None:
    """The work of the job between its reads and writes of S3, on THREADS threads."""
    for _ in ordered_map(square, films, threads=THREADS):
        pass


def square(files: FilmFiles) -> SquareFilm:
    """A film and its masks through the job's `square_film`, with no S3 to read from."""
    return square_film(ROW, lambda entry: getattr(files, entry["key"]), PLACING)


def decode_and_resize(films: Sequence[FilmFiles]) -> None:
    for files in films:
        film = decode.decode_film(files.film)
        PLACING.place(film).film_to_square(film)


def inflate(streams: Sequence[bytes]) -> None:
    for stream in streams:
        zlib.decompress(stream)


def packed_pixels(data: bytes) -> bytes:
    """The zlib stream of a grayscale PNG."""
    plain = png.open_plain(data)
    assert plain is not None
    return b"".join(chunk[8:-4] for chunk in plain.packed)


def naive(films: Sequence[FilmFiles], folder: Path) -> None:
    """Read, merge, resize in float64 with anti-aliasing, write; one film after another."""
    transform = importlib.import_module("skimage.transform")
    resize = functools.partial(transform.resize, output_shape=(SIZE, SIZE), anti_aliasing=True)
    for files in films:
        for name, data in vars(files).items():
            (folder / f"{name}.png").write_bytes(data)
        film, left, right = (
            np.asarray(Image.open(folder / f"{name}.png").convert("L"), float) / 255
            for name in vars(files)
        )
        mask = resize(np.maximum(left, right)) >= 0.5
        for name, image in (("film", resize(film)), ("mask", mask)):
            Image.fromarray((image * 255).astype(np.uint8)).save(folder / f"square-{name}.png")


def draw_film(shape: tuple[int, int], *, color: bool = False) -> FilmFiles:
    """A phantom enlarged to (height, width) `shape`, with noise, as PNGs that Pillow encodes."""
    phantom = source.draw(0, 1)
    image, left, right = (
        cv2.resize(plane.astype(np.float32), shape[::-1], interpolation=cv2.INTER_CUBIC)
        for plane in (phantom.image, phantom.left, phantom.right)
    )
    noise = NOISE * np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    film = np.rint(np.clip(image + noise, 0, 255)).astype(np.uint8)
    pixels = np.repeat(film[:, :, np.newaxis], 3, axis=2) if color else film
    return FilmFiles(encode(pixels), encode(left > 0.5), encode(right > 0.5))


def encode(pixels: NDArray[Any]) -> bytes:
    """A PNG of uint8 or bool pixels, encoded by Pillow with its default filters."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def largest_films(path: Path, count: int) -> list[FilmFiles]:
    """The `count` films with the largest files of a zip in the Montgomery layout."""
    with zipfile.ZipFile(path) as archive:
        films = [item for item in archive.infolist() if "CXR_png/MCU" in item.filename]
        films.sort(key=lambda item: -item.file_size)
        names = [item.filename for item in films[:count]]
        folders = ("CXR_png", "ManualMask/leftMask", "ManualMask/rightMask")
        return [
            FilmFiles(*(archive.read(name.replace("CXR_png", folder)) for folder in folders))
            for name in names
        ]


def main() -> None:
    """Print the figures of five rounds."""
    import json
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(5, Path(folder)), indent=2))


if __name__ == "__main__":
    main()
