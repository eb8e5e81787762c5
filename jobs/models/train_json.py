"""train.json of a run: where its training is, and what it does after its last epoch."""

from __future__ import annotations

import time
from typing import TypedDict

from jobs.runtime.progress import Progress
from jobs.settings.config import TrainConfig
from jobs.storage.work_folder import WorkFolder


class Step(TypedDict):
    """A step after the last epoch: `done` of `total` parts, and the seconds since its start."""

    name: str
    done: int
    total: int
    seconds: float


class TrainJson:
    """Writes `runs/<run_id>/train.json`, from which Airflow's tab finds the training.

    Args:
        folder: the training's folder in S3.
    """

    def __init__(self, folder: WorkFolder, config: TrainConfig) -> None:
        self._store = folder.store
        self._uri = f"{config.out.rstrip('/')}/runs/{config.run_id}/train.json"
        self._location = {"trained": folder.root, "epochs": config.epochs}

    def write(self, step: Step | None = None) -> None:
        """Write the folder, the number of epochs and the step, if one has begun."""
        self._store.write_json(self._uri, self._location | ({"step": step} if step else {}))

    def step(self, name: str, total: int, unit: str) -> Progress:
        """A step after the last epoch, shown in the log and on the tab while the context lasts."""
        started = time.monotonic()

        def report(done: int) -> None:
            seconds = round(time.monotonic() - started, 1)
            self.write({"name": name, "done": done, "total": total, "seconds": seconds})

        return Progress(total, name, unit, report)
