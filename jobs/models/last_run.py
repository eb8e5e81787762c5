"""last_run.json: the last run on this machine, and the last one whose films were of people."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NotRequired, TypedDict, cast

from jobs import typed_json
from jobs.errors import NotFoundError
from jobs.films.model_json import SourcesJson, read_trained_json
from jobs.models.contest_films import PHANTOMS
from jobs.storage.manifest import read_manifest
from jobs.storage.s3 import Store
from jobs.typed_json import Uri

LAST_RUN = "last_run.json"
REMEDY = "it was edited or damaged, delete it, and run `make run-local` again"


class Run(TypedDict):
    """A run and the manifest of its trained model."""

    run_id: str
    trained: Uri


class LastRun(Run):
    """The last run; `people`: the last one that was trained on films that are not all phantoms.

    `people` is null where there was none, and absent in a file of version 0.2.0 and before.
    """

    people: NotRequired[Run | None]


def read_last_run(folder: Path) -> LastRun | None:
    """None where nothing ran yet; BadDataError where the file is damaged."""
    path = folder / LAST_RUN
    if not path.exists():
        return None
    value = typed_json.parse(path.read_bytes(), str(path), REMEDY)
    return cast("LastRun", typed_json.check(value, LastRun, str(path), remedy=REMEDY))


def write_last_run(folder: Path, store: Store, former: LastRun | None, run: Run) -> None:
    """Note the run, and of `former`, the file before, the last run of films of people."""
    if is_of_people(store, run):
        people: Run | None = run
    else:
        people = last_of_people(store, former) if former else None
    (folder / LAST_RUN).write_text(json.dumps({**run, "people": people}) + "\n")


def last_of_people(store: Store, last: LastRun) -> Run | None:
    """The last run that was trained on films that are not all phantoms."""
    if "people" in last:
        return last["people"]
    run = Run(run_id=last["run_id"], trained=last["trained"])
    try:
        return run if is_of_people(store, run) else None
    except NotFoundError:
        # Somebody deleted the objects of that run.
        return None


def is_of_people(store: Store, run: Run) -> bool:
    trained = read_manifest(store, run["trained"], "train")
    sources: Sequence[str] = read_trained_json(store, trained, SourcesJson)["data"]["train_sources"]
    return any(source != PHANTOMS for source in sources)
