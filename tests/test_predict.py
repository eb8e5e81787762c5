"""predict on a network that is made up: what is right can be told by hand."""

from __future__ import annotations

import csv
import hashlib
import io
import itertools
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from jobs import download, predict, preprocess
from jobs.films import masker
from jobs.films.rows import prediction_rows
from jobs.local import copy_to_incoming
from jobs.segmentation import inference
from jobs.settings.config import (
    DownloadConfig,
    PredictConfig,
    PreprocessConfig,
    TrainConfig,
)
from jobs.sources import source
from jobs.storage.manifest import Manifest
from jobs.storage.s3 import Store
from jobs.storage.work_folder import WorkFolder
from tests.support.films import draw_pair, png, write_montgomery

HEIGHT, WIDTH = 160, 128


@pytest.fixture
def films(tmp_path: Path) -> Path:
    write_montgomery(tmp_path / "films", 24)
    return tmp_path / "films"


@pytest.fixture
def raw(store: Store, out: str, films: Path) -> Manifest:
    return download.run(DownloadConfig(source=films.as_uri(), out=out), store)


@pytest.fixture
def processed(store: Store, out: str, raw: Manifest) -> Manifest:
    return preprocess.run(PreprocessConfig(raw=raw.uri, out=out, size=64), store)


@pytest.fixture
def trained(
    store: Store, out: str, processed: Manifest, monkeypatch: pytest.MonkeyPatch
) -> Manifest:
    """A network that calls dark what is lung: on these films nearly right, and known exactly."""
    stage = WorkFolder(
        store,
        TrainConfig(processed=processed.uri, out=out),
        job="train",
        folder="trained",
        recipe="test",
        inputs={"processed": processed},
    )
    about = {
        "architecture": {},
        "recipe": {
            "spatial_size": 64,
            "fit": "stretch",
            "crop_borders": False,
            "threshold": 0.5,
            "precision": "auto",
        },
    }
    stage.add_file("model.json", json.dumps(about).encode())
    stage.add_file("model.safetensors", b"")
    monkeypatch.setattr(inference, "load_model", lambda weights, architecture: None)
    monkeypatch.setattr(
        inference,
        "probabilities",
        lambda model, images, precision: (images < 125).astype(np.float32),
    )
    return stage.finish(counts={}, headline={})


def run(store: Store, out: str, trained: Manifest, films: str, **changes: Any) -> Manifest:
    config = PredictConfig(trained=trained.uri, films=films, out=out, **changes)
    return predict.run(config, store)


def mask_of(store: Store, made: Manifest, row: dict[str, Any]) -> Image.Image:
    return Image.open(io.BytesIO(store.read(made.uri_of(row["mask"]["key"]))))


def test_each_mask_is_a_1_bit_png_of_its_films_own_size(
    store: Store, out: str, trained: Manifest, raw: Manifest
) -> None:
    made = run(store, out, trained, raw.uri)
    assert made.counts == {"films": 24, "masks": 24, "failed": 0, "review": 0}
    for row in made.rows(store):
        mask = mask_of(store, made, row)
        assert (mask.mode, mask.size) == ("1", (WIDTH, HEIGHT))
        assert row["lung_fraction"] == pytest.approx(np.array(mask).mean(), abs=1e-6)


def test_a_bad_film_is_a_row_with_its_error(
    store: Store, out: str, trained: Manifest, films: Path
) -> None:
    (films / "Montgomery/MontgomerySet/CXR_png/MCUCXR_0003_1.png").write_bytes(b"not a film")
    raw = download.run(DownloadConfig(source=films.as_uri(), out=out), store)
    made = run(store, out, trained, raw.uri)
    assert made.counts == {"films": 24, "masks": 23, "failed": 1, "review": 0}
    table = csv.DictReader(io.StringIO(made.read_file(store, "predictions.csv").decode()))
    rows = {row["id"]: row for row in table}
    assert len(rows) == 24
    assert rows["MCUCXR_0003_1"]["status"] == "failed"
    assert "undecodable" in rows["MCUCXR_0003_1"]["reason"]
    assert rows["MCUCXR_0004_0"]["mask"] == "masks/MCUCXR_0004_0.png"


def test_films_for_review_are_counted_flagged_in_the_table_and_pointed_to(
    store: Store, out: str, trained: Manifest, caplog: pytest.LogCaptureFixture
) -> None:
    store.write(f"{out}/inbox/lungs.png", png(draw_pair(1)[0]))
    store.write(f"{out}/inbox/no_lung.png", png(np.full((90, 70), 200, np.uint8)))
    made = run(store, out, trained, f"{out}/inbox")
    assert made.counts == {"films": 2, "masks": 2, "failed": 0, "review": 1}
    assert made.headline["review"] == 1
    assert f"1 masks are for review: those with review True in {made.root}/predictions.csv" in (
        caplog.messages
    )
    table = csv.DictReader(io.StringIO(made.read_file(store, "predictions.csv").decode()))
    lines = {line["id"]: line for line in table}
    assert [lines[name]["review"] for name in ("lungs", "no_lung")] == ["False", "True"]
    for row in made.rows(store):
        assert type(row["review"]) is bool
        assert float(lines[row["id"]]["quality"]) == row["quality"]
    assert 0 == float(lines["no_lung"]["quality"]) < float(lines["lungs"]["quality"]) < 1


def test_the_same_films_and_network_give_the_rows_and_masks_that_they_always_gave(
    store: Store, out: str, trained: Manifest
) -> None:
    """Golden output: where this fails, bump predict.RECIPE and put the new hash here."""
    for seed, shape in ((1, (160, 128)), (2, (90, 70)), (3, (64, 64))):
        store.write(f"{out}/inbox/{seed}.png", png(draw_pair(seed, *shape)[0]))
    made = run(store, out, trained, f"{out}/inbox")
    lines = []
    for row in made.rows(store):
        pixels = hashlib.sha256(np.array(mask_of(store, made, row)).tobytes()).hexdigest()
        lines.append(json.dumps({**row, "mask": pixels}, sort_keys=True))
    # Recipe 5 adds skipped.csv; the masks are those of recipe 4.
    golden = {"6": "538cf6ade311233984654815d233411779e6aaaba5e3afd5c45e5bfa4008a114"}
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest() == golden[predict.RECIPE]


def test_any_prefix_of_films_will_do(store: Store, out: str, trained: Manifest) -> None:
    store.write(f"{out}/inbox/monday/a.png", png(draw_pair(1)[0]))
    store.write(f"{out}/inbox/monday/b.PNG", png(draw_pair(2, 90, 70)[0]))
    store.write(f"{out}/inbox/notes.txt", b"not a film")
    made = run(store, out, trained, f"{out}/inbox")
    sizes = {row["id"]: mask_of(store, made, row).size for row in made.rows(store)}
    assert sizes == {"a": (128, 160), "b": (70, 90)}


def test_a_tiny_film_has_a_mask_of_its_own_size(store: Store, out: str, trained: Manifest) -> None:
    sizes = [(1, 1), (3, 2), (30, 20), (2000, 3), (3, 2000), (33, 31)]
    for size, most, white in itertools.product(sizes, (255, 65535), (False, True)):
        film = np.full(size, white * most, np.min_scalar_type(most))
        store.write(f"{out}/inbox/{size} {most} {white}.png", png(film))
    for row in (made := run(store, out, trained, f"{out}/inbox")).rows(store):
        mask = np.array(mask_of(store, made, row))
        assert row["origin"].startswith(str(mask.shape))
        assert mask.all() == row["origin"].endswith("False.png")
    assert made.counts["masks"] == 4 * len(sizes)


def test_an_inverted_film_is_masked_as_stored(store: Store, out: str, trained: Manifest) -> None:
    film, left, right = draw_pair(1)
    store.write(f"{out}/inbox/monochrome1.png", png(255 - film))
    (row,) = (made := run(store, out, trained, f"{out}/inbox")).rows(store)
    assert (np.array(mask_of(store, made, row)) == ~(left | right)).mean() > 0.95


def test_a_line_break_in_a_films_name_does_not_damage_its_row(
    store: Store, out: str, trained: Manifest, tmp_path: Path
) -> None:
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "cr\rnew\nline.png").write_bytes(png(draw_pair(1)[0]))
    films = copy_to_incoming(store, (tmp_path / "odd").as_uri(), out)
    (row,) = prediction_rows(store, run(store, out, trained, films))
    assert (row["origin"], row["status"]) == ("cr\rnew\nline.png", "ok")


def test_two_files_of_one_name_are_two_films_with_their_own_masks(
    store: Store, out: str, trained: Manifest
) -> None:
    store.write(f"{out}/inbox/0012.png", png(draw_pair(1)[0]))
    store.write(f"{out}/inbox/0012.tiff", png(draw_pair(2, 90, 70)[0]))
    made = run(store, out, trained, f"{out}/inbox")
    sizes = {row["origin"]: mask_of(store, made, row).size for row in made.rows(store)}
    assert sizes == {"0012.png": (128, 160), "0012.tiff": (70, 90)}
    assert len({row["id"] for row in made.rows(store)}) == 2


def test_what_is_passed_over_is_counted_by_reason_and_named(
    store: Store, out: str, trained: Manifest
) -> None:
    film = png(draw_pair(1)[0])
    for name in (
        "ward/a.png",
        "ward/masks/a.png",
        "b_mask.png",
        "ward/@eaDir/a.png/SYNOPHOTO_THUMB.jpg",
    ):
        store.write(f"{out}/films/{name}", film)
    store.write(f"{out}/films/scan.dcm", b"DICM")
    made = run(store, out, trained, f"{out}/films")
    lines = csv.DictReader(io.StringIO(made.read_file(store, "skipped.csv").decode()))
    assert {line["name"]: line["reason"] for line in lines} == {
        "ward/masks/a.png": "masks",
        "b_mask.png": "masks",
        "ward/@eaDir/a.png/SYNOPHOTO_THUMB.jpg": "system files",
        "scan.dcm": "DICOM files",
    }
    assert [row["origin"] for row in made.rows(store)] == ["ward/a.png"]
    assert made.headline == {
        "films": 1,
        "masks": 1,
        "failed": 0,
        "review": made.counts["review"],
        "passed over: masks": 2,
        "passed over: system files": 1,
        "passed over: DICOM files": 1,
    }


def test_a_film_too_large_to_be_read_is_a_row_with_its_reason(
    store: Store, out: str, trained: Manifest, raw: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    small, large = png(draw_pair(1, 90, 70)[0]), png(draw_pair(2)[0])
    store.write(f"{out}/inbox/large.png", large)
    store.write(f"{out}/inbox/small.png", small)
    monkeypatch.setattr(source, "LARGEST_FILE", len(small))
    made = run(store, out, trained, f"{out}/inbox")
    rows = {row["id"]: row for row in made.rows(store)}
    assert (rows["small"]["status"], rows["large"]["status"]) == ("ok", "failed")
    assert rows["large"]["reason"].startswith("too large: ")
    assert run(store, out, trained, raw.uri).counts["failed"] == 24


def test_a_processed_manifest_is_a_film_set_too(
    store: Store, out: str, trained: Manifest, processed: Manifest
) -> None:
    made = run(store, out, trained, processed.uri)
    assert {(row["height"], row["width"]) for row in made.rows(store)} == {(64, 64)}


def test_shards_together_make_the_manifest_of_one(
    store: Store, out: str, trained: Manifest, raw: Manifest
) -> None:
    whole = run(store, out, trained, raw.uri)
    parts = [
        run(store, out, trained, raw.uri, shard=f"{i}/3", force=True, run_id="parts")
        for i in (3, 1, 2)
    ]
    assert [store.exists(part.uri) for part in parts] == [True] * 3
    assert len({part.uri for part in parts}) == 1
    assert parts[-1].content_hash == whole.content_hash


def test_shards_of_a_prefix_complete_one_listing_and_their_logs_tell_it_from_another(
    store: Store, out: str, trained: Manifest, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")

    def listing_of(shard: str) -> tuple[bool, str]:
        """Whether the set is complete after the shard, and the hash that its log names."""
        caplog.clear()
        made = run(store, out, trained, f"{out}/inbox", shard=shard)
        (listing,) = re.findall(rf"shard {shard} has the listing ([0-9a-f]{{64}})", caplog.text)
        return store.exists(made.uri), listing

    store.write_many((f"{out}/inbox/{n:02}.png", png(draw_pair(n)[0])) for n in range(16))
    first, listing = listing_of("1/2")
    store.write(f"{out}/inbox/late.png", png(draw_pair(20)[0]))
    second, changed = listing_of("2/2")
    assert (first, second) == (False, False)
    assert changed != listing
    assert listing_of("1/2") == (True, changed)


def test_what_was_done_is_not_done_again(
    store: Store, out: str, trained: Manifest, raw: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    limit = 20

    def dies_late(model: Any, images: Any, precision: str) -> Any:
        seen.append(len(images))
        if sum(seen) >= limit:
            raise KeyboardInterrupt
        return (images < 125).astype(np.float32)

    monkeypatch.setattr(inference, "probabilities", dies_late)
    monkeypatch.setattr(inference, "films_at_once", lambda model, size, precision: 2)
    monkeypatch.setattr(masker, "WRITERS", 2)
    with pytest.raises(KeyboardInterrupt):
        run(store, out, trained, raw.uri)
    seen.clear()
    limit = 25
    assert run(store, out, trained, raw.uri).counts["masks"] == 24
    assert sum(seen) <= 16, "the first part of 8 was kept"


def test_no_byte_depends_on_threads_on_shards_or_on_what_a_killed_run_left(
    store: Store, out: str, trained: Manifest, raw: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The network here gives a film another mask for each number of films beside it."""
    calls = 0

    def network(model: Any, images: Any, precision: str) -> Any:
        nonlocal calls
        calls += 1
        if calls == dies_at:
            raise KeyboardInterrupt
        places = np.arange(1, len(images) + 1)[:, None, None]
        return (images < 100 + 5 * places + len(images)).astype(np.float32)

    monkeypatch.setattr(inference, "probabilities", network)
    monkeypatch.setattr(inference, "films_at_once", lambda model, size, precision: 3)
    dies_at = -1
    whole = run(store, out, trained, raw.uri)
    hashes = {}
    for name, readers, writers in (("few", 1, 1), ("many", 16, 16)):
        monkeypatch.setattr(masker, "READERS", readers)
        monkeypatch.setattr(masker, "WRITERS", writers)
        hashes[name] = run(store, out, trained, raw.uri, force=True, run_id=name).content_hash
    again = {"force": True, "run_id": "killed"}
    calls, dies_at = 0, 6
    with pytest.raises(KeyboardInterrupt):
        run(store, out, trained, raw.uri, **again)
    dies_at = -1
    hashes["killed"] = run(store, out, trained, raw.uri, **again).content_hash
    for shard in ("2/2", "1/2"):
        made = run(store, out, trained, raw.uri, shard=shard, force=True, run_id="shards")
    hashes["shards"] = made.content_hash
    assert hashes == dict.fromkeys(hashes, whole.content_hash)
