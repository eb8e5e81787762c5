"""One film's mask and its row, by what model.json says."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from jobs.films import masker as masker_module
from jobs.films.masker import Film, Masker, log_review
from jobs.films.network import Network, load_network, load_predictor
from jobs.films.rows import PredictionRow
from jobs.imaging import decode, geometry
from jobs.imaging.geometry import Placing
from jobs.segmentation import inference, quality
from jobs.storage.manifest import FileRow
from tests.support.films import draw_pair, ellipse, png

SIZE, HEIGHT, WIDTH = 64, 160, 128
MOST_READ_AHEAD = 2 * masker_module.READERS
FILM = draw_pair(1, HEIGHT, WIDTH)[0]
LUNGS = ellipse(SIZE, SIZE, (0.5, 0.3)) | ellipse(SIZE, SIZE, (0.5, 0.7))


@pytest.fixture(autouse=True)
def found(monkeypatch: pytest.MonkeyPatch) -> NDArray[np.float32]:
    """What the network finds on every film: two lungs, a doubtful hole in one, a speck beside."""
    probabilities = np.asarray(ndimage.gaussian_filter(LUNGS.astype(np.float32), 1.5))
    probabilities[30:34, 18:22] = 0.2
    probabilities[2:5, 30:34] = 0.8
    monkeypatch.setattr(inference, "load_model", lambda weights, architecture: None)
    monkeypatch.setattr(
        inference,
        "probabilities",
        lambda model, images, precision: np.repeat(probabilities[np.newaxis], len(images), 0),
    )
    return probabilities


def about(**recipe: Any) -> dict[str, Any]:
    """A model.json that takes the probabilities from 0.5 on as they are, but for `recipe`."""
    plain = {"fit": "stretch", "crop_borders": False, "threshold": 0.5, "precision": "auto"}
    return {"architecture": {}, "recipe": {"spatial_size": SIZE} | plain | recipe}


def put_nothing(film_id: str, mask: bytes) -> FileRow:
    return FileRow(key=film_id, bytes=len(mask), sha256="")


def keep_nothing(film_id: str, preview: bytes) -> None:
    pass


def row_of(model: Mapping[str, Any], data: bytes = b"") -> PredictionRow:
    (row,) = rows_of({"a": data or png(FILM)}, {}, model)
    return row


def rows_of(
    films: Mapping[str, bytes | None], kept: dict[str, bytes], model: Mapping[str, Any]
) -> list[PredictionRow]:
    """The rows of films, by their ids, as one part; their masks are put in `kept`."""

    def put(film_id: str, mask: bytes) -> FileRow:
        kept[film_id] = mask
        return put_nothing(film_id, mask)

    masker = Masker(Network(model, b""), lambda film: films[film.id], put, keep_nothing)
    return list(masker.rows([[Film(name, f"films/{name}.png", "") for name in films]]))


def restored(found: NDArray[np.float32]) -> NDArray[np.float32]:
    return geometry.resize(found, HEIGHT, WIDTH)


def test_a_recipe_without_steps_takes_the_probabilities_at_their_threshold(
    found: NDArray[np.float32],
) -> None:
    assert np.array_equal(load_predictor(about(), b"")(FILM), restored(found) >= 0.5)
    assert row_of(about())["review"] is False


def test_the_mask_is_cleaned_at_the_films_own_size(found: NDArray[np.float32]) -> None:
    model = about(threshold=0.4, largest_components=2, fill_holes=True)
    labels, count = ndimage.label(restored(found) >= 0.4)
    sizes = np.bincount(labels.ravel())[1:]
    expected = ndimage.binary_fill_holes((labels > 0) & (labels != 1 + sizes.argmin()))
    mask = load_predictor(model, b"")(FILM)
    assert count == 3
    assert np.array_equal(mask, expected)
    assert row_of(model)["lung_fraction"] == round(float(expected.mean()), 6)


@pytest.mark.parametrize("crop", [False, True])
def test_a_mask_lies_where_the_film_was_placed(monkeypatch: pytest.MonkeyPatch, crop: bool) -> None:
    """The network finds what is dark within the film; in the square that is not all that is dark.

    The wide film has black borders, so that a mask stretched back, or put back askew, is another.
    """
    film, left, right = draw_pair(1, 200, 320)
    lungs = np.pad(left | right, ((30, 10), (0, 40)))
    film = np.pad(film, ((30, 10), (0, 40)))
    placement = Placing(SIZE, "letterbox", crop).place(film)
    known = placement.mask_to_square(lungs)[np.newaxis].astype(np.float32)

    def find(model: None, images: NDArray[np.uint8], precision: str) -> NDArray[np.float32]:
        assert np.array_equal(images[0], placement.film_to_square(film))
        return known

    monkeypatch.setattr(inference, "load_model", lambda weights, architecture: None)
    monkeypatch.setattr(inference, "probabilities", find)
    model = about(fit="letterbox", crop_borders=crop)
    mask = load_predictor(model, b"")(film)
    assert mask.shape == film.shape == (240, 360)
    assert 2 * (mask & lungs).sum() / (mask.sum() + lungs.sum()) > 0.95
    assert row_of(model, png(film))["lung_fraction"] == round(float(mask.mean()), 6)


def test_a_raw_film_of_the_networks_size_is_cropped_and_a_placed_one_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A square film with black borders, of just the size that the network sees."""
    film = np.pad(np.full((SIZE - 16, SIZE - 16), 150, np.uint8), 8)
    squares: list[NDArray[np.uint8]] = []

    def note(model: None, images: NDArray[np.uint8], precision: str) -> NDArray[np.float32]:
        squares.extend(images)
        return np.zeros(images.shape, np.float32)

    monkeypatch.setattr(inference, "probabilities", note)
    model = about(crop_borders=True)
    masker = Masker(Network(model, b""), lambda film_: png(film), put_nothing, keep_nothing)
    list(masker.rows([[Film("raw", "raw.png", ""), Film("placed", "p.png", "", is_placed=True)]]))
    load_predictor(model, b"")(film)
    load_network(model, b"")(film)
    raw, placed, predicted, scored = squares
    assert (raw == 150).all() and (predicted == 150).all()
    assert np.array_equal(placed, film) and np.array_equal(scored, film)


def test_the_row_has_the_quality_of_the_networks_own_probabilities(
    found: NDArray[np.float32],
) -> None:
    for recipe in ({}, {"threshold": 0.3, "largest_components": 2, "fill_holes": True}):
        assert row_of(about(**recipe))["quality"] == round(quality.score(found), 6)


def test_a_film_listed_as_too_large_fails_with_its_size_and_is_never_read() -> None:
    read: list[str] = []

    def note(film: Film) -> bytes:
        read.append(film.id)
        return png(FILM)

    films = [Film("a", "a.tif", "", bytes=8_000 * 2**20), Film("b", "b.tif", "", bytes=2**27)]
    masker = Masker(Network(about(), b""), note, put_nothing, keep_nothing)
    large, fitting = masker.rows([films])
    assert (large["status"], fitting["status"]) == ("failed", "ok")
    assert large["reason"] == "too large: 8,000 MB are over 128"
    assert read == ["b"]


def test_a_mask_of_less_quality_than_the_model_asks_for_is_for_review(
    found: NDArray[np.float32],
) -> None:
    least = round(quality.score(found), 6)
    assert row_of(about(review_below=least))["review"] is False
    assert row_of(about(review_below=least + 1e-6))["review"] is True


def test_an_empty_mask_is_always_for_review() -> None:
    row = row_of(about(threshold=1.1))
    assert (row["status"], row["lung_fraction"], row["review"]) == ("ok", 0, True)


def test_a_film_that_cannot_be_read_has_neither_mask_nor_quality() -> None:
    row = row_of(about(), b"no film")
    assert row.keys() == {"id", "origin", "status", "reason"}


def test_a_film_of_several_pages_is_said_with_its_name(caplog: pytest.LogCaptureFixture) -> None:
    buffer = io.BytesIO()
    pages = [Image.fromarray(FILM), Image.fromarray(255 - FILM)]
    pages[0].save(buffer, "TIFF", save_all=True, append_images=pages[1:])
    assert row_of(about(), buffer.getvalue())["status"] == "ok"
    assert "films/a.png: the first of 2 pages is read" in caplog.messages


def test_what_is_for_review_is_said_in_one_line_and_nothing_in_none(
    caplog: pytest.LogCaptureFixture,
) -> None:
    log_review(0, "s3://lung/predictions.csv")
    assert caplog.messages == []
    log_review(3, "s3://lung/predictions.csv")
    (line,) = caplog.messages
    assert line.startswith("3 masks ") and line.endswith(" in s3://lung/predictions.csv")


def test_what_is_put_is_the_mask_at_the_films_own_size(found: NDArray[np.float32]) -> None:
    kept: dict[str, bytes] = {}
    (row,) = rows_of({"a": png(FILM)}, kept, about())
    assert (row["height"], row["width"], row["origin"]) == (HEIGHT, WIDTH, "films/a.png")
    assert row["mask"] == put_nothing("a", kept["a"])
    assert np.array_equal(decode.decode_mask(kept["a"]), restored(found) >= 0.5)


def test_films_of_any_size_go_through_the_network_together_and_each_comes_out_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The network finds the film itself, so a mask of another film's would show."""
    shapes = [(90, 70), (160, 128), (64, 64), (33, 201), (70, 90), (5, 5), (128, 160)]
    pictures = [draw_pair(seed, *shape)[0] for seed, shape in enumerate(shapes)]
    films: dict[str, bytes | None] = {str(n): png(film) for n, film in enumerate(pictures)}
    films |= {"bad": b"no film", "gone": None}
    together: list[int] = []

    def network(model: Any, images: Any, precision: str) -> Any:
        together.append(len(images))
        return (images < 125).astype(np.float32)

    monkeypatch.setattr(inference, "probabilities", network)
    monkeypatch.setattr(inference, "films_at_once", lambda model, size, precision: 5)
    kept: dict[str, bytes] = {}
    rows = rows_of(films, kept, about())
    assert [row["id"] for row in rows] == list(films)
    assert [row["status"] for row in rows] == ["ok"] * 7 + ["failed", "missing"]
    assert sorted(together) == [3, 4], (
        "9 films in batches of 4 and 5, of which 2 cannot be computed"
    )
    for name, film in enumerate(pictures):
        square = geometry.resize_film(film, SIZE, SIZE)
        dark = geometry.resize((square < 125).astype(np.float32), *film.shape)
        assert np.array_equal(decode.decode_mask(kept[str(name)]), dark >= 0.5)


def test_two_batches_are_computed_side_by_side_each_with_its_share_of_the_threads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = torch.get_num_threads()
    both = threading.Barrier(2)
    shares: list[int] = []

    def network(model: Any, images: Any, precision: str) -> Any:
        both.wait(30)
        shares.append(torch.get_num_threads())
        return (images < 125).astype(np.float32)

    monkeypatch.setattr(inference, "probabilities", network)
    monkeypatch.setattr(inference, "films_at_once", lambda model, size, precision: 2)
    monkeypatch.setattr(inference, "batches_at_once", lambda size: 2)
    monkeypatch.setattr(inference, "THREADS", 6)
    films: dict[str, bytes | None] = {str(n): png(FILM) for n in range(8)}
    rows = rows_of(films, {}, about())
    assert [(row["id"], row["status"]) for row in rows] == [(name, "ok") for name in films]
    assert shares == [3, 3, 3, 3]
    assert torch.get_num_threads() == before, "the main thread's are its own"


def test_a_set_of_which_no_film_can_be_read_has_its_rows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(inference, "probabilities", None)
    rows = rows_of({"a": b"no film", "b": b""}, {}, about())
    assert [row["status"] for row in rows] == ["failed", "failed"]


def test_films_are_read_and_written_while_others_compute_and_never_far_ahead(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """While the network is at its first batch, others are read; how many, its pace decides."""
    read: list[str] = []
    waits, goes_on = threading.Event(), threading.Event()

    def network(model: Any, images: Any, precision: str) -> Any:
        waits.set()
        assert goes_on.wait(30)
        return (images < 125).astype(np.float32)

    def read_film(film: Film) -> bytes:
        read.append(film.id)
        return png(FILM)

    monkeypatch.setattr(inference, "probabilities", network)
    monkeypatch.setattr(inference, "films_at_once", lambda model, size, precision: 4)
    masker = Masker(Network(about(), b""), read_film, put_nothing, keep_nothing)
    parts = ([Film(f"{part}-{n}", "", "") for n in range(8)] for part in range(1000))
    rows = masker.rows(parts)
    with ThreadPoolExecutor(1) as consumer:
        first = consumer.submit(next, rows)
        assert waits.wait(30)
        time.sleep(0.3)
        ahead = len(read)
        goes_on.set()
        assert first.result()["id"] == "0-0"
    rows.close()
    waiting = 4 * (masker.network.batches_at_once + masker_module.BATCHES_AHEAD)
    assert waiting < ahead <= waiting + MOST_READ_AHEAD
    assert len(read) <= waiting + 2 * 4 + 2 * masker_module.WRITERS + MOST_READ_AHEAD
