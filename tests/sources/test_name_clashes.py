"""Films that two sources name differently and compress differently are kept once."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image

from jobs import download, preprocess
from jobs.films.rows import processed_rows
from jobs.settings.config import DownloadConfig, PreprocessConfig
from jobs.storage.s3 import Store
from tests.support.films import draw_pair, png

FILMS = 40


def save(path: Path, image: Image.Image, level: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, compress_level=level)


def write_plain(folder: Path, names: list[str], level: int) -> None:
    for seed, name in enumerate(names):
        film, left, right = draw_pair(seed)
        save(folder / "images" / f"{name}.png", Image.fromarray(film), level)
        save(folder / "masks" / f"{name}.png", Image.open(io.BytesIO(png(left | right))), level)


def test_films_that_two_sources_name_differently_are_kept_once(
    store: Store, out: str, tmp_path: Path
) -> None:
    write_plain(tmp_path / "ours", [f"scan-{n}" for n in range(FILMS)], level=1)
    write_plain(tmp_path / "theirs", [str(1000 + n) for n in range(FILMS)], level=9)
    assert (tmp_path / "ours/images/scan-0.png").stat().st_size != (
        tmp_path / "theirs/images/1000.png"
    ).stat().st_size
    source = "+".join((tmp_path / name).as_uri() for name in ("ours", "theirs"))
    raw = download.run(DownloadConfig(source=source, out=out), store)
    assert raw.counts == {"films": 2 * FILMS, "pairs": 2 * FILMS, "without_mask": 0}
    config = PreprocessConfig(raw=raw.uri, out=out, size=32)
    rows = list(processed_rows(store, preprocess.run(config, store)))
    pixels = [row["pixels"] for row in rows if row["status"] == "ok"]
    assert len(pixels) == FILMS == len(set(pixels))
    reasons = {row["reason"].partition(" as ")[0] for row in rows if row["status"] != "ok"}
    assert reasons == {"repeated: the same film"}
