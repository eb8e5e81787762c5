from __future__ import annotations

import csv
import hashlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from jobs import download, errors, preprocess
from jobs.films.split import hashed_split
from jobs.settings.config import DownloadConfig, PreprocessConfig
from jobs.storage.manifest import Manifest
from jobs.storage.s3 import Store
from tests.support.films import draw_pair, png, write_montgomery


def fetch(store: Store, out: str, folder: Path) -> Manifest:
    return download.run(DownloadConfig(source=folder.as_uri(), out=out), store)


def run(store: Store, out: str, raw: Manifest, **settings: Any) -> Manifest:
    config = PreprocessConfig(**{"raw": raw.uri, "out": out, "size": 64, **settings})
    return preprocess.run(config, store)


@pytest.fixture
def films(tmp_path: Path) -> Path:
    """30 patients in the Montgomery layout, enough for each split."""
    write_montgomery(tmp_path / "films", 30)
    return tmp_path / "films"


def place_of(films: Path, kind: str, number: int) -> Path:
    return films / f"Montgomery/MontgomerySet/{kind}/MCUCXR_{number:04d}_{number % 2}.png"


def reasons(store: Store, made: Manifest) -> dict[str, str]:
    table = csv.DictReader(io.StringIO(made.read_file(store, "quarantine.csv").decode()))
    return {row["id"]: row["reason"] for row in table}


def test_left_and_right_are_merged_and_resized_with_their_film(
    store: Store, out: str, films: Path
) -> None:
    made = run(store, out, fetch(store, out, films))
    row = next(row for row in made.rows(store) if row["id"] == "MCUCXR_0003_1")
    film, left, right = draw_pair(3)
    image = np.array(Image.open(io.BytesIO(store.read(made.uri_of(row["image"]["key"])))))
    mask = np.array(Image.open(io.BytesIO(store.read(made.uri_of(row["mask"]["key"])))))
    assert image.shape == mask.shape == (64, 64)
    assert mask.dtype == np.bool_
    by_hand = np.array(Image.fromarray(film).resize((64, 64), Image.Resampling.BOX), float)
    assert abs(image.astype(float) - by_hand).mean() < 4
    assert abs(mask.mean() - (left | right).mean()) < 0.01
    assert row["lung_fraction"] == pytest.approx((left | right).mean(), abs=1e-6)


def test_films_are_letterboxed_within_their_borders_and_their_rows_say_where(
    store: Store, out: str, films: Path
) -> None:
    for number in range(1, 31):
        for kind in ("CXR_png", "ManualMask/leftMask", "ManualMask/rightMask"):
            place = place_of(films, kind, number)
            image = np.asarray(Image.open(place))
            place.write_bytes(png(np.pad(image, ((10, 30), (20, 0)))))
    raw = fetch(store, out, films)
    made = run(store, out, raw, fit="letterbox", crop_borders=True)
    assert (made.config["fit"], made.config["crop_borders"]) == ("letterbox", True)
    row = next(row for row in made.rows(store) if row["id"] == "MCUCXR_0003_1")
    film, left, right = draw_pair(3)
    assert (row["height"], row["width"]) == (200, 148)
    assert (row["crop"], row["box"]) == ([10, 20, 170, 148], [0, 6, 64, 57])
    assert row["lung_fraction"] == pytest.approx((left | right).sum() / (200 * 148), abs=1e-6)
    image, mask = (
        np.array(Image.open(io.BytesIO(store.read(made.uri_of(row[kind]["key"])))))
        for kind in ("image", "mask")
    )
    by_hand = np.array(Image.fromarray(film).resize((51, 64), Image.Resampling.BOX), float)
    assert abs(image[:, 6:57].astype(float) - by_hand).mean() < 4
    assert not image[:, :6].any() and not image[:, 57:].any()
    assert mask.sum() == pytest.approx((left | right).mean() * 64 * 51, rel=0.02)
    assert run(store, out, raw).fingerprint != made.fingerprint


def test_a_film_of_the_squares_own_size_is_cropped_like_any_other(
    store: Store, out: str, tmp_path: Path
) -> None:
    for number in range(30):
        film, left, right = draw_pair(number, 48, 48)
        for folder, image in (("images", film), ("masks", left | right)):
            (tmp_path / folder).mkdir(exist_ok=True)
            (tmp_path / folder / f"{number}.png").write_bytes(png(np.pad(image, 8)))
    made = run(store, out, fetch(store, out, tmp_path), size=64, crop_borders=True)
    assert [row["crop"] for row in made.rows(store)] == [[8, 8, 56, 56]] * 30
    assert [row["box"] for row in made.rows(store)] == [[0, 0, 64, 64]] * 30


def test_the_split_is_a_pure_function_of_the_patient() -> None:
    fraction = int(hashlib.sha256(b"lung-segmentation-20MCUCXR_0001").hexdigest()[:16], 16) / 16**16
    expected = "test" if fraction < 0.15 else "val" if fraction < 0.30 else "train"
    assert hashed_split("MCUCXR_0001") == expected
    many = [hashed_split(f"patient-{number}") for number in range(20_000)]
    assert many.count("test") / 20_000 == pytest.approx(0.15, abs=0.01)
    assert many.count("val") / 20_000 == pytest.approx(0.15, abs=0.01)


@pytest.mark.slow
def test_adding_films_moves_nobody(store: Store, out: str, films: Path) -> None:
    def splits(made: Manifest) -> dict[str, str]:
        return {row["id"]: row["split"] for row in made.rows(store)}

    before = splits(run(store, out, fetch(store, out, films)))
    film, left, right = draw_pair(99)
    kinds = ("CXR_png", "ManualMask/leftMask", "ManualMask/rightMask")
    for kind, image in zip(kinds, (film, left, right), strict=True):
        place_of(films, kind, 99).write_bytes(png(image))
    after = splits(run(store, out, fetch(store, out, films)))
    assert len(after) == 31
    assert before.items() <= after.items()


def test_each_bad_film_is_quarantined_with_its_reason(store: Store, out: str, films: Path) -> None:
    place_of(films, "CXR_png", 1).write_bytes(b"this is a text file named .png")
    whole = place_of(films, "CXR_png", 2).read_bytes()
    place_of(films, "CXR_png", 2).write_bytes(whole[: len(whole) // 2])
    empty = np.zeros((160, 128), np.bool_)
    for side in ("left", "right"):
        place_of(films, f"ManualMask/{side}Mask", 3).write_bytes(png(empty))
        place_of(films, f"ManualMask/{side}Mask", 4).write_bytes(png(~empty))
        place_of(films, f"ManualMask/{side}Mask", 5).write_bytes(png(draw_pair(5, 128, 160)[1]))
    place_of(films, "ManualMask/leftMask", 6).unlink()
    place_of(films, "ManualMask/leftMask", 7).unlink()
    place_of(films, "ManualMask/rightMask", 7).unlink()
    place_of(films, "CXR_png", 9).write_bytes(place_of(films, "CXR_png", 8).read_bytes())
    raw = fetch(store, out, films)
    made = run(store, out, raw, max_quarantined=0.3)
    found = reasons(store, made)
    expected = {
        "MCUCXR_0001_1": "undecodable",
        "MCUCXR_0002_0": "truncated",
        "MCUCXR_0003_1": "empty mask",
        "MCUCXR_0004_0": "lung fraction outside 0.02 to 0.75: 1.000",
        "MCUCXR_0005_1": "mask of another aspect",
        "MCUCXR_0006_0": "the left lung's mask is missing",
        "MCUCXR_0007_1": "no mask",
        "MCUCXR_0009_1": "repeated: the same film as MCUCXR_0008_0",
    }
    assert found.keys() == expected.keys()
    assert all(found[name].startswith(reason) for name, reason in expected.items()), found
    assert made.counts["films"] == made.counts["records"] + made.counts["quarantined"] == 30
    images = {item.uri for item in store.list_objects(made.uri_of("images/"))}
    assert len(images) == made.counts["records"], "a quarantined film leaves no object"


@pytest.mark.slow
def test_films_of_one_failing_are_counted_under_one_reason(
    store: Store, out: str, films: Path
) -> None:
    for number in (1, 2, 3):
        large = np.ones((160, 128), np.bool_)
        large[:number] = False
        for side in ("left", "right"):
            place_of(films, f"ManualMask/{side}Mask", number).write_bytes(png(large))
    for number in (4, 5):
        smaller = draw_pair(number, 160 - 4 * number, 128)[1]
        place_of(films, "ManualMask/leftMask", number).write_bytes(png(smaller))
    for number in (6, 7):
        for side in ("left", "right"):
            flat = draw_pair(number, 60 + number, 128)[1]
            place_of(films, f"ManualMask/{side}Mask", number).write_bytes(png(flat))
    made = run(store, out, fetch(store, out, films), max_quarantined=0.3)
    assert len(set(reasons(store, made).values())) == 7, "each film has figures of its own"
    assert made.details["reasons"] == {
        "lung fraction outside 0.02 to 0.75": 3,
        "masks of different shapes": 2,
        "mask of another aspect": 2,
    }


def test_too_many_quarantined_is_bad_data(store: Store, out: str, films: Path) -> None:
    for number in range(1, 8):
        place_of(films, "CXR_png", number).write_bytes(b"text")
    raw = fetch(store, out, films)
    with pytest.raises(errors.BadDataError, match=r"7 of 30 films .*23%, at most 20%") as caught:
        run(store, out, raw)
    assert caught.value.exit_code == 65
    table = str(caught.value).rpartition("see ")[2]
    assert store.read(table).count(b"undecodable") == 7


def test_films_without_a_mask_are_not_held_against_the_others(
    store: Store, out: str, films: Path
) -> None:
    for number in range(1, 9):
        for side in ("left", "right"):
            place_of(films, f"ManualMask/{side}Mask", number).unlink()
    made = run(store, out, fetch(store, out, films))
    assert made.counts["quarantined"] == 8


def test_an_empty_split_is_bad_data(store: Store, out: str, tmp_path: Path) -> None:
    write_montgomery(tmp_path, 2)
    with pytest.raises(errors.BadDataError, match=r"the split .* is empty"):
        run(store, out, fetch(store, out, tmp_path))


@pytest.mark.slow
def test_a_published_split_replaces_the_hashed_one(store: Store, out: str, films: Path) -> None:
    lines = ["patient,split"]
    for number in range(1, 31):
        lines.append(f"MCUCXR_{number:04d},{('train', 'val', 'test')[number % 3]}")
    store.write(f"{out}/split.csv", "\n".join(lines).encode())
    raw = fetch(store, out, films)
    made = run(store, out, raw, split_file=f"{out}/split.csv")
    assert {name: made.counts[name] for name in ("train", "val", "test")} == {
        "train": 10,
        "val": 10,
        "test": 10,
    }
    assert made.fingerprint != run(store, out, raw).fingerprint
    store.write(f"{out}/short.csv", "\n".join(lines[:-1]).encode())
    with pytest.raises(errors.BadDataError, match="MCUCXR_0030"):
        run(store, out, raw, split_file=f"{out}/short.csv")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "names no patient: give a CSV with the columns patient,split"),
        ("patient,split\n", "names no patient: give a CSV with the columns patient,split"),
        ("id,split\nP1,train\n", "is not a table of splits .*patient,split"),
        ("patient,split\nP1,train\nP1,test\n", "'P1' has two splits, 'train' and 'test': remove"),
        ("patient,split\nP1\nP2,validation\n", "line 2 lacks the patient or the split: give both"),
        ("patient,split\nP1,train\n,val\n", "line 3 lacks the patient or the split: give both"),
        ("patient,split\nP1,dev\n", "'P1' the split 'dev': give one of train, val, test"),
        ("patient,split\nP1,train\nP2,val\n", "no patient into the split 'test': give each"),
    ],
)
def test_a_split_file_that_does_not_say_the_split_is_refused(
    store: Store, out: str, films: Path, text: str, words: str
) -> None:
    """An empty one must not pass for none, nor the last of two lines win."""
    uri = f"{out}/split.csv"
    store.write(uri, text.encode())
    with pytest.raises(errors.BadDataError, match=words) as caught:
        run(store, out, fetch(store, out, films), split_file=uri)
    assert uri in str(caught.value)
    assert not list(store.list_objects(f"{out}/processed/")), "refused before any work"


def test_how_a_spreadsheet_writes_a_split_file_changes_nothing(
    store: Store, out: str, films: Path
) -> None:
    lines = [f"MCUCXR_{n:04d},{('train', 'val', 'test')[n % 3]}" for n in range(1, 31)]
    raw = fetch(store, out, films)
    store.write(f"{out}/a.csv", "\n".join(["patient,split", *lines]).encode())
    store.write(f"{out}/b.csv", "\n".join(["patient,split", lines[0] + " ", *lines]).encode())
    excel = "\r\n".join(["Patient\tSplit", *lines]).replace(",", "\t").replace("train", "Train")
    store.write(f"{out}/c.csv", excel.encode("utf-16"))
    first = run(store, out, raw, split_file=f"{out}/a.csv")
    for name in "bc":
        again = run(store, out, raw, split_file=f"{out}/{name}.csv")
        assert again.fingerprint == first.fingerprint


def test_the_output_stays_the_same_until_the_recipe_says_otherwise(
    store: Store, out: str, tmp_path: Path
) -> None:
    """Golden output: where this fails, bump preprocess.RECIPE and put the new hash here.

    128 pixels become 64 and the greys are multiples of 4, so that every machine's mean is exact;
    the pixels are hashed, since how well PNG is packed may differ between processors.
    """
    root = tmp_path / "films"
    for number in range(40):
        film, left, right = draw_pair(number, 128, 128)
        for name, image in (
            (f"images/{number}.png", film // 4 * 4),
            (f"masks/{number}.png", left | right),
        ):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(png(image))
    made = run(store, out, fetch(store, out, root))
    lines = []
    for row in made.rows(store):
        pixels = [
            hashlib.sha256(np.array(Image.open(io.BytesIO(store.read(uri)))).tobytes()).hexdigest()
            for uri in (made.uri_of(row[kind]["key"]) for kind in ("image", "mask"))
        ]
        lines.append(repr((row["id"], row["split"], row["lung_fraction"], row["pixels"], *pixels)))
    # Recipe 2 rounds means of exact sums, 1 rounded those of float32; these means are whole.
    # Recipe 3 words reasons for quarantine otherwise; these films have none. Recipe 4 counts films
    # by source and split in another form, which no row holds. Recipe 5 refuses masks of several
    # values and inverted ones, and marks masks unlike lungs; these are of neither kind.
    golden = {"6": "abcd898e15c3b4c086c60fede5ee4ff9cd799153ff5c62d64199a69eb7fda51b"}
    digest = hashlib.sha256("".join(lines).encode()).hexdigest()
    assert digest == golden[preprocess.RECIPE]
