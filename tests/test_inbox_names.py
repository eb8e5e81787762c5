"""The inbox: which files beside the films are passed over, by the names of all."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest

from jobs import inbox
from jobs.segmentation import inference
from jobs.settings.config import InboxConfig
from jobs.storage.s3 import Store
from tests.support.inboxes import FILM, crown


@pytest.fixture(autouse=True)
def network(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network that calls dark what is lung."""
    monkeypatch.setattr(inference, "load_model", lambda *_: None)
    monkeypatch.setattr(
        inference, "probabilities", lambda _, images, **__: (images < 125).astype(np.float32)
    )


def test_a_mask_beside_its_film_is_no_film_wherever_it_stands_in_the_listing(
    store: Store, out: str
) -> None:
    crown(store, out, "v1")
    films = ["c1.png", "monday/c2.png", "z_seg.png", "monday/c1_lung.png"]
    masks = ["c1_seg.png", "c1-seg.png", "lung_c1.png", "monday/c2 label.png"]
    for name in films + masks:
        store.write(f"{out}/inbox/{name}", FILM)
    made = inbox.run(InboxConfig(out=out, inbox=f"{out}/inbox", run_id="r1"), store)
    rows = csv.DictReader(io.StringIO(made.read_file(store, "masks.csv").decode()))
    assert sorted(row["film"] for row in rows) == sorted(f"{out}/inbox/{name}" for name in films)
    assert made.headline["passed over: masks"] == len(masks)
    skipped = made.read_file(store, "skipped.csv").decode().splitlines()
    assert skipped == ["name,reason", *(f"{name},masks" for name in sorted(masks))]
