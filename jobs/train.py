"""train: processed films -> a U-Net, its loss histories and a checkpoint after every epoch."""

from __future__ import annotations

from jobs.models.train_json import TrainJson
from jobs.segmentation import ranks
from jobs.settings.config import TrainConfig
from jobs.storage.manifest import Manifest, read_manifest
from jobs.storage.s3 import Store
from jobs.storage.work_folder import WorkFolder

RECIPE = "4"


def run(config: TrainConfig, store: Store) -> Manifest:
    """Train to the last epoch, from the last checkpoint where there is one.

    `last.pt`, `history.json` and `curves.svg` are written after every epoch; `last.pt` also when
    the job is stopped, so that the next run resumes from it. From its start a run names the folder
    of its training in `runs/<run_id>/train.json`. With `--processes N` this process only prepares
    the films and ends with the exit code of the rank that failed first.

    Raises ConflictError where another run trains the same model.
    """
    processed = read_manifest(store, config.processed, "preprocess")
    folder = WorkFolder(
        store,
        config,
        job="train",
        folder="trained",
        recipe=RECIPE,
        inputs={"processed": processed},
    )
    # Of several ranks, their launcher has written it.
    if not ranks.is_rank():
        TrainJson(folder, config).write()
    if manifest := folder.finished():
        return manifest
    # torch takes seconds to import, which a finished training need not wait for.
    from jobs.models import training

    return training.fit(folder, config, processed)
