"""The inbox: every film once a model version, whatever happens on the way."""

from __future__ import annotations

import csv
import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from jobs import errors, inbox
from jobs.films import masker
from jobs.segmentation import inference
from jobs.settings.config import InboxConfig
from jobs.sources import film_ids, source
from jobs.storage.manifest import Manifest
from jobs.storage.s3 import Store
from jobs.storage.work_folder import pack_rows
from tests.support.films import png
from tests.support.inboxes import FILM, OTHER, crown, ledger


@pytest.fixture(autouse=True)
def network(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A network that calls dark what is lung, as it is on these films; the films it has seen."""
    seen: list[int] = []

    def probabilities(model: Any, images: Any, *, precision: str) -> Any:
        seen.extend(int(image.sum()) for image in images)
        return (images < 125).astype(np.float32)

    monkeypatch.setattr(inference, "load_model", lambda weights, architecture: None)
    monkeypatch.setattr(inference, "probabilities", probabilities)
    return seen


@pytest.fixture
def films(store: Store, out: str) -> str:
    """An inbox of 3 films, one of them in two sizes under one stem, beside what is no film."""
    crown(store, out, "v1")
    for name, data in (
        ("a.png", FILM),
        ("monday/a.png", OTHER),
        ("b b.PNG", FILM),
        ("notes.txt", b"no film"),
        ("masks/a.png", b"somebody's own mask"),
        (".hidden.png", b"no film"),
    ):
        store.write(f"{out}/inbox/{name}", data)
    return f"{out}/inbox"


REASONS = ("masks", "hidden files and folders", "text and metadata")


def run(store: Store, out: str, run_id: str = "r1", **changes: Any) -> Manifest:
    return inbox.run(InboxConfig(out=out, inbox=f"{out}/inbox", run_id=run_id, **changes), store)


def table(store: Store, made: Manifest) -> dict[str, dict[str, str]]:
    text = made.read_file(store, "masks.csv").decode()
    return {row["film"].partition("/inbox/")[2]: row for row in csv.DictReader(io.StringIO(text))}


def test_every_film_gets_a_mask_of_its_own_size_and_a_line_of_the_table(
    store: Store, out: str, films: str
) -> None:
    made = run(store, out)
    figures = {"films": 3, "new": 3, "masks": 3, "failed": 0, "review": 0, "version": "v1"}
    assert made.headline == figures | dict.fromkeys(map("passed over: {}".format, REASONS), 1)
    assert len(made.read_file(store, "skipped.csv").splitlines()) == 4
    lines = table(store, made)
    assert lines.keys() == {"a.png", "monday/a.png", "b b.PNG"}
    for name, size in (("a.png", (128, 160)), ("monday/a.png", (70, 90))):
        mask = Image.open(io.BytesIO(store.read(lines[name]["mask"])))
        assert (mask.mode, mask.size) == ("1", size)
        assert float(lines[name]["lung_fraction"]) == pytest.approx(np.array(mask).mean(), abs=1e-6)
    assert all(line["status"] == "ok" for line in lines.values())
    assert len({line["mask"] for line in lines.values()}) == 3


def test_films_for_review_are_counted_flagged_in_the_table_and_pointed_to(
    store: Store, out: str, films: str, caplog: pytest.LogCaptureFixture
) -> None:
    store.write(f"{films}/no_lung.png", png(np.full((90, 70), 200, np.uint8)))
    made = run(store, out)
    assert made.counts["review"] == made.headline["review"] == 1
    lines = table(store, made)
    assert {name for name, line in lines.items() if line["review"] == "True"} == {"no_lung.png"}
    assert 0 == float(lines["no_lung.png"]["quality"]) < float(lines["a.png"]["quality"]) < 1
    assert f"those with review True in {made.root}/masks.csv" in caplog.text
    assert run(store, out, "r2").counts["review"] == 0


def test_a_run_that_an_earlier_version_began_is_finished(
    store: Store, out: str, films: str
) -> None:
    run(store, out)
    (part,) = store.list_objects(f"{out}/masks/lung-unet/v1/ledger/part-")
    older = [
        {name: value for name, value in row.items() if name not in ("quality", "review")}
        for row in ledger(store, out)
    ]
    store.write(part.uri, pack_rows(older))
    made = run(store, out)
    assert made.counts == {"films": 3, "new": 3, "masks": 3, "failed": 0, "review": 0}
    assert {line["quality"] for line in table(store, made).values()} == {""}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("monday/a.png", "tuesday/a.png"),
        ("monday/a.png", "monday_a.png"),
        ("a b.png", "a_b.png"),
        ("a.png", "a.jpg"),
        ("a.png", "A.png"),
        ("x" * 300 + "1.png", "x" * 300 + "2.png"),
    ],
)
def test_no_two_films_share_an_id(one: str, other: str) -> None:
    ids = {film_ids.film_id(name).lower() for name in (one, other)}
    assert len(ids) == 2
    assert all(set(found) <= set("abcdefghijklmnopqrstuvwxyz0123456789._-") for found in ids)
    assert all(len(found) <= film_ids.LONGEST_ID for found in ids)


def test_what_was_masked_is_not_masked_again(
    store: Store, out: str, films: str, network: list[int]
) -> None:
    run(store, out)
    network.clear()
    made = run(store, out, "r2")
    assert (made.headline["films"], made.headline["new"], made.reused) == (3, 0, True)
    assert network == []
    store.write(f"{films}/tuesday/c.png", FILM)
    made = run(store, out, "r3")
    assert (made.headline["films"], made.headline["new"], made.reused) == (4, 1, False)
    assert table(store, made).keys() == {"tuesday/c.png"}
    assert len(network) == 1
    assert len(ledger(store, out)) == 4


def test_a_film_that_was_replaced_is_masked_again(store: Store, out: str, films: str) -> None:
    before = table(store, run(store, out))["a.png"]
    store.write(f"{films}/a.png", OTHER)
    after = table(store, run(store, out, "r2"))
    assert after.keys() == {"a.png"}
    assert after["a.png"]["mask"] == before["mask"]
    assert Image.open(io.BytesIO(store.read(before["mask"]))).size == (70, 90)
    assert run(store, out, "r3").headline["new"] == 0


def test_a_new_champion_masks_every_film_in_a_folder_of_its_own(
    store: Store, out: str, films: str
) -> None:
    first = table(store, run(store, out))
    crown(store, out, "v2")
    second = table(store, run(store, out, "r2"))
    assert second.keys() == first.keys()
    for name in first:
        assert second[name]["mask"] == first[name]["mask"].replace("/v1/", "/v2/")
        assert store.read(second[name]["mask"]) == store.read(first[name]["mask"])
    assert run(store, out, "r3").headline["new"] == 0
    crown(store, out, "v1")
    assert run(store, out, "r4").headline["new"] == 0, "what v1 masked is still there"


def test_without_remask_a_new_champion_masks_only_what_no_version_has_masked(
    store: Store, out: str, films: str, network: list[int]
) -> None:
    store.write(f"{films}/broken.png", FILM[:500])
    run(store, out)
    network.clear()
    crown(store, out, "v2")
    store.write(f"{films}/tuesday/c.png", OTHER)
    made = run(store, out, "r2", remask=False)
    assert (made.headline["version"], made.headline["films"]) == ("v2", 5)
    assert table(store, made).keys() == {"tuesday/c.png", "broken.png"}
    assert len(network) == 1
    assert run(store, out, "r3", remask=False).headline["new"] == 0
    store.write(f"{films}/a.png", OTHER)
    assert table(store, run(store, out, "r4", remask=False)).keys() == {"a.png"}
    crown(store, out, "v1")
    assert run(store, out, "r5", remask=False).headline["new"] == 0
    assert table(store, run(store, out, "r6")).keys() == {"a.png", "tuesday/c.png"}


def test_a_film_that_cannot_be_read_is_written_down_and_not_tried_again(
    store: Store, out: str, films: str, network: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    store.write(f"{films}/broken.png", FILM[:500])
    store.write(f"{films}/empty.png", b"")
    made = run(store, out)
    assert made.counts == {"films": 5, "new": 5, "masks": 3, "failed": 2, "review": 0}
    lines = table(store, made)
    for name in ("broken.png", "empty.png"):
        assert lines[name]["status"] == "failed"
        assert lines[name]["reason"]
        assert lines[name]["mask"] == ""
    with caplog.at_level("WARNING"):
        assert run(store, out, "r2").headline["new"] == 0
    assert "2 films could not be read before" in caplog.text
    store.write(f"{films}/broken.png", FILM)
    counts = {"films": 5, "new": 1, "masks": 1, "failed": 0, "review": 0}
    assert run(store, out, "r3").counts == counts


def test_a_film_too_large_to_be_read_is_written_down_with_its_reason(
    store: Store, out: str, films: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "LARGEST_FILE", len(FILM) - 1)
    made = run(store, out)
    assert made.counts == {"films": 3, "new": 3, "masks": 1, "failed": 2, "review": 0}
    reasons = {name: line["reason"] for name, line in table(store, made).items()}
    assert reasons.pop("monday/a.png") == ""
    assert all(reason.startswith("too large: ") for reason in reasons.values())
    assert run(store, out, "r2").headline["new"] == 0


def test_a_film_that_vanishes_is_left_out(
    store: Store, out: str, films: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Store.read

    def read_late(self: Store, uri: str, **options: Any) -> bytes:
        if uri == f"{films}/a.png":
            self.delete([uri])
        return read(self, uri, **options)

    monkeypatch.setattr(Store, "read", read_late)
    made = run(store, out)
    assert made.counts == {"films": 3, "new": 2, "masks": 2, "failed": 0, "review": 0}
    assert "a.png" not in table(store, made)
    assert "a.png" not in {row["origin"] for row in ledger(store, out)}


def test_without_champion_and_starter_the_job_ends_well_and_says_so(
    store: Store, out: str, caplog: pytest.LogCaptureFixture
) -> None:
    store.write(f"{out}/inbox/a.png", FILM)
    with caplog.at_level("WARNING"):
        made = run(store, out, starter=False)
    assert made.headline["version"] == "none"
    assert "there is no champion of lung-unet yet" in caplog.text
    assert list(store.list_objects(f"{out}/masks/")) == []


def test_an_empty_inbox_is_no_error(store: Store, out: str) -> None:
    crown(store, out, "v1")
    assert run(store, out).counts == {"films": 0, "new": 0, "masks": 0, "failed": 0, "review": 0}


def test_force_masks_every_film_again(
    store: Store, out: str, films: str, network: list[int]
) -> None:
    run(store, out)
    network.clear()
    assert run(store, out, "r2", force=True).headline["new"] == 3
    assert len(network) == 3


def test_the_ledger_has_an_object_a_part_and_not_a_film(
    store: Store, out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    crown(store, out, "v1")
    monkeypatch.setattr(inbox, "FILMS_PER_PART", 4)
    store.write_many((f"{out}/inbox/{n}.png", FILM) for n in range(10))
    run(store, out)
    parts = [item.uri for item in store.list_objects(f"{out}/masks/lung-unet/v1/ledger/")]
    assert [part[-len("000000.jsonl.gz") :] for part in parts] == [
        f"00000{n}.jsonl.gz" for n in range(3)
    ]


def test_a_run_that_died_does_at_most_one_part_again_and_its_table_has_every_film(
    store: Store, out: str, network: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    crown(store, out, "v1")
    monkeypatch.setattr(inbox, "FILMS_PER_PART", 4)
    monkeypatch.setattr(masker, "WRITERS", 2)
    store.write_many((f"{out}/inbox/{n:02}.png", FILM) for n in range(20))
    put, masked = Store.write, []

    def dies_at_the_13th_write(self: Store, uri: str, data: bytes, **options: Any) -> str:
        masked.append(uri)
        if len(masked) > 12:
            raise KeyboardInterrupt
        return put(self, uri, data, **options)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Store, "write", dies_at_the_13th_write)
        run(store, out)
    kept = len(ledger(store, out))
    assert 4 <= kept <= 12
    network.clear()
    made = run(store, out)
    assert len(network) == 20 - kept
    assert len(table(store, made)) == made.headline["new"] == 20
    origins = [row["origin"] for row in ledger(store, out)]
    assert sorted(origins) == [f"{n:02}.png" for n in range(20)]


def test_of_two_runs_at_once_one_writes_the_ledger_and_the_other_leaves(
    store: Store, out: str, films: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    count, other = inbox._Survey.count, list[Any]()

    def with_another_run_meanwhile(*arguments: Any) -> Any:
        found = count(*arguments)
        if not other:
            other.append("started")
            other.append(run(store, out, "other").headline["masks"])
        return found

    monkeypatch.setattr(inbox._Survey, "count", with_another_run_meanwhile)
    with pytest.raises(errors.ConflictError) as caught:
        run(store, out)
    assert caught.value.exit_code == 75
    assert other[1] == 3
    assert sorted(row["origin"] for row in ledger(store, out)) == [
        "a.png",
        "b b.PNG",
        "monday/a.png",
    ]
    assert run(store, out, "r3").headline["new"] == 0


@pytest.mark.slow
def test_thousands_of_films_are_listed_page_after_page(
    store: Store, out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    crown(store, out, "v1")
    names = [f"{n:04}.png" for n in range(1_200)]
    store.write_many((f"{out}/inbox/{name}", b"") for name in names)
    assert run(store, out).counts == {
        "films": 1200,
        "new": 1200,
        "masks": 0,
        "failed": 1200,
        "review": 0,
    }
    assert len(ledger(store, out)) == 1200
    assert run(store, out, "r2").headline["new"] == 0
