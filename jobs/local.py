"""The whole chain on one machine with an embedded S3 server: what `make run-local` runs."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jobs.chain import INPUTS, run_job
from jobs.errors import AccessError, BadDataError, ConfigError, NotFoundError
from jobs.films.look_alikes import LOOK_ALIKES_CSV
from jobs.films.rows import PredictionRow, prediction_rows
from jobs.films.skipped import COLUMNS, SKIPPED_CSV, by_reason, described, lines, no_films
from jobs.models.chosen_model import check_model, choose_model
from jobs.models.last_run import LAST_RUN, Run, read_last_run, write_last_run
from jobs.runtime.parallel import run_all
from jobs.settings.config import PredictConfig, build_config
from jobs.sources import layouts
from jobs.sources.archive import LocalZip
from jobs.sources.bucket import incoming_key
from jobs.sources.folder import FolderSource
from jobs.sources.source import open_local, split_sources
from jobs.storage.csv_table import csv_bytes
from jobs.storage.local_server import BUCKET, embedded_s3
from jobs.storage.manifest import Manifest
from jobs.storage.s3 import Store
from jobs.storage.server_folder import disk_errors_named
from jobs.storage.timed_store import TimedStore

log = logging.getLogger(__name__)

OUT = f"s3://{BUCKET}/pipeline"
REPORT = "report.html"
# Variables with the keys of the server of `jobs s3`, as docker/.env names them.
KEYS = ("LUNG_S3_ACCESS_KEY", "LUNG_S3_SECRET_KEY")
# The files of a run's results beside the report and the masks: (job, its file).
EXPORTED = [
    ("preprocess", "contact_sheet.png"),
    ("preprocess", "quarantine.csv"),
    ("preprocess", LOOK_ALIKES_CSV),
    ("train", "history.json"),
    ("train", "curves.png"),
    ("predict", "predictions.csv"),
    ("evaluate", "metrics.json"),
    ("evaluate", "per_film.csv"),
    ("evaluate", "worst.png"),
]


def run_chain(values: Mapping[str, Any], *, folder: Path, profiled: bool = False) -> int:
    """Run the chain on `values` (fields of its jobs) and put the results in `folder`/<run_id>.

    The S3 server keeps its objects in `folder`/.s3, so that the next run reuses work done before.
    `profiled` logs where each job's time went.
    """
    # Build every job's config now: wrong settings end the run before its first job.
    for job, inputs in INPUTS.items():
        build_config(job, {**values, **dict.fromkeys(inputs, f"{OUT}/manifest.json"), "out": OUT})
    if values.get("processes", 1) > 1:
        # torch takes seconds to import, and one process needs no GPU.
        from jobs.segmentation.launcher import check_processes

        check_processes(values["processes"])
    results = folder / values["run_id"]
    if results.exists() and not (results / REPORT).exists():
        raise ConfigError(
            f"--run-id {values['run_id']}: {results} exists and holds no {REPORT}, so it is not a "
            "run's results and would be overwritten: give another name"
        )
    if results.name.lower() == LAST_RUN:
        raise ConfigError(
            f"--run-id {results.name}: {folder / LAST_RUN} is the file that names the last run: "
            "give another name"
        )
    last = read_last_run(folder)
    with embedded_s3(folder / ".s3") as settings:
        store = TimedStore(settings)
        manifests, seconds = _run_jobs(store, values, profiled=profiled)
        _export(store, manifests, results)
        run = Run(run_id=values["run_id"], trained=manifests["train"].uri)
        write_last_run(folder, store, last, run)
    _print_summary(manifests, seconds, results)
    return 0


def _run_jobs(
    store: Store, values: Mapping[str, Any], *, profiled: bool
) -> tuple[dict[str, Manifest], dict[str, float]]:
    """Run the chain and write each job's result; ({job: its manifest}, {job: seconds})."""
    manifests: dict[str, Manifest] = {}
    seconds: dict[str, float] = {}
    for job, inputs in INPUTS.items():
        uris = {name: manifests[upstream].uri for name, upstream in inputs.items()}
        config = build_config(job, {**values, **uris, "out": OUT})
        log.info("%s starts", job)
        manifests[job], result = run_job(job, config, store, print_profile=profiled)
        seconds[job] = result["seconds"]
        store.write_json(f"{OUT}/runs/{values['run_id']}/results/{job}.json", result)
    return manifests, seconds


def predict_folder(films: Path, *, folder: Path, to: Path, model: str = "") -> int:
    """Write `to`/masks/<id>.png and `to`/predictions.csv for a folder of films.

    `model` names the model as for `choose_model`; `folder` is where `run` keeps its results.
    """
    if not films.is_dir():
        raise NotFoundError(f"{films} is not a folder: give one that holds films")
    last = read_last_run(folder)
    check_model(model, folder, last)
    # The user chose these films, by links too. What an earlier run wrote among them is no film.
    source = FolderSource(films, follows_links=True, without=[to, folder])
    chosen, skipped = layouts.films_to_mask(source.names())
    skipped = dict(sorted((skipped | source.skipped).items()))
    if not chosen:
        raise no_films(f"in {films}", by_reason(skipped))
    _make_folder(to)
    with embedded_s3(folder / ".s3") as settings:
        store = TimedStore(settings)
        trained = choose_model(store, OUT, model, last)
        prefix = _copy_folder(store, source, OUT)
        config = PredictConfig(trained=trained, films=prefix, out=OUT)
        predictions, _ = run_job("predict", config, store)
        with disk_errors_named(to):
            _export_masks(store, predictions, to / "masks")
            table = predictions.read_file(store, "predictions.csv")
            (to / "predictions.csv").write_bytes(table)
            (to / SKIPPED_CSV).write_bytes(csv_bytes(COLUMNS, lines(skipped)))
    _print_counts(predictions, skipped, to)
    if not predictions.counts["masks"]:
        raise BadDataError(f"none of the films in {films} could be read: see predictions.csv")
    return 0


def _make_folder(to: Path) -> None:
    """Make the folder of --to before the work; AccessError or ConfigError where that cannot be."""
    try:
        (to / "masks").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        kind = AccessError if isinstance(error, PermissionError) else ConfigError
        raise kind(
            f"--to {to}: the folder cannot be made ({error.strerror}): give one that this user may "
            "write"
        ) from None


def _print_counts(predictions: Manifest, skipped: Mapping[str, str], to: Path) -> None:
    counts = predictions.counts
    print(f"{counts['masks']} masks of {counts['films']} films: {to}/masks", flush=True)
    if counts["review"]:
        print(f"{counts['review']} masks are for review: {to}/predictions.csv", flush=True)
    if counts["failed"]:
        print(
            f"{counts['failed']} films failed, each with its reason: {to}/predictions.csv",
            flush=True,
        )
    if skipped:
        print(f"passed over: {described(by_reason(skipped))}: {to}/{SKIPPED_CSV}", flush=True)


def serve_s3(folder: Path, *, host: str, port: int, program: Sequence[str]) -> int:
    """Serve S3 until stopped, or while `program` runs with the AWS variables set.

    The keys are those of LUNG_S3_ACCESS_KEY and LUNG_S3_SECRET_KEY, else the folder's own.
    """
    keys = _given_keys()
    with embedded_s3(folder, host=host, port=port, keys=keys) as settings:
        if program:
            return subprocess.run(program, env=settings.environment()).returncode
        source = " and ".join(KEYS) if keys else folder / "credentials.json"
        print(f"S3 with the bucket {BUCKET!r}; keys in {source}; Ctrl-C ends")
        print(f"export AWS_ENDPOINT_URL={settings.endpoint_url}", flush=True)
        while True:
            time.sleep(3600)


def _given_keys() -> tuple[str, str] | None:
    """(access key, secret key) of the variables, None where neither is set."""
    access_key, secret_key = (os.environ.get(name, "") for name in KEYS)
    if bool(access_key) != bool(secret_key):
        raise ConfigError(f"{' and '.join(KEYS)}: set both, or neither")
    return (access_key, secret_key) if access_key else None


def copy_to_incoming(store: Store, source: str, out: str) -> str:
    """Copy each file:// part of `source` to incoming/<sha256>/ and return the source's new form.

    Containers reach S3, but not this machine's disk. Objects that are there are not sent again.
    """
    return "+".join(_copy_part(store, part, out) for part in split_sources(source))


def _copy_part(store: Store, part: str, out: str) -> str:
    if not part.startswith("file://"):
        return part
    with contextlib.closing(open_local(part)) as source:
        if isinstance(source, FolderSource):
            return _copy_folder(store, source, out)
        target = f"{_incoming(source, out)}/{source.path.name}"
        if target not in {item.uri for item in store.list_objects(target)}:
            store.upload(source.path, target)
        return target


def _copy_folder(store: Store, source: FolderSource, out: str) -> str:
    folder = _incoming(source, out)
    uploaded = {item.uri for item in store.list_objects(folder + "/")}
    targets = {name: f"{folder}/{incoming_key(name)}" for name in source.names()}
    missing = [name for name, uri in targets.items() if uri not in uploaded]

    def upload(name: str) -> None:
        store.upload(source.path / name, targets[name])

    run_all(upload, missing, threads=store.threads)
    return folder + "/"


def _incoming(source: LocalZip | FolderSource, out: str) -> str:
    return f"{out.rstrip('/')}/incoming/{source.identity()['sha256']}"


def _export(store: Store, manifests: Mapping[str, Manifest], results: Path) -> None:
    """Put report, tables, pictures and masks into the folder `results`, all of them or none."""
    partial = results.with_name(f".{results.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    report = store.read(f"{OUT}/runs/{results.name}/{REPORT}")
    (partial / REPORT).write_bytes(report)
    for job, key in EXPORTED:
        (partial / key).write_bytes(manifests[job].read_file(store, key))
    _export_masks(store, manifests["predict"], partial / "masks")
    shutil.rmtree(results, ignore_errors=True)
    partial.rename(results)


def _export_masks(store: Store, predictions: Manifest, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)

    def download(row: PredictionRow) -> None:
        entry = row["mask"]
        mask = store.read(predictions.uri_of(entry["key"]), sha256=entry["sha256"])
        (folder / f"{row['id']}.png").write_bytes(mask)

    rows = (row for row in prediction_rows(store, predictions) if row["status"] == "ok")
    run_all(download, rows, threads=store.threads)


def _print_summary(
    manifests: Mapping[str, Manifest], seconds: Mapping[str, float], results: Path
) -> None:
    print()
    for job, manifest in manifests.items():
        figures = ", ".join(f"{name} {_short(value)}" for name, value in manifest.headline.items())
        duration = "reused" if manifest.reused else f"{seconds[job]:.1f} s"
        print(f"  {job:<11} {duration:>8}   {figures}")
    print(f"\nReport: {results / REPORT}", flush=True)


def _short(value: Any) -> Any:
    if not isinstance(value, float):
        return value
    return f"{value:.4f}" if value == 0 or abs(value) >= 1e-4 else f"{value:.1e}"
