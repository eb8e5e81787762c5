"""The model that masks a folder of films on this machine: what MODEL of `make predict` names."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path

from jobs.errors import ConfigError, NotFoundError
from jobs.models.last_run import LAST_RUN, LastRun, last_of_people
from jobs.models.package import Package, read_local_package, read_package
from jobs.models.starter import has_starter, read_starter
from jobs.settings.patterns import PACKAGE_URI
from jobs.storage.s3 import Store

log = logging.getLogger(__name__)

# Where one of these is set, s3:// is the user's own S3. scripts/run-local.sh has the same ones.
OWN_S3 = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ACCESS_KEY_ID", "AWS_PROFILE")


def check_model(name: str, folder: Path, last: LastRun | None) -> None:
    """Refuse, before a server is started, a URI of another form and a last run that is not there.

    Args: as of `choose_model`. Raises ConfigError or NotFoundError.
    """
    if name.startswith("s3://") and not re.fullmatch(PACKAGE_URI, name):
        raise ConfigError(
            f"--model {name!r} has the wrong form, give: s3://BUCKET/PREFIX/models/NAME/VERSION"
        )
    if name == "last" and not last:
        raise NotFoundError(
            f"--model last: there is no {folder / LAST_RUN}, nothing ran here yet: run `make "
            "run-local` first, or give starter"
        )


def choose_model(store: Store, out: str, name: str, last: LastRun | None) -> str:
    """The URI of the model that `name` names: of a trained manifest or a package, for predict.

    Args:
        store: of the embedded server, with the models of runs on this machine below `out`; a
            package of another place is put there.
        name: starter, last, a folder with a package, or the URI of a published version; "": the
            last run's model whose films were not all phantoms, else the starter.
        last: the content of last_run.json in the folder of runs on this machine.

    The log says which model it is and why. Raises NotFoundError where there is none, BadDataError
    where it is damaged.
    """
    if not name:
        return _default(store, out, last)
    if name == "starter":
        return _starter(store, out, "as --model asks")
    if name == "last" and last:
        log.info("model: of the last run, %s, as --model asks", last["run_id"])
        return last["trained"]
    if name.startswith("s3://"):
        return _published(store, out, name)
    log.info("model: the package in %s, as --model asks", name)
    return _put(store, f"{out}/models/given", read_local_package(Path(name)))


def _default(store: Store, out: str, last: LastRun | None) -> str:
    if not last:
        return _starter(store, out, "as nothing was trained here yet")
    if run := last_of_people(store, last):
        log.info("model: of the run %s, the last one on films of people", run["run_id"])
        return run["trained"]
    if not has_starter():
        log.warning(
            "model: of the last run, %s, which saw phantoms alone, as there is no starter in this "
            "copy of the project",
            last["run_id"],
        )
        return last["trained"]
    reason = "as no model of this machine was trained on films of people (--model last: the last)"
    return _starter(store, out, reason)


def _starter(store: Store, out: str, reason: str) -> str:
    starter = read_starter()
    log.info("model: the starter that comes with the project, %s, %s", starter.version, reason)
    return _put(store, f"{out}/models/starter", starter)


def _published(store: Store, out: str, uri: str) -> str:
    if given := [name for name in OWN_S3 if os.environ.get(name)]:
        log.info("model: %s in the S3 of %s", uri, " and ".join(given))
        models, _, version = uri.rpartition("/")
        return _put(store, f"{out}/models/given", read_package(Store(), models, version))
    log.info("model: %s in the embedded S3, as none of %s is set", uri, ", ".join(OWN_S3))
    return uri


def _put(store: Store, models: str, package: Package) -> str:
    """Write the package; its URI. One of the same version is replaced: it may have been edited."""
    uri = f"{models}/{package.version}"
    store.write(f"{uri}/model.safetensors", package.weights)
    store.write_json(f"{uri}/model.json", package.model_json)
    return uri
