"""Films that change on the way from S3 or in it: what inbox, predict and download make of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from jobs import download, errors, inbox, predict
from jobs.segmentation import inference
from jobs.settings.config import DownloadConfig, InboxConfig, PredictConfig, TrainConfig
from jobs.storage.manifest import Manifest
from jobs.storage.s3 import Store
from jobs.storage.work_folder import WorkFolder
from tests.support.fault_proxy import Fault, FaultProxy, flip, flip_elsewhere, shorten
from tests.support.films import draw_pair, png
from tests.support.inboxes import FILM, crown, ledger

pytestmark = pytest.mark.slow

# An object of which S3 knows no hash, such as one uploaded in parts.
NO_HASH = {"X-Amz-Checksum-Sha256": "", "Etag": '"0123456789abcdef0123456789abcdef-2"'}
HASHES = pytest.mark.parametrize("headers", [{}, NO_HASH], ids=["hashes", "no hash in S3"])
NAMES = ("a.png", "b.png", "c.png")
Change = Callable[[bytes, int], bytes]


@pytest.fixture(autouse=True)
def network(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network that calls dark what is lung, as it is on these films."""
    monkeypatch.setattr(inference, "load_model", lambda weights, architecture: None)
    monkeypatch.setattr(
        inference,
        "probabilities",
        lambda model, images, *, precision: (images < 125).astype(np.float32),
    )


@pytest.fixture
def films(store: Store, out: str) -> str:
    """Three films in an inbox, and a champion for them."""
    crown(store, out, "v1")
    for seed, name in enumerate(NAMES):
        store.write(f"{out}/inbox/{name}", png(draw_pair(seed)[0]))
    return f"{out}/inbox"


@pytest.fixture
def trained(store: Store, out: str) -> Manifest:
    config = TrainConfig(processed=f"{out}/processed/manifest.json", out=out)
    folder = WorkFolder(store, config, job="train", folder="trained", recipe="test", inputs={})
    recipe = {"spatial_size": 64, "fit": "stretch", "crop_borders": False, "threshold": 0.5}
    about = {"architecture": {}, "recipe": recipe | {"precision": "auto"}}
    folder.add_file("model.json", json.dumps(about).encode())
    folder.add_file("model.safetensors", b"")
    return folder.finish(counts={}, headline={})


def run_inbox(store: Store, out: str, run_id: str) -> Manifest:
    return inbox.run(InboxConfig(out=out, inbox=f"{out}/inbox", run_id=run_id), store)


def states(store: Store, out: str) -> dict[str, str]:
    return {row["origin"]: row["status"] for row in ledger(store, out)}


@HASHES
@pytest.mark.parametrize(
    "fault",
    [
        Fault(flip, times=1),
        Fault(shorten, times=1),
        Fault(cut=True, times=1),
        Fault(reset=True, times=1),
    ],
    ids=["flipped", "shortened", "cut", "reset"],
)
def test_a_film_that_was_damaged_once_on_its_way_to_the_inbox_is_masked(
    store: Store,
    behind: Store,
    proxy: FaultProxy,
    out: str,
    films: str,
    fault: Fault,
    headers: dict[str, str],
) -> None:
    proxy.faults["inbox/a.png"] = Fault(fault.change, 1, fault.cut, fault.reset, headers)
    made = run_inbox(behind, out, "r1")
    assert made.counts == {"films": 3, "new": 3, "masks": 3, "failed": 0, "review": 0}
    assert proxy.reads["inbox/a.png"] == 2


@pytest.mark.parametrize(
    "fault",
    [Fault(flip_elsewhere), Fault(cut=True), Fault(reset=True)],
    ids=["flipped", "cut", "reset"],
)
def test_a_film_that_never_arrives_whole_is_69_after_all_others_and_masked_once_it_does(
    store: Store,
    behind: Store,
    proxy: FaultProxy,
    out: str,
    films: str,
    fault: Fault,
    caplog: pytest.LogCaptureFixture,
) -> None:
    proxy.faults["inbox/a.png"] = fault
    with pytest.raises(errors.ServiceUnavailableError, match="1 films did not arrive") as caught:
        run_inbox(behind, out, "r1")
    assert caught.value.exit_code == 69
    assert f"{films}/a.png" in str(caught.value)
    assert "a.png is left for the next run" in caplog.text
    assert states(store, out) == {"b.png": "ok", "c.png": "ok"}
    proxy.faults.clear()
    made = run_inbox(behind, out, "r1")
    assert made.counts == {"films": 3, "new": 3, "masks": 3, "failed": 0, "review": 0}
    assert states(store, out) == dict.fromkeys(NAMES, "ok")


def test_a_film_that_is_damaged_in_s3_is_left_with_both_hashes_in_the_log_until_it_is_mended(
    store: Store,
    behind: Store,
    proxy: FaultProxy,
    out: str,
    films: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    proxy.faults["inbox/a.png"] = Fault(flip)
    assert run_inbox(behind, out, "r1").counts["masks"] == 2
    (line,) = [line for line in caplog.messages if line.startswith("a.png is left for the next")]
    assert f"{films}/a.png is damaged: its SHA256 is " in line and "upload it again" in line
    assert states(store, out) == {"b.png": "ok", "c.png": "ok"}
    proxy.faults.clear()
    assert run_inbox(behind, out, "r2").counts["masks"] == 1


@HASHES
def test_only_a_film_that_arrived_as_it_is_stands_in_the_ledger_as_failed_until_it_is_replaced(
    store: Store,
    behind: Store,
    proxy: FaultProxy,
    out: str,
    films: str,
    headers: dict[str, str],
) -> None:
    store.write(f"{films}/a.png", FILM[:500])
    proxy.faults["inbox/a.png"] = Fault(headers=headers)
    assert run_inbox(behind, out, "r1").counts["failed"] == 1
    (row,) = [row for row in ledger(store, out) if row["status"] == "failed"]
    assert (row["origin"], row["reason"]) == ("a.png", "truncated")
    assert run_inbox(behind, out, "r2").counts["new"] == 0
    store.write(f"{films}/a.png", FILM)
    counts = run_inbox(behind, out, "r3").counts
    assert (counts["new"], counts["masks"], counts["failed"]) == (1, 1, 0)


def test_a_film_without_a_hash_that_differs_at_each_read_is_not_called_undecodable(
    store: Store, behind: Store, proxy: FaultProxy, out: str, films: str
) -> None:
    proxy.faults["inbox/a.png"] = Fault(flip_elsewhere, headers=NO_HASH)
    with pytest.raises(errors.ServiceUnavailableError, match="other bytes at each read"):
        run_inbox(behind, out, "r1")
    assert "a.png" not in states(store, out)
    proxy.faults.clear()
    assert run_inbox(behind, out, "r2").counts["failed"] == 0
    assert states(store, out)["a.png"] == "ok"


@HASHES
def test_predict_masks_a_film_of_a_prefix_that_was_damaged_once(
    behind: Store,
    proxy: FaultProxy,
    out: str,
    films: str,
    trained: Manifest,
    headers: dict[str, str],
) -> None:
    # A listed film is read by its ETag: a proxy that changes that would be another film.
    headers = {name: value for name, value in headers.items() if name != "Etag"}
    proxy.faults["inbox/a.png"] = Fault(flip, times=1, headers=headers)
    config = PredictConfig(trained=trained.uri, films=films, out=out)
    assert predict.run(config, behind).counts["masks"] == 3


@pytest.mark.parametrize(("change", "exit_code"), [(flip, 65), (flip_elsewhere, 69)])
def test_predict_and_download_end_with_65_for_a_damaged_film_and_with_69_for_a_damaged_way(
    behind: Store,
    proxy: FaultProxy,
    out: str,
    films: str,
    trained: Manifest,
    change: Change,
    exit_code: int,
) -> None:
    proxy.faults["inbox/a.png"] = Fault(change)
    jobs: list[Callable[[], Any]] = [
        lambda: predict.run(PredictConfig(trained=trained.uri, films=films, out=out), behind),
        lambda: download.run(DownloadConfig(source=films, out=out), behind),
    ]
    for job in jobs:
        proxy.reads.clear()
        with pytest.raises(errors.JobError, match=rf"{films}/a\.png") as caught:
            job()
        assert caught.value.exit_code == exit_code
        assert proxy.reads["inbox/a.png"] == 2


def test_predict_refuses_a_film_that_was_replaced_since_it_was_listed(
    store: Store, out: str, films: str, trained: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its listing is in the fingerprint: another film's mask must not stand under it."""
    build = predict._build_masker

    def replace_first(*arguments: Any) -> Any:
        store.write(f"{films}/a.png", FILM)
        return build(*arguments)

    monkeypatch.setattr(predict, "_build_masker", replace_first)
    with pytest.raises(errors.ConflictError, match=r"a\.png was changed while it was read"):
        predict.run(PredictConfig(trained=trained.uri, films=films, out=out), store)


def test_download_copies_a_film_byte_for_byte_whatever_happened_once(
    store: Store, behind: Store, proxy: FaultProxy, out: str, films: str
) -> None:
    faults = [Fault(flip, times=1), Fault(shorten, times=1), Fault(cut=True, times=1)]
    for name, fault in zip(NAMES, faults, strict=True):
        proxy.faults[f"inbox/{name}"] = fault
    raw = download.run(DownloadConfig(source=films, out=out), behind)
    rows = list(raw.rows(store))
    assert [row["origin"] for row in rows] == list(NAMES)
    for row in rows:
        copy = store.read(raw.uri_of(row["film"]["key"]))
        assert copy == store.read(f"{films}/{row['origin']}")
