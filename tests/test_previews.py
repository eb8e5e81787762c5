"""What predict and inbox leave for the page of a run: previews, their places, and the sheet."""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
from PIL import Image

from jobs import errors, inbox, predict
from jobs.films.sheet import FILMS_PER_PAGE
from jobs.segmentation import inference
from jobs.settings.config import InboxConfig, PredictConfig, TrainConfig
from jobs.storage.manifest import Manifest
from jobs.storage.s3 import Store
from jobs.storage.work_folder import WorkFolder
from tests.support.films import draw_pair, png
from tests.support.inboxes import FILM, OTHER, crown, ledger

NO_LUNG = png(np.full((90, 70), 200, np.uint8))


@pytest.fixture(autouse=True)
def network(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network that calls dark what is lung, as it is on these films."""

    def probabilities(model: Any, images: Any, *, precision: str) -> Any:
        return (images < 125).astype(np.float32)

    monkeypatch.setattr(inference, "load_model", lambda weights, architecture: None)
    monkeypatch.setattr(inference, "probabilities", probabilities)


@pytest.fixture
def trained(store: Store, out: str) -> Manifest:
    config = TrainConfig(processed=f"{out}/processed/0123456789abcdef/manifest.json", out=out)
    folder = WorkFolder(store, config, job="train", folder="trained", recipe="test")
    recipe = {
        "spatial_size": 64,
        "fit": "stretch",
        "crop_borders": False,
        "precision": "auto",
        "review_below": 0.5,
    }
    folder.add_file("model.json", json.dumps({"architecture": {}, "recipe": recipe}).encode())
    folder.add_file("model.safetensors", b"")
    return folder.finish(counts={}, headline={"val_dice": 0.8, "best_val_dice": 0.9})


@pytest.fixture
def films(store: Store, out: str) -> str:
    """20 films in 3 parts: 18 with lungs, one without, and one that cannot be read."""
    uri = f"{out}/inbox"
    store.write_many((f"{uri}/{n:02}.png", png(draw_pair(n, 150, 120)[0])) for n in range(18))
    store.write(f"{uri}/broken.png", FILM[:500])
    store.write(f"{uri}/no_lung.png", NO_LUNG)
    return uri


def run(store: Store, out: str, trained: Manifest, films: str, **changes: Any) -> Manifest:
    config = PredictConfig(trained=trained.uri, films=films, out=out, **changes)
    return predict.run(config, store)


def preview_of(store: Store, folder: str, row: Any) -> Image.Image:
    place = row["preview"]
    packed = store.read(f"{folder}/{place['key']}")
    image = Image.open(io.BytesIO(packed[place["offset"] :][: place["bytes"]]))
    image.load()
    return image


def check_previews(store: Store, folder: str, rows: Iterable[Any]) -> int:
    """Each masked film's preview is its own, by its gray levels; returns their number."""
    count = 0
    for row in rows:
        assert ("preview" in row) == (row["status"] == "ok")
        if row["status"] == "ok" and row["origin"] != "no_lung.png":
            film = Image.fromarray(draw_pair(int(row["origin"][:2]), 150, 120)[0])
            image = preview_of(store, folder, row)
            assert image.size == film.size == (120, 150)
            difference = np.array(image.convert("L")) - np.array(film).astype(float)
            assert np.abs(difference).mean() < 12
            count += 1
    return count


def test_predict_writes_a_pack_of_previews_for_each_part_and_rows_name_their_places(
    store: Store, out: str, trained: Manifest, films: str
) -> None:
    made = run(store, out, trained, films)
    assert check_previews(store, made.root, made.rows(store)) == 18
    packs = list(store.list_objects(f"{made.root}/previews/"))
    assert len(packs) == len(made.parts) == 3
    assert sum(pack.bytes for pack in packs) == sum(
        row["preview"]["bytes"] for row in made.rows(store) if "preview" in row
    )


def test_predict_names_its_folder_from_the_start_and_leaves_a_sheet(
    store: Store, out: str, trained: Manifest, films: str
) -> None:
    made = run(store, out, trained, films, run_id="one", shard="1/2")
    pointer = {"predictions": made.root, "films": 20, "parts": 3}
    assert store.read_json(f"{out}/runs/one/predict.json") == pointer
    assert not store.exists(f"{made.root}/sheet.json")
    made = run(store, out, trained, films, run_id="one", shard="2/2")
    sheet = json.loads(made.read_file(store, "sheet.json"))
    assert sheet["run_id"] == "one"
    assert sheet["counts"] == made.counts
    assert sheet["sections"] == {"review": 1, "failed": 1, "others": 18}
    assert sheet["model"] == {"version": trained.fingerprint, "val_dice": 0.9}
    rows = made.read_file(store, "sheet.jsonl")
    first, second = map(json.loads, rows.splitlines()[:2])
    assert (first["origin"], first["reason"]) == ("no_lung.png", "no lung was found")
    assert second["origin"] == "broken.png"
    preview_of(store, made.root, first)
    reused = run(store, out, trained, films, run_id="two")
    assert reused.reused
    assert store.read_json(f"{out}/runs/two/predict.json") == pointer


def test_a_killed_predict_goes_on_and_no_preview_is_lost_or_of_another_film(
    store: Store, out: str, trained: Manifest, films: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(store, out, trained, films)
    put, packs = WorkFolder.put, list[str]()

    def dies_at_the_second_pack(self: Any, key: str, data: bytes, *rest: str) -> Any:
        if key.startswith("previews/"):
            packs.append(key)
            if len(packs) == 2:
                raise KeyboardInterrupt
        return put(self, key, data, *rest)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(WorkFolder, "put", dies_at_the_second_pack)
        run(store, out, trained, films, force=True, run_id="killed")
    again = run(store, out, trained, films, force=True, run_id="killed")
    assert check_previews(store, again.root, again.rows(store)) == 18
    assert again.content_hash == whole.content_hash
    assert len(list(store.list_objects(f"{again.root}/previews/"))) == 3


def test_a_mask_for_review_has_its_reason_in_the_row_and_in_the_table(
    store: Store, out: str, trained: Manifest, films: str
) -> None:
    made = run(store, out, trained, films)
    reasons = {row["origin"]: row.get("reason", "") for row in made.rows(store)}
    assert reasons.pop("broken.png") == "truncated"
    assert {name: reason for name, reason in reasons.items() if reason} == {
        "no_lung.png": "no lung was found"
    }
    assert b"no lung was found" in made.read_file(store, "predictions.csv")


def mask(store: Store, out: str, run_id: str = "r1", **changes: Any) -> Manifest:
    return inbox.run(InboxConfig(out=out, inbox=f"{out}/inbox", run_id=run_id, **changes), store)


def sheet_of(store: Store, made: Manifest) -> tuple[Any, list[Any]]:
    sheet = json.loads(made.read_file(store, "sheet.json"))
    rows = made.read_file(store, "sheet.jsonl")
    lines = [rows[start:stop] for start, stop in itertools.pairwise(sheet["pages"])]
    return sheet, [json.loads(line) for line in b"".join(lines).splitlines()]


def test_the_inbox_keeps_previews_beside_the_masks_and_a_sheet_of_each_run(
    store: Store, out: str, films: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox, "FILMS_PER_PART", 8)
    crown(store, out, "v1")
    store.write(f"{films}/notes.txt", b"no film")
    made = mask(store, out)
    folder = f"{out}/masks/lung-unet/v1"
    assert check_previews(store, folder, ledger(store, out)) == 18
    assert len(list(store.list_objects(f"{folder}/previews/"))) == 3
    sheet, rows = sheet_of(store, made)
    assert sheet["model"] == {"name": "lung-unet", "version": "v1", "val_dice": None}
    assert sheet["skipped"] == {"text and metadata": 1}
    assert sheet["counts"] == made.counts
    assert [row["origin"] for row in rows[:2]] == ["no_lung.png", "broken.png"]
    store.write(f"{films}/late.png", OTHER)
    sheet, rows = sheet_of(store, mask(store, out, "r2"))
    assert (sheet["counts"]["films"], sheet["counts"]["new"]) == (21, 1)
    (late,) = rows
    assert late["origin"] == "late.png"
    assert preview_of(store, folder, late).size == (70, 90)


def test_a_run_of_the_inbox_that_died_has_every_film_on_its_sheet(
    store: Store, out: str, films: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox, "FILMS_PER_PART", 8)
    crown(store, out, "v1")
    append, parts = inbox.Ledger.append, list[int]()

    def dies_at_the_second_part(self: Any, rows: Any) -> None:
        parts.append(len(rows))
        if len(parts) == 2:
            raise KeyboardInterrupt
        append(self, rows)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(inbox.Ledger, "append", dies_at_the_second_part)
        mask(store, out)
    _, rows = sheet_of(store, mask(store, out))
    assert len(rows) == 20
    assert check_previews(store, f"{out}/masks/lung-unet/v1", rows) == 18


def test_a_run_that_is_refused_the_ledger_moves_no_preview_of_the_other(
    store: Store, out: str, films: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both write the first part; the network of the second finds other masks."""
    crown(store, out, "v1")
    count, started = inbox._Survey.count, list[str]()

    def darker(model: Any, images: Any, *, precision: str) -> Any:
        return (images < 100).astype(np.float32)

    def with_another_run_meanwhile(*arguments: Any) -> Any:
        found = count(*arguments)
        if not started:
            started.append("other")
            mask(store, out, "other")
            monkeypatch.setattr(inference, "probabilities", darker)
        return found

    monkeypatch.setattr(inbox._Survey, "count", with_another_run_meanwhile)
    with pytest.raises(errors.ConflictError):
        mask(store, out)
    assert check_previews(store, f"{out}/masks/lung-unet/v1", ledger(store, out)) == 18


def test_without_a_champion_the_sheet_says_so(store: Store, out: str) -> None:
    sheet, rows = sheet_of(store, mask(store, out, starter=False))
    assert (sheet["model"]["version"], sheet["pages"], rows) == ("none", [0], [])


def test_the_page_has_as_many_films_as_the_sheet_says(
    store: Store, out: str, trained: Manifest
) -> None:
    films = f"{out}/many"
    store.write_many((f"{films}/{n:03}.png", b"") for n in range(FILMS_PER_PAGE + 3))
    made = run(store, out, trained, films)
    sheet, rows = sheet_of(store, made)
    assert len(rows) == FILMS_PER_PAGE + 3
    assert (len(sheet["pages"]), sheet["films_per_page"]) == (3, FILMS_PER_PAGE)
