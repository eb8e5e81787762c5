"""`python -m jobs inbox` in a process of its own and with a real network, however small."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import Any

import pytest

from jobs.cli import build_parser
from jobs.settings.config import InboxConfig, build_config
from jobs.storage.manifest import describe
from jobs.storage.s3 import Store
from tests.support.films import ROOT
from tests.support.inboxes import ARCHITECTURE, FILM, crown, ledger

pytestmark = pytest.mark.slow


def command(out: str, environment: dict[str, str], *more: str, said_to: int) -> Any:
    return subprocess.Popen(
        [
            *(sys.executable, "-X", "importtime", "-m", "jobs", "inbox"),
            *("--inbox", f"{out}/inbox", "--out", out, *more),
        ],
        cwd=ROOT,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=said_to,
        text=True,
    )


def test_a_switch_that_is_on_by_default_can_be_switched_off_by_its_flag() -> None:
    config = InboxConfig(out="s3://lung/x", remask=False)
    values = vars(build_parser().parse_args(["inbox", *config.arguments()]))
    assert build_config("inbox", values) == config
    assert "--remask" not in InboxConfig(out="s3://lung/x").arguments()


@pytest.fixture
def real_weights() -> bytes:
    from jobs.segmentation.checkpoint import to_safetensors
    from jobs.segmentation.unet import UNet

    return to_safetensors(UNet(**ARCHITECTURE).state_dict())


def test_the_command_masks_and_when_nothing_is_new_needs_no_torch(
    store: Store, out: str, s3: dict[str, str], real_weights: bytes
) -> None:
    crown(store, out, "v1", real_weights)
    store.write(f"{out}/inbox/a.png", FILM)
    for new, needs_torch in ((1, True), (0, False)):
        started = command(out, s3, "--run-id", f"run-{new}", said_to=subprocess.PIPE)
        said, imported = started.communicate(timeout=120)
        result = json.loads(said.splitlines()[-1])
        assert result["headline"]["new"] == new
        assert result["reused"] == (not new)
        names = {line.rpartition("|")[2].strip() for line in imported.splitlines()}
        assert ("torch" in names) == needs_torch


@pytest.mark.slow
def test_a_killed_command_and_the_next_one_mask_every_film_once(
    store: Store, out: str, s3: dict[str, str], real_weights: bytes
) -> None:
    crown(store, out, "v1", real_weights)
    films = 600
    store.write_many((f"{out}/inbox/{n:03}.png", FILM) for n in range(films))
    killed = command(out, s3, said_to=subprocess.DEVNULL)
    limit = time.monotonic() + 120
    try:
        while not ledger(store, out):
            assert killed.poll() is None and time.monotonic() < limit
            time.sleep(0.01)
    finally:
        killed.kill()
        killed.communicate()
    kept = {row["id"]: row["mask"]["sha256"] for row in ledger(store, out)}
    assert 0 < len(kept) < films
    said, _ = command(out, s3, said_to=subprocess.DEVNULL).communicate(timeout=240)
    assert json.loads(said.splitlines()[-1])["headline"]["masks"] == films
    rows = ledger(store, out)
    assert len(rows) == len({row["id"] for row in rows}) == films
    for row in rows:
        mask = store.read(f"{out}/masks/lung-unet/v1/{row['mask']['key']}")
        assert describe("", mask).sha256 == row["mask"]["sha256"]
