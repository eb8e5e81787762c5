"""preprocess: copies of a film at another scale that came into another split."""

from __future__ import annotations

import csv
import io
import logging
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from jobs import download, preprocess
from jobs.films.split import split_of
from jobs.imaging.geometry import resize
from jobs.settings.config import DownloadConfig, PreprocessConfig
from jobs.storage.s3 import Store
from tests.support.films import draw_pair, png

pytestmark = pytest.mark.slow

FILMS, COPIES = 24, 8


def pattern(seed: int) -> NDArray[np.uint8]:
    """A smooth film-sized picture that looks like no other."""
    noise = np.random.default_rng(seed).normal(size=(24, 24)).astype(np.float32)
    smooth = cv2.resize(cv2.GaussianBlur(noise, (0, 0), 1.5), (128, 160))
    return np.asarray(255 * (smooth - smooth.min()) / np.ptp(smooth), dtype=np.uint8)


def test_copies_at_another_scale_in_another_split_are_told_and_listed(
    store: Store, out: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    for number in range(FILMS):
        _, left, right = draw_pair(number)
        (tmp_path / f"images/film{number:02}.png").write_bytes(png(pattern(number)))
        (tmp_path / f"masks/film{number:02}.png").write_bytes(png(left | right))
        if number < COPIES:
            small = resize(pattern(number), 80, 64)
            (tmp_path / f"images/small{number:02}.png").write_bytes(png(small))
            (tmp_path / f"masks/small{number:02}.png").write_bytes(png(left | right))
    raw = download.run(DownloadConfig(source=tmp_path.as_uri(), out=out), store)
    with caplog.at_level(logging.WARNING):
        made = preprocess.run(PreprocessConfig(raw=raw.uri, out=out, size=64), store)
    expected = [
        (f"film{number:02}", f"small{number:02}")
        for number in range(COPIES)
        if split_of(f"film{number:02}", {}) != split_of(f"small{number:02}", {})
    ]
    table = csv.DictReader(io.StringIO(made.read_file(store, "look_alikes.csv").decode()))
    assert [(line["film"], line["other_film"]) for line in table] == expected != []
    assert made.details["look_alikes"] == len(expected)
    assert f"{len(expected)} pairs of films look the same" in caplog.text
