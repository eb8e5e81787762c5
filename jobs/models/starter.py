"""The starter: the model that comes with the project, in jobs/starter/.

Until a model has a champion, the starter stands in for it: it masks the inbox, and it is what the
first model has to beat.
"""

from __future__ import annotations

import logging

from jobs.errors import NotFoundError
from jobs.models import package
from jobs.models.package import Package, add_package, read_local_package
from jobs.storage.s3 import Store

log = logging.getLogger(__name__)


def read_starter() -> Package:
    """Raises NotFoundError where this copy of the project has none, BadDataError if damaged."""
    if not has_starter():
        raise NotFoundError(_absent())
    return read_local_package(package.STARTER)


def has_starter() -> bool:
    return (package.STARTER / "model.json").exists()


def published_starter(store: Store, models: str) -> Package | None:
    """The starter as a version in the folder models/<name>, where it is written once.

    So all that knows versions knows it: ledgers, the list of versions, going back to one. None,
    with a warning, where this copy of the project has no starter.
    """
    if not has_starter():
        log.warning("%s", _absent())
        return None
    return add_package(store, models, read_starter())


def _absent() -> str:
    return f"there is no starter in {package.STARTER}: build it by `make starter FILMS=...`"
