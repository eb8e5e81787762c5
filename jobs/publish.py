"""publish: the five manifests of a run -> its report, its model package, and the champion rule.

    runs/<run_id>/run.json, report.html              what ran, from what, with what result
    models/<name>/<version>/model.safetensors, model.json    written once
    models/<name>/champion.json                      which version to use, and why

These alone are addressed by name and not by fingerprint.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import logging
import platform
import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from jobs.errors import ConfigError, ConflictError, NotFoundError
from jobs.films.training_pairs import sources_of
from jobs.models import champion
from jobs.models.champion import Package
from jobs.reports import page
from jobs.settings.config import PublishConfig
from jobs.storage.manifest import (
    SCHEMA_VERSION,
    Manifest,
    created_by,
    describe,
    fingerprint,
    manifest_of,
    read_manifest,
)
from jobs.storage.s3 import Store

log = logging.getLogger(__name__)

RECIPE = "1"
JOB_OF = {
    "raw": "download",
    "processed": "preprocess",
    "trained": "train",
    "predictions": "predict",
    "evaluation": "evaluate",
}
# Which of the five each input of a manifest must be.
LINKS = {
    "processed": {"raw": "raw"},
    "trained": {"processed": "processed"},
    "predictions": {"trained": "trained", "films": "raw"},
    "evaluation": {
        "predictions": "predictions",
        "processed": "processed",
        "raw": "raw",
        "trained": "trained",
    },
}
NLM = (
    "terms of the U.S. National Library of Medicine, which asks for credit: Jaeger et al., Two "
    "public chest X-ray datasets for computer-aided screening of pulmonary diseases, Quant Imaging "
    "Med Surg 2014;4(6):475-477"
)
LICENCES = {
    "montgomery": f"films and masks: {NLM}",
    "shenzhen": f"films: {NLM}; masks (yoctoman/shcxr-lung-mask): CC BY-NC-SA 4.0",
    "phantoms": "none: drawn by a program, of no person",
    "custom": "the team's own",
}
INTENDED_USE = (
    "Research on lung segmentation in frontal chest X-rays like those it was trained on. It is no "
    "medical device: its masks are not for diagnosis or treatment."
)
PACKAGES = (
    *("torch", "numpy", "scipy", "scikit-learn", "opencv-python-headless"),
    *("pillow", "safetensors", "boto3"),
)


def run(config: PublishConfig, store: Store) -> Manifest:
    """Write the package, decide on the champion, write the report and, last, run.json.

    What is returned is run.json: a manifest's header whose content hash is that of the inputs and
    the settings. Raises ConfigError where the five manifests are not of one run.
    """
    started = time.time()
    manifests = {name: read_manifest(store, getattr(config, name), JOB_OF[name]) for name in JOB_OF}
    check_links(manifests)
    out = config.out.rstrip("/")
    folder, models = f"{out}/runs/{config.run_id}", f"{out}/models/{config.name}"
    figures = json.loads(manifests["evaluation"].read_file(store, "metrics.json"))
    challenger = _write_package(store, models, manifests, figures)
    decision = champion.choose(
        store,
        models,
        manifests["processed"],
        challenger,
        min_dice=config.min_dice,
        run_id=config.run_id,
    )
    log.info("champion of %s: %s: %s", config.name, decision.outcome, decision.reason)
    details = {
        "champion": asdict(decision),
        "model": f"{models}/{challenger.version}",
        "jobs": _jobs(store, f"{folder}/results/", manifests),
        "versions": _versions(),
    }
    html = page.build(store, manifests, details, about=challenger.about, config=config)
    store.write(f"{folder}/report.html", html, content_type="text/html; charset=utf-8")
    about = _header(config, manifests, figures, details)
    about |= {
        "records": [asdict(describe("report.html", html))],
        "created_by": created_by(started),
    }
    store.write_json(f"{folder}/run.json", about)
    return manifest_of(f"{folder}/run.json", about)


def check_links(manifests: Mapping[str, Manifest]) -> None:
    """Raise ConfigError unless each manifest was made from the others that were given."""
    for name, links in LINKS.items():
        for role, other in links.items():
            made_from = manifests[name].inputs.get(role, {}).get("content_hash", "nothing")
            given = manifests[other]
            if made_from != given.content_hash:
                raise ConfigError(
                    f"--{name} {manifests[name].uri} was made from {role} {made_from[:12]}, but "
                    f"--{other} {given.uri} is {given.content_hash[:12]}: give the five manifests "
                    "of one run"
                )


# The model package


def _write_package(
    store: Store, models: str, manifests: Mapping[str, Manifest], figures: Mapping[str, Any]
) -> Package:
    """The trained model under its version; a package that is there stays as it is."""
    trained = manifests["trained"]
    weights = trained.read_file(store, "model.safetensors")
    entry = describe("model.safetensors", weights)
    version = _version(store, models, trained.fingerprint, entry.sha256)
    about = json.loads(trained.read_file(store, "model.json"))
    sources = sources_of(manifests["processed"])
    about |= {
        "version": version,
        "weights": asdict(entry),
        "metrics": {**about["metrics"], **figures},
        "data": {**about["data"], "raw": manifests["raw"].content_hash},
        "licences": {source: LICENCES[source] for source in sources},
        "intended_use": INTENDED_USE,
    }
    folder = f"{models}/{version}"
    if not store.exists(f"{folder}/model.json"):
        store.write(f"{folder}/model.safetensors", weights)
        with contextlib.suppress(ConflictError):
            store.write_json(f"{folder}/model.json", about, if_absent=True)
    return Package(version, about, weights)


def _version(store: Store, models: str, fingerprint: str, sha256: str) -> str:
    """The training's fingerprint; where it was trained anew to other weights, their `sha256` too.

    On a GPU, or on a CPU of another make, the same training does not give the same bits.
    """
    try:
        former = store.read_json(f"{models}/{fingerprint}/model.json")["weights"]["sha256"]
    except NotFoundError:
        return fingerprint
    return fingerprint if former == sha256 else f"{fingerprint}-{sha256[:8]}"


# What run.json tells


def _header(
    config: PublishConfig,
    manifests: Mapping[str, Manifest],
    figures: Mapping[str, Any],
    details: Mapping[str, Any],
) -> dict[str, Any]:
    """A manifest's header, named after the inputs' content and the settings."""
    test = figures["test"]
    inputs = {name: manifest.content_hash for name, manifest in manifests.items()}
    return {
        "schema_version": SCHEMA_VERSION,
        "job": "publish",
        "recipe": RECIPE,
        "inputs": {n: {"uri": m.uri, "content_hash": m.content_hash} for n, m in manifests.items()},
        "config": config.identity(),
        "counts": {"films": manifests["raw"].counts["films"], "test_films": test["films"]},
        "headline": {
            "champion": details["champion"]["outcome"],
            "val_dice": details["champion"]["val_dice"],
            "test_dice": test["dice"]["mean"] if test["dice"] else None,
        },
        "details": details,
        "files": [],
        "parts": [],
        "content_hash": fingerprint(
            job="publish", recipe=RECIPE, inputs=inputs, config=config.identity()
        ),
    }


def _jobs(store: Store, results: str, manifests: Mapping[str, Manifest]) -> list[dict[str, Any]]:
    """Each job with its duration; `reused` is None where the run kept no results of its tasks."""
    reused: dict[str, bool] = {}
    for item in store.list_objects(results):
        result = store.read_json(item.uri)
        before = reused.get(result["manifest"], True)
        reused[result["manifest"]] = before and result["reused"]
    return [
        {
            "job": manifest.job,
            "started": manifest.created_by["started"],
            "seconds": manifest.created_by["seconds"],
            "reused": reused.get(manifest.uri),
            "content_hash": manifest.content_hash,
            "config": manifest.config,
            "profile": manifest.created_by.get("profile"),
        }
        for manifest in manifests.values()
    ]


def _versions() -> dict[str, str]:
    about = created_by(time.time())
    return {
        "lung-segmentation": about["revision"],
        "image": about["image"],
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in PACKAGES},
    }
