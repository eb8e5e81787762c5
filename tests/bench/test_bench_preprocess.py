"""The measurement of preprocess: its films, its two implementations, its figures."""

from __future__ import annotations

import io
import time
import zlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.bench import preprocess as bench
from tests.bench.preprocess import FilmFiles

pytestmark = pytest.mark.slow

KEYS = {"value", "min", "max", "unit", "against"}


def test_a_drawn_film_has_the_png_filters_of_real_films() -> None:
    shape = bench.GRAY_SHAPE
    files = bench.draw_film(shape)
    rows = zlib.decompress(bench.packed_pixels(files.film))
    filters = Counter(rows[:: shape[1] + 1])
    assert len(rows) == shape[0] * (shape[1] + 1)
    # Filter 4 is Paeth's.
    assert filters[4] > 0.5 * shape[0]
    for data, mode in ((files.film, "L"), (files.left, "1"), (files.right, "1")):
        image = Image.open(io.BytesIO(data))
        assert (image.mode, image.size) == (mode, shape[::-1])
    assert 0.05 < np.mean(np.asarray(Image.open(io.BytesIO(files.left)))) < 0.4


def test_a_color_film_is_drawn_in_three_channels() -> None:
    assert Image.open(io.BytesIO(bench.draw_film((90, 80), color=True).film)).mode == "RGB"


def test_each_figure_is_the_median_of_its_rounds(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(bench, "GRAY_SHAPE", (300, 400))
    monkeypatch.setattr(bench, "COLOR_SHAPE", (300, 300))
    monkeypatch.setattr(bench, "REAL_FILMS", tmp_path / "absent.zip")
    calls = []

    def naive(films: Sequence[FilmFiles], folder: Path) -> None:
        calls.append((len(films), folder))
        time.sleep(0.5)

    monkeypatch.setattr(bench, "naive", naive)
    figures = bench.measure(3, tmp_path)
    assert figures.keys() == {
        "preprocess_vs_naive",
        "preprocess_vs_inflate",
        "preprocess_vs_naive_color",
    }
    assert calls == [(1, tmp_path)] * 6
    for figure in figures.values():
        assert figure.keys() == KEYS
        assert figure["min"] <= figure["value"] <= figure["max"]


def test_both_implementations_make_the_same_square_film(tmp_path: Path) -> None:
    files = bench.draw_film((1100, 1000))
    bench.naive([files], tmp_path)
    ours = bench.square(files)
    for name, data in (("film", ours.image), ("mask", ours.mask)):
        naive = np.asarray(Image.open(tmp_path / f"square-{name}.png").convert("L"), float)
        difference = np.abs(np.asarray(Image.open(io.BytesIO(data)).convert("L")) - naive)
        assert difference.mean() < 1.5, name
