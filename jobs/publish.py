"""publish: the five manifests of a run -> its report, its model package, and the champion rule.

    runs/<run_id>/run.json, report.html              what ran, from what, with what result
    models/<name>/<version>/model.safetensors, model.json    written once
    models/<name>/champion.json                      which version to use, and why

These alone are addressed by name instead of by fingerprint.
"""

from __future__ import annotations

import importlib.metadata
import logging
import platform
import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, TypedDict

from jobs import typed_json
from jobs.chain import INPUTS
from jobs.errors import ConfigError
from jobs.films.training_pairs import sources_of
from jobs.models.champion import Contest, choose
from jobs.models.champion_rule import Decision
from jobs.models.contest_films import unlike_lungs
from jobs.models.package import Package, write_package
from jobs.reports import page
from jobs.settings.config import PublishConfig
from jobs.storage.manifest import (
    Manifest,
    created_by,
    describe,
    fingerprint,
    header,
    manifest_of,
    read_manifest,
)
from jobs.storage.s3 import Store

log = logging.getLogger(__name__)

RECIPE = "1"
JOB_OF_ARGUMENT = INPUTS["publish"]
ARGUMENT_OF_JOB = {job: argument for argument, job in JOB_OF_ARGUMENT.items()}
# Whose versions the report names.
PACKAGES = [
    "torch",
    "numpy",
    "scipy",
    "scikit-learn",
    "opencv-python-headless",
    "pillow",
    "safetensors",
    "boto3",
]


class ResultJson(TypedDict):
    """What publish reads of a task's result."""

    manifest: str
    reused: bool


def run(config: PublishConfig, store: Store) -> Manifest:
    """Write the package, decide on the champion, write the report and, last, run.json.

    Returns run.json: a manifest's header whose content hash covers the inputs and the settings.
    Raises ConfigError where the five manifests are not of one run.
    """
    started = time.time()
    manifests = {
        argument: read_manifest(store, getattr(config, argument), job)
        for argument, job in JOB_OF_ARGUMENT.items()
    }
    check_links(manifests)
    out = config.out.rstrip("/")
    folder, models = f"{out}/runs/{config.run_id}", f"{out}/models/{config.name}"
    # Whatever may be damaged is read before a package or a champion is written. First: of what
    # version the manifest is.
    sources_of(manifests["processed"])
    contents = page.read_contents(store, manifests)
    metrics = contents["metrics"]
    jobs = _jobs(store, f"{folder}/results/", manifests)
    challenger = write_package(store, models, manifests, metrics)
    decision = _decide(config, store, models, manifests["processed"], challenger)
    details = {
        "champion": asdict(decision),
        "unlike_lungs": unlike_lungs(manifests["processed"]),
        "model": f"{models}/{challenger.version}",
        "jobs": jobs,
        "versions": _versions(),
    }
    html = page.build(contents, details, model_json=challenger.model_json, config=config)
    store.write(f"{folder}/report.html", html, content_type="text/html; charset=utf-8")
    run_json = _run_json(config, manifests, metrics, details, html=html, started=started)
    store.write_json(f"{folder}/run.json", run_json)
    return manifest_of(f"{folder}/run.json", run_json)


def check_links(manifests: Mapping[str, Manifest]) -> None:
    """Raise ConfigError unless each manifest was made from the others of the five."""
    for argument, manifest in manifests.items():
        roles = {role: ARGUMENT_OF_JOB[job] for role, job in INPUTS[manifest.job].items()}
        # Evaluate lists further inputs, under the names that publish has for them.
        roles |= {role: role for role in manifest.inputs if role in manifests}
        for role, other in roles.items():
            input_hash = manifest.inputs.get(role, {}).get("content_hash", "nothing")
            given = manifests[other]
            if input_hash != given.content_hash:
                raise ConfigError(
                    f"--{argument} {manifest.uri} was made from {role} {input_hash[:12]}, but "
                    f"--{other} {given.uri} is {given.content_hash[:12]}: give the five manifests "
                    "of one run"
                )


def _decide(
    config: PublishConfig, store: Store, models: str, processed: Manifest, challenger: Package
) -> Decision:
    contest = Contest(
        store=store,
        models=models,
        processed=processed,
        challenger=challenger,
        min_dice=config.min_dice,
        run_id=config.run_id,
        forced=config.force_champion.strip(),
        with_starter=config.starter,
    )
    decision = choose(contest)
    compared = "; ".join(map(str, decision.compared)) or "nothing"
    missing = f"; {decision.missing}" if decision.missing else ""
    if decision.seen:
        missing += f"; {decision.seen} films that an earlier training has seen did not count"
    log.info(
        *("champion of %s: %s: %s Compared: %s%s", config.name, decision.outcome),
        *(decision.reason, compared, missing),
    )
    return decision


def _run_json(
    config: PublishConfig,
    manifests: Mapping[str, Manifest],
    metrics: Mapping[str, Any],
    details: Mapping[str, Any],
    *,
    html: bytes,
    started: float,
) -> dict[str, Any]:
    """A manifest's header, its content hash of the inputs' content and the settings."""
    test = metrics["test"]
    hashes = {name: manifest.content_hash for name, manifest in manifests.items()}
    settings = config.identity()
    return header(
        job="publish",
        recipe=RECIPE,
        started=started,
        inputs=manifests,
        config=settings,
        counts={"films": manifests["raw"].counts["films"], "test_films": test["films"]},
        headline={
            "champion": details["champion"]["outcome"],
            "val_dice": details["champion"]["val_dice"],
            "test_dice": test["dice"]["mean"] if test["dice"] else None,
        },
        details=details,
        records=[describe("report.html", html)],
        content_hash=fingerprint(job="publish", recipe=RECIPE, inputs=hashes, config=settings),
    )


def _jobs(store: Store, results: str, manifests: Mapping[str, Manifest]) -> list[dict[str, Any]]:
    """Each job with its duration; `reused` is None where the run kept no results of its tasks.

    A mapped job was reused where all its tasks were.
    """
    reused: dict[str, bool] = {}
    for item in store.list_objects(results):
        result = typed_json.check(store.read_json(item.uri), ResultJson, item.uri, closed=False)
        uri = result["manifest"]
        reused[uri] = reused.get(uri, True) and result["reused"]
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
    creator = created_by(time.time())
    return {
        "lung-segmentation": creator["revision"],
        "image": creator["image"],
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in PACKAGES},
    }
