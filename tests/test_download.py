from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
from PIL import Image

from jobs import download, errors
from jobs.films.rows import raw_rows
from jobs.settings.config import DownloadConfig
from jobs.storage.manifest import Manifest
from jobs.storage.s3 import Store
from tests.support.films import draw_pair, png, write_montgomery
from tests.support.kaggle_stub import kaggle_stub


def run(store: Store, out: str, source: str) -> Manifest:
    return download.run(DownloadConfig(source=source, out=out), store)


def zipped(folder: Path) -> Path:
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w") as archive:
        for film in sorted(folder.rglob("*.png")):
            archive.write(film, film.relative_to(folder))
    return path


def test_films_and_masks_are_copied_byte_for_byte(store: Store, out: str, tmp_path: Path) -> None:
    write_montgomery(tmp_path, 3)
    raw = run(store, out, tmp_path.as_uri())
    rows = list(raw.rows(store))
    assert [row["id"] for row in rows] == ["MCUCXR_0001_1", "MCUCXR_0002_0", "MCUCXR_0003_1"]
    assert raw.counts == {"films": 3, "pairs": 3, "without_mask": 0}
    for row in rows:
        path = tmp_path / row["origin"]
        assert store.read(raw.uri_of(row["film"]["key"])) == path.read_bytes()
        for side in ("left", "right"):
            mask = path.parent.parent / f"ManualMask/{side}Mask/{path.name}"
            assert store.read(raw.uri_of(row["masks"][side]["key"])) == mask.read_bytes()
    assert {row["label"] for row in rows} == {"normal", "abnormal"}


def test_control_characters_in_a_films_name_stay_in_its_row(
    store: Store, out: str, tmp_path: Path
) -> None:
    names = ("cr\rx_1.png", "new\nline_1.png", "tab\tx_1.png")
    for seed, name in enumerate(names):
        film, left, right = draw_pair(seed)
        for folder, image in (("images", film), ("masks", left | right)):
            (tmp_path / folder).mkdir(exist_ok=True)
            (tmp_path / folder / name).write_bytes(png(image))
    config = DownloadConfig(source=tmp_path.as_uri(), out=out, patient_pattern=r"^([^_]+)_")
    rows = list(raw_rows(store, download.run(config, store)))
    assert {row["origin"] for row in rows} == {f"images/{name}" for name in names}
    assert {row["patient"] for row in rows} == {"cr\rx", "new\nline", "tab\tx"}


def test_a_folder_and_a_zip_of_it_have_the_same_content(
    store: Store, out: str, tmp_path: Path
) -> None:
    write_montgomery(tmp_path / "films", 2)
    zipped(tmp_path / "films")
    folder = run(store, out, (tmp_path / "films").as_uri())
    archived = run(store, out, (tmp_path / "films.zip").as_uri())
    assert folder.content_hash == archived.content_hash


def test_a_prefix_and_a_zip_in_s3_are_sources_too(store: Store, out: str, tmp_path: Path) -> None:
    write_montgomery(tmp_path / "films", 2)
    for path in (tmp_path / "films").rglob("*.png"):
        store.upload(path, f"{out}/films/{path.relative_to(tmp_path / 'films')}")
    store.upload(zipped(tmp_path / "films"), f"{out}/films.zip")
    local = run(store, out, (tmp_path / "films").as_uri())
    assert run(store, out, f"{out}/films").content_hash == local.content_hash
    assert run(store, out, f"{out}/films.zip").content_hash == local.content_hash


def test_films_of_one_source_find_their_masks_in_another(
    store: Store, out: str, tmp_path: Path
) -> None:
    film, left, right = draw_pair(1)
    for name, image in (
        ("films/CXR_png/CHNCXR_0001_0.png", film),
        ("masks/mask/CHNCXR_0001_0_mask.png", left | right),
    ):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_bytes(png(image))
    source = f"{(tmp_path / 'films').as_uri()}+{(tmp_path / 'masks').as_uri()}"
    raw = run(store, out, source)
    (row,) = raw.rows(store)
    assert (row["source"], row["patient"], list(row["masks"])) == (
        "shenzhen",
        "CHNCXR_0001",
        ["lungs"],
    )


def test_a_second_run_reuses_the_work(store: Store, out: str, tmp_path: Path) -> None:
    write_montgomery(tmp_path, 1)
    assert not run(store, out, tmp_path.as_uri()).reused
    assert run(store, out, tmp_path.as_uri()).reused
    (tmp_path / "notes.txt").write_text("one file more is another source")
    assert not run(store, out, tmp_path.as_uri()).reused


def test_where_no_film_is_recognised_the_error_lists_what_was_ignored(
    store: Store, out: str, tmp_path: Path
) -> None:
    (tmp_path / "readme.txt").write_text("no films")
    with pytest.raises(errors.BadDataError, match="no films were recognised") as caught:
        run(store, out, tmp_path.as_uri())
    assert caught.value.exit_code == 65


def test_one_name_for_two_different_films_is_refused(
    store: Store, out: str, tmp_path: Path
) -> None:
    for folder, seed in (("a/CXR_png", 1), ("b/CXR_png", 2)):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "CHNCXR_0001_0.png").write_bytes(png(draw_pair(seed)[0]))
    with pytest.raises(errors.BadDataError, match="same film's name but differ"):
        run(store, out, tmp_path.as_uri())


def test_the_same_film_recompressed_in_another_source_is_kept_once(
    store: Store, out: str, tmp_path: Path
) -> None:
    film = Image.fromarray(draw_pair(1)[0])
    for folder, level in (("a/CXR_png", 1), ("b/CXR_png", 9)):
        (tmp_path / folder).mkdir(parents=True)
        film.save(tmp_path / folder / "CHNCXR_0001_0.png", compress_level=level)
    raw = run(store, out, f"{(tmp_path / 'a').as_uri()}+{(tmp_path / 'b').as_uri()}")
    assert raw.counts["films"] == 1
    assert raw.details["copies"] == ["CXR_png/CHNCXR_0001_0.png"]


def test_of_two_masks_of_a_film_that_differ_the_first_is_kept_and_both_are_named(
    store: Store, out: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    film, left, right = draw_pair(1)
    for name, image in (
        ("CXR_png/CHNCXR_0001_0.png", film),
        ("mask/CHNCXR_0001_0_mask.png", left | right),
        ("other/mask/CHNCXR_0001_0_mask.png", left),
    ):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_bytes(png(image))
    raw = run(store, out, tmp_path.as_uri())
    (row,) = raw.rows(store)
    assert store.read(raw.uri_of(row["masks"]["lungs"]["key"])) == png(left | right)
    one, other = "mask/CHNCXR_0001_0_mask.png", "other/mask/CHNCXR_0001_0_mask.png"
    assert f"{one} and {other} differ: the first is the mask" in caplog.messages


def test_a_kaggle_source_has_the_content_of_its_archive(
    store: Store, out: str, tmp_path: Path
) -> None:
    write_montgomery(tmp_path / "films", 3)
    path = zipped(tmp_path / "films")
    with kaggle_stub({"team/films": path.read_bytes()}):
        from_kaggle = run(store, out, "kaggle://team/films")
        assert run(store, out, "kaggle://team/films").reused
    from_file = run(store, out, path.as_uri())
    assert from_kaggle.content_hash == from_file.content_hash
    assert from_kaggle.config["sources"] != from_file.config["sources"]


@pytest.mark.slow
def test_real_films_from_kaggle_have_the_content_of_their_archive(
    store: Store, out: str, shared_data: Path
) -> None:
    path = shared_data / "kermany-as-masks-and-labels.zip"
    with kaggle_stub({"team/films": path.read_bytes()}):
        from_kaggle = run(store, out, "kaggle://team/films")
    assert from_kaggle.content_hash == run(store, out, path.as_uri()).content_hash


@pytest.mark.slow
def test_every_film_of_the_real_archives_is_recognised(
    store: Store, out: str, shared_data: Path
) -> None:
    one = run(store, out, (shared_data / "kermany-as-montgomery.zip").as_uri())
    assert one.counts == {"films": 60, "pairs": 60, "without_mask": 0}
    two = run(store, out, (shared_data / "kermany-as-masks-and-labels.zip").as_uri())
    assert two.counts == {"films": 140, "pairs": 130, "without_mask": 10}
    assert len(two.details["without_mask"]) == 10
    assert sum(two.details["ignored"].values()) == 141, "140 readings and one checkpoint"
