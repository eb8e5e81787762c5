"""Until there is a champion the starter masks the inbox, as a version of the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jobs import inbox
from jobs.models import restored_champion
from jobs.segmentation import inference
from jobs.settings.config import InboxConfig
from jobs.storage.manifest import Manifest
from jobs.storage.s3 import Store
from tests.support.inboxes import FILM, OTHER, crown, ledger
from tests.support.starters import VERSION, write_starter


@pytest.fixture(autouse=True)
def network(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """A network that calls dark what is lung, as it is on these films; the weights it was given."""
    loaded: list[bytes] = []

    def probabilities(model: Any, images: Any, *, precision: str) -> Any:
        return (images < 125).astype(np.float32)

    monkeypatch.setattr(
        inference, "load_model", lambda weights, architecture: loaded.append(weights)
    )
    monkeypatch.setattr(inference, "probabilities", probabilities)
    return loaded


@pytest.fixture
def starter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = write_starter(tmp_path / "starter", b"the starter's weights")
    monkeypatch.setattr("jobs.models.package.STARTER", folder)
    return folder


@pytest.fixture
def films(store: Store, out: str) -> str:
    store.write(f"{out}/inbox/a.png", FILM)
    store.write(f"{out}/inbox/b.png", OTHER)
    return f"{out}/inbox"


def run(store: Store, out: str, run_id: str = "r1", **changes: Any) -> Manifest:
    return inbox.run(InboxConfig(out=out, inbox=f"{out}/inbox", run_id=run_id, **changes), store)


def test_without_a_champion_the_starter_masks_and_the_log_says_so(
    store: Store,
    out: str,
    films: str,
    starter: Path,
    network: list[bytes],
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level("INFO"):
        made = run(store, out)
    assert (made.headline["version"], made.counts["masks"]) == (VERSION, 2)
    assert network == [b"the starter's weights"]
    assert f"no champion of lung-unet yet: the starter masks, version {VERSION}" in caplog.text
    folder = f"{out}/masks/lung-unet/{VERSION}"
    masks = [uri for item in store.list_objects(f"{folder}/") if (uri := item.uri).endswith(".png")]
    assert len(masks) == 2
    assert [row["status"] for row in ledger(store, out, VERSION)] == ["ok", "ok"]
    assert not store.exists(f"{out}/models/lung-unet/champion.json")
    sheet = store.read_json(f"{out}/runs/r1/sheet.json")
    assert sheet["model"] == {"name": "lung-unet", "version": VERSION, "val_dice": None}


def test_its_package_is_a_version_of_the_model_and_is_written_once(
    store: Store, out: str, films: str, starter: Path
) -> None:
    models = f"{out}/models/lung-unet"
    run(store, out)
    before = {item.uri: item.etag for item in store.list_objects(models)}
    assert before.keys() == {
        f"{models}/{VERSION}/{name}" for name in ("model.json", "model.safetensors")
    }
    made = run(store, out, "r2")
    assert (made.headline["new"], made.reused) == (0, True)
    assert {item.uri: item.etag for item in store.list_objects(models)} == before
    assert list(restored_champion.table(store, models)) == [f"{VERSION}  no val dice"]
    entry = restored_champion.restore(store, out, models, VERSION)
    assert entry["version"] == VERSION
    assert run(store, out, "r3").headline["version"] == VERSION


def test_a_champion_takes_over_and_without_remask_the_starters_masks_count(
    store: Store, out: str, films: str, starter: Path
) -> None:
    run(store, out)
    crown(store, out, "v1")
    store.write(f"{out}/inbox/c.png", FILM)
    made = run(store, out, "r2", remask=False)
    assert (made.headline["version"], made.headline["new"]) == ("v1", 1)
    assert run(store, out, "r3").headline["new"] == 2


def test_where_it_is_switched_off_the_inbox_waits_for_the_first_champion(
    store: Store, out: str, films: str, starter: Path
) -> None:
    made = run(store, out, starter=False)
    assert (made.headline["version"], made.counts["masks"]) == ("none", 0)
    assert list(store.list_objects(f"{out}/models/")) == []


def test_the_switch_is_a_flag_and_no_part_of_the_identity() -> None:
    on, off = (InboxConfig(out="s3://lung/x", starter=wanted) for wanted in (True, False))
    assert on.identity() == off.identity()
    assert "--starter" not in on.arguments()
    arguments = off.arguments()
    assert arguments[arguments.index("--starter") + 1] == "False"


def test_in_a_copy_without_starter_the_log_says_so_and_the_inbox_waits(
    store: Store,
    out: str,
    films: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("jobs.models.package.STARTER", tmp_path)
    made = run(store, out)
    assert made.headline["version"] == "none"
    assert f"there is no starter in {tmp_path}: build it by `make starter" in caplog.text
