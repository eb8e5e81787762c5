"""predict: a trained network and any films -> a lung mask a film, at the film's own size."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from jobs.errors import BadDataError
from jobs.films.masker import Film, Masker, Network, log_review
from jobs.runtime.progress import track
from jobs.settings.config import MANIFEST_URI, PredictConfig
from jobs.sources import layouts, name_clashes
from jobs.sources.bucket import BucketSource
from jobs.storage.manifest import Manifest, Row, read_manifest
from jobs.storage.s3 import Store
from jobs.storage.work_folder import Stage

log = logging.getLogger(__name__)

RECIPE = "3"
COLUMNS = (
    *("id", "origin", "status", "height", "width"),
    *("lung_fraction", "quality", "review", "mask", "reason"),
)


@dataclass(frozen=True)
class FilmSet:
    total: int
    films: Callable[[], Iterable[Film]]
    inputs: dict[str, Manifest]
    extra: dict[str, Any]


def run(config: PredictConfig, store: Store) -> Manifest:
    """Write masks/<id>.png (1-bit, H x W of the film) and a row a film, whatever became of it.

    Films are done in parts that do not depend on the number of shards; a part that is there is not
    done again. The shard that completes the set writes predictions.csv and the manifest. A set is
    of one listing: shards of a prefix that changed between them complete none.
    """
    trained = read_manifest(store, config.trained, "train")
    film_set = _film_set(store, config.films)
    stage = Stage(
        store,
        config,
        job="predict",
        folder="predictions",
        recipe=RECIPE,
        inputs={"trained": trained, **film_set.inputs},
        extra=film_set.extra,
    )
    shard = config.shard_of()
    if shard[1] > 1 and film_set.extra:
        listing = film_set.extra["films"]["listing"]
        log.info("shard %s is of the listing %s, as all of its set are", config.shard, listing)
    if found := stage.finished():
        return found
    masker = _build_masker(stage, trained)
    rows = stage.write_parts(film_set.films(), film_set.total, masker.rows, shard=shard)
    share = -(-film_set.total // shard[1])
    counts = _Counts()
    for _ in map(counts.add, track(rows, share, "predict")):
        pass
    if not stage.is_complete(film_set.total):
        log.info("shard %s is done; another one completes the set", config.shard)
        return stage.unfinished(counts=counts.told, headline=counts.told)
    counts = _Counts()
    everything = map(counts.add, stage.rows())
    stage.add_table("predictions.csv", COLUMNS, map(_table_row, everything))
    log_review(counts.told["review"], stage.uri_of("predictions.csv"))
    return stage.finish(counts=counts.told, headline=counts.told)


def _film_set(store: Store, uri: str) -> FilmSet:
    """The films of a raw or processed manifest, or those recognised below a prefix.

    Raises BadDataError where there are none, or where one name stands for two different films.
    """
    if not re.fullmatch(MANIFEST_URI, uri):
        source = BucketSource(uri, store)
        catalogue = layouts.recognise([source.names()])
        for line in layouts.describe(catalogue):
            log.info("%s", line)
        if not catalogue.films:
            raise BadDataError(f"there are no films below {uri}: give PNG, JPEG or TIFF films")
        name_clashes.check_films([source], catalogue)
        films = [_film_below(source, film) for film in catalogue.films]
        return FilmSet(len(films), lambda: films, {}, {"films": source.identity()})
    manifest = read_manifest(store, uri)
    if manifest.job not in ("download", "preprocess"):
        raise BadDataError(f"{uri} is the manifest of {manifest.job}: give download or preprocess")
    total = manifest.counts["films" if manifest.job == "download" else "records"]
    return FilmSet(total, lambda: _films_of(store, manifest), {"films": manifest}, {})


def _film_below(source: BucketSource, film: layouts.FilmFiles) -> Film:
    found = source.objects[film.film[1]]
    return Film(film.id, film.film[1], found.uri, bytes=found.bytes)


def _films_of(store: Store, manifest: Manifest) -> Iterator[Film]:
    for row in manifest.rows(store):
        entry = row["film"] if manifest.job == "download" else row.get("image")
        if entry:
            uri = manifest.uri_of(entry["key"])
            yield Film(row["id"], row["origin"], uri, entry["sha256"], entry["bytes"])


def _build_masker(stage: Stage, trained: Manifest) -> Masker:
    about = json.loads(trained.read_file(stage.store, "model.json"))
    weights = trained.read_file(stage.store, "model.safetensors")

    def read(film: Film) -> bytes:
        return stage.store.read(film.uri, sha256=film.sha256)

    def put(film_id: str, mask: bytes) -> Row:
        return stage.put(f"masks/{film_id}.png", mask, "image/png")

    return Masker(Network(about, weights), read, put)


class _Counts:
    """What came of the films, told from their rows as they pass."""

    def __init__(self) -> None:
        self.told = {"films": 0, "masks": 0, "failed": 0, "review": 0}

    def add(self, row: Row) -> Row:
        self.told["films"] += 1
        self.told["masks" if row["status"] == "ok" else "failed"] += 1
        self.told["review"] += row.get("review", False)
        return row


def _table_row(row: Row) -> Row:
    return row | {"mask": row["mask"]["key"]} if row["status"] == "ok" else row
