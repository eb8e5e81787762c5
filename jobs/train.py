"""train: processed films -> a U-Net, its loss histories and a checkpoint after every epoch."""

from __future__ import annotations

import os

from jobs.settings.config import TrainConfig
from jobs.storage.manifest import Manifest, read_manifest
from jobs.storage.s3 import Store
from jobs.storage.work_folder import WorkFolder

RECIPE = "3"


def run(config: TrainConfig, store: Store) -> Manifest:
    """Train to the last epoch, from the last checkpoint where there is one.

    `last.pt`, `history.json` and `curves.svg` are written after every epoch, and `last.pt` when the
    run is told to stop, so that the next one goes on from there; `runs/<run_id>/train.json` says
    from the start where a run's are.
    With `--processes N` this process only prepares the films and leaves as its first failing rank.
    Raises ConflictError where another run trains the same model.
    """
    processed = read_manifest(store, config.processed, "preprocess")
    stage = WorkFolder(
        store,
        config,
        job="train",
        folder="trained",
        recipe=RECIPE,
        inputs={"processed": processed},
    )
    if "RANK" not in os.environ:
        place = {"trained": stage.root, "epochs": config.epochs}
        store.write_json(f"{config.out.rstrip('/')}/runs/{config.run_id}/train.json", place)
    if found := stage.finished():
        return found
    # torch takes seconds to import, which work that is found done need not wait for.
    from jobs.models import training

    return training.fit(stage, config, processed)
