"""preprocess: masks whose values do not say which pixels are lung, and masks unlike lungs."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from jobs import download, preprocess
from jobs.errors import BadDataError, ConfigError
from jobs.settings.config import DownloadConfig, PreprocessConfig
from jobs.storage.manifest import Manifest
from jobs.storage.s3 import Store
from tests.support.films import draw_pair, png

pytestmark = pytest.mark.slow

FILMS = 30
Lungs = NDArray[np.bool_]
Draw = Callable[[Lungs, Lungs], NDArray[Any]]


def labels(left: Lungs, right: Lungs) -> NDArray[np.uint8]:
    return (right + 2 * left.astype(np.uint8)).astype(np.uint8)


def inverted(left: Lungs, right: Lungs) -> NDArray[np.uint8]:
    return np.where(left | right, 0, 255).astype(np.uint8)


def both(left: Lungs, right: Lungs) -> NDArray[np.bool_]:
    return left | right


def one(left: Lungs, right: Lungs) -> NDArray[np.bool_]:
    return left


def write(folder: Path, draw: Draw, others: Draw = both, count: int = FILMS) -> None:
    """FILMS films; the masks of the first `count` are drawn by `draw`, those after by `others`."""
    for name in ("images", "masks"):
        (folder / name).mkdir()
    for number in range(FILMS):
        film, left, right = draw_pair(number)
        mask = (draw if number < count else others)(left, right)
        (folder / f"images/case{number:02}.png").write_bytes(png(film))
        (folder / f"masks/case{number:02}.png").write_bytes(png(mask))


def run(store: Store, out: str, folder: Path, **settings: Any) -> Manifest:
    raw = download.run(DownloadConfig(source=folder.as_uri(), out=out), store)
    return preprocess.run(PreprocessConfig(raw=raw.uri, out=out, size=64, **settings), store)


def fractions(store: Store, made: Manifest) -> list[float]:
    return [row["lung_fraction"] for row in made.rows(store)]


def true_fractions() -> list[Any]:
    pairs = (draw_pair(number)[1:] for number in range(FILMS))
    return [pytest.approx(float((left | right).mean()), abs=1e-6) for left, right in pairs]


def test_a_label_map_is_bad_data_that_names_its_values_and_the_flag(
    store: Store, out: str, tmp_path: Path
) -> None:
    write(tmp_path, labels)
    with pytest.raises(BadDataError, match=r"30 of 30 .*several values \(30\)") as caught:
        run(store, out, tmp_path)
    words = "; the masks have the values 0, 1, 2: name those that are lung, joined by commas, in "
    assert words + "--mask-values: see s3://" in str(caught.value)
    table = store.read(str(caught.value).rpartition("see ")[2]).decode()
    reasons = [row["reason"] for row in csv.DictReader(io.StringIO(table))]
    _, left, right = draw_pair(0)
    areas = [100 * float(part.mean()) for part in (~(left | right), right, left)]
    listed = ", ".join(f"{value} ({area:.1f} %)" for value, area in enumerate(areas))
    assert reasons[0] == f"several values: {listed}; choose with --mask-values"


def test_films_cut_out_by_their_masks_are_bad_data_that_names_the_remedy(
    store: Store, out: str, tmp_path: Path
) -> None:
    film = np.add.outer(np.arange(160), np.arange(128)).astype(np.uint8) // 2 + 60
    write(tmp_path, lambda left, right: np.where(left | right, film, 0).astype(np.uint8))
    words = r"30 of 30 .*many gray values inside \(30\); films, .* give the masks themselves, or"
    with pytest.raises(BadDataError, match=words):
        run(store, out, tmp_path)


def test_the_named_values_are_lung(store: Store, out: str, tmp_path: Path) -> None:
    write(tmp_path, labels)
    made = run(store, out, tmp_path, mask_values="1,2")
    assert fractions(store, made) == true_fractions()
    assert [row["mask_values"] for row in made.rows(store)] == [["1", "2"]] * FILMS
    assert made.config["mask_values"] == "1,2"


def test_a_few_label_maps_are_quarantined_beside_the_others(
    store: Store, out: str, tmp_path: Path
) -> None:
    write(tmp_path, labels, count=4)
    made = run(store, out, tmp_path)
    assert made.details["reasons"] == {"several values": 4}
    assert made.counts["records"] == FILMS - 4
    assert "mask_values" not in made.config


def test_inverted_masks_are_bad_data_that_names_the_value_of_the_lungs(
    store: Store, out: str, tmp_path: Path
) -> None:
    write(tmp_path, inverted)
    with pytest.raises(BadDataError, match=r"inverted \(30\); give --mask-values 0: see s3://"):
        run(store, out, tmp_path)
    made = run(store, out, tmp_path, mask_values="0")
    assert fractions(store, made) == true_fractions()


def test_inverted_masks_among_others_get_no_flag_that_would_spoil_the_others(
    store: Store, out: str, tmp_path: Path
) -> None:
    write(tmp_path, inverted, count=10)
    with pytest.raises(BadDataError, match=r"inverted \(10\); inverted masks among others") as some:
        run(store, out, tmp_path)
    assert "--mask-values" not in str(some.value)
    with pytest.raises(BadDataError, match=r"inverted \(20\); inverted masks among others"):
        run(store, out, tmp_path, mask_values="0")


def test_a_side_may_have_but_one_of_the_named_values(
    store: Store, out: str, tmp_path: Path
) -> None:
    for kind in ("CXR_png", "ManualMask/leftMask", "ManualMask/rightMask"):
        (tmp_path / kind).mkdir(parents=True)
    for number in range(1, FILMS + 1):
        film, left, right = draw_pair(number - 1)
        name = f"MCUCXR_{number:04d}_0.png"
        (tmp_path / "CXR_png" / name).write_bytes(png(film))
        for side, lung, value in (("left", left, 2), ("right", right, 1)):
            samples = lung.astype(np.uint8) * np.uint8(value)
            samples[:30, :30] = 9
            (tmp_path / f"ManualMask/{side}Mask" / name).write_bytes(png(samples))
    made = run(store, out, tmp_path, mask_values="1,2")
    assert fractions(store, made) == true_fractions()


def test_a_named_value_that_no_mask_has_is_refused(store: Store, out: str, tmp_path: Path) -> None:
    write(tmp_path, labels)
    with pytest.raises(ConfigError, match="--mask-values 1,2,3: no mask has the value 3") as caught:
        run(store, out, tmp_path, mask_values="1,2,3")
    assert caught.value.exit_code == 2
    with pytest.raises(
        BadDataError, match=r"no value of --mask-values \(30\); the masks have the "
    ):
        run(store, out, tmp_path, mask_values="7")


def test_masks_unlike_lungs_are_counted_by_reason(store: Store, out: str, tmp_path: Path) -> None:
    write(tmp_path, one, count=9)
    made = run(store, out, tmp_path)
    assert made.details["unlike_lungs"] == {"on one side": 9}
    rows = list(made.rows(store))
    assert [row.get("unlike_lungs") for row in rows] == ["on one side"] * 9 + [None] * 21
    assert made.counts["quarantined"] == 0
