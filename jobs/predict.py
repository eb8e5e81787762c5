"""predict: a trained network and any films -> a lung mask a film, at the film's own size."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from jobs.errors import BadDataError
from jobs.films import skipped as skipped_files
from jobs.films.masker import Film, Masker, log_review
from jobs.films.model_json import NetworkJson, read_trained_json
from jobs.films.rows import (
    MASK_COLUMNS,
    PredictionRow,
    check_predicted,
    processed_rows,
    raw_rows,
)
from jobs.films.skipped import SKIPPED_CSV
from jobs.runtime.progress import track
from jobs.settings.config import PredictConfig
from jobs.settings.patterns import MANIFEST_URI
from jobs.sources import layouts
from jobs.sources.bucket import BucketSource
from jobs.storage.manifest import FileRow, Manifest, read_manifest
from jobs.storage.s3 import Store
from jobs.storage.work_folder import WorkFolder

log = logging.getLogger(__name__)

RECIPE = "6"
COLUMNS = ["id", "origin", *MASK_COLUMNS]


@dataclass(frozen=True)
class FilmSet:
    """The films to mask: `films` iterates over them anew at each call, `total` of them.

    `inputs` and `extra` go into the fingerprint: a manifest, or a prefix's listing. `skipped` has
    the reason of every file below a prefix that is no film, by its name.
    """

    total: int
    films: Callable[[], Iterable[Film]]
    inputs: dict[str, Manifest]
    extra: dict[str, Any]
    skipped: Mapping[str, str] = field(default_factory=dict)


def run(config: PredictConfig, store: Store) -> Manifest:
    """Write masks/<id>.png (1-bit, H x W of the film) and a row a film, masked or failed.

    Films are masked in parts that do not depend on the number of shards; a part that exists is not
    masked again. The shard that completes the set writes predictions.csv and the manifest. All
    shards need the same listing: where a prefix changes between them, none completes the set.
    """
    trained = read_manifest(store, config.trained, "train")
    film_set = _film_set(store, config.films)
    work_folder = WorkFolder(
        store,
        config,
        job="predict",
        folder="predictions",
        recipe=RECIPE,
        inputs={"trained": trained, **film_set.inputs},
        extra=film_set.extra,
        check_row=check_predicted,
    )
    shard = config.shard_of()
    if shard[1] > 1 and film_set.extra:
        listing = film_set.extra["films"]["listing"]
        log.info("shard %s has the listing %s: all shards need the same", config.shard, listing)
    if manifest := work_folder.finished():
        return manifest
    counts = _mask_shard(work_folder, trained, film_set, shard)
    if not work_folder.is_complete(film_set.total):
        log.info("shard %s is done; another one completes the set", config.shard)
        return work_folder.unfinished(counts=counts, headline=counts)
    return _complete(work_folder, film_set.skipped)


def _mask_shard(
    work_folder: WorkFolder, trained: Manifest, film_set: FilmSet, shard: tuple[int, int]
) -> dict[str, int]:
    """Mask this shard's films and return their counts."""
    masker = _build_masker(work_folder, trained)
    rows = work_folder.write_parts(film_set.films(), film_set.total, masker.rows, shard=shard)
    counts = _Counts()
    for row in track(rows, -(-film_set.total // shard[1]), "predict"):
        counts.add(row)
    return counts.by_outcome


def _complete(work_folder: WorkFolder, skipped: Mapping[str, str]) -> Manifest:
    """Write predictions.csv of all shards' rows and skipped.csv, then the manifest."""
    counts = _Counts()

    def lines() -> Iterator[dict[str, Any]]:
        for row in cast("Iterator[PredictionRow]", work_folder.rows()):
            counts.add(row)
            yield _table_line(row)

    work_folder.add_table("predictions.csv", COLUMNS, lines())
    log_review(counts.by_outcome["review"], work_folder.uri_of("predictions.csv"))
    work_folder.add_table(SKIPPED_CSV, skipped_files.COLUMNS, skipped_files.lines(skipped))
    by_reason = skipped_files.by_reason(skipped)
    return work_folder.finish(
        counts=counts.by_outcome,
        headline=counts.by_outcome | skipped_files.headline(by_reason),
        details={"skipped": by_reason},
    )


def _film_set(store: Store, uri: str) -> FilmSet:
    """The films of a raw or processed manifest, or those recognised below a prefix.

    Raises BadDataError where there are none.
    """
    if not re.fullmatch(MANIFEST_URI, uri):
        return _films_below(BucketSource(uri, store), uri)
    manifest = read_manifest(store, uri)
    if manifest.job == "download":
        return FilmSet(
            manifest.counts["films"], lambda: _raw_films(store, manifest), {"films": manifest}, {}
        )
    if manifest.job == "preprocess":
        return FilmSet(
            manifest.counts["records"],
            lambda: _processed_films(store, manifest),
            {"films": manifest},
            {},
        )
    raise BadDataError(f"{uri} is the manifest of {manifest.job}: give download or preprocess")


def _films_below(source: BucketSource, uri: str) -> FilmSet:
    names, skipped = layouts.films_to_mask(source.names())
    by_reason = skipped_files.by_reason(skipped)
    if not names:
        raise skipped_files.no_films(f"below {uri}", by_reason)
    log.info("films: %d; files passed over: %s", len(names), skipped_files.described(by_reason))
    films = [_listed_film(source, film_id, name) for film_id, name in names.items()]
    return FilmSet(len(films), lambda: films, {}, {"films": source.identity()}, skipped)


def _listed_film(source: BucketSource, film_id: str, name: str) -> Film:
    item = source.objects[name]
    return Film(film_id, name, item.uri, etag=item.etag, bytes=item.bytes)


def _raw_films(store: Store, raw: Manifest) -> Iterator[Film]:
    for row in raw_rows(store, raw):
        entry = row["film"]
        uri = raw.uri_of(entry["key"])
        yield Film(row["id"], row["origin"], uri, sha256=entry["sha256"], bytes=entry["bytes"])


def _processed_films(store: Store, processed: Manifest) -> Iterator[Film]:
    """The squares of preprocess; quarantined films have none."""
    for row in processed_rows(store, processed):
        if row["status"] == "ok":
            entry = row["image"]
            uri = processed.uri_of(entry["key"])
            yield Film(
                row["id"],
                row["origin"],
                uri,
                sha256=entry["sha256"],
                bytes=entry["bytes"],
                is_placed=True,
            )


def _build_masker(work_folder: WorkFolder, trained: Manifest) -> Masker:
    # torch takes seconds to import, and work that is found done needs none.
    from jobs.films.network import Network

    store = work_folder.store
    model_json = read_trained_json(store, trained, NetworkJson)
    weights = trained.read_file(store, "model.safetensors")

    def read(film: Film) -> bytes:
        return store.read(film.uri, sha256=film.sha256, etag=film.etag)

    def put(film_id: str, mask: bytes) -> FileRow:
        return work_folder.put(f"masks/{film_id}.png", mask, "image/png")

    return Masker(Network(model_json, weights), read, put)


class _Counts:
    """Films by outcome, counted from their rows."""

    def __init__(self) -> None:
        self.by_outcome = {"films": 0, "masks": 0, "failed": 0, "review": 0}

    def add(self, row: PredictionRow) -> None:
        self.by_outcome["films"] += 1
        self.by_outcome["masks" if row["status"] == "ok" else "failed"] += 1
        self.by_outcome["review"] += row.get("review", False)


def _table_line(row: PredictionRow) -> dict[str, Any]:
    """The row's line of predictions.csv: the mask by its key."""
    line: dict[str, Any] = dict(row)
    return line | {"mask": row["mask"]["key"]} if row["status"] == "ok" else line
