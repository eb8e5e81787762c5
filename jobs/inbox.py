"""inbox: the champion and the films of an inbox -> a mask for every film that has none yet.

    masks/<name>/<version>/<id>.png        a film's mask, at the film's own size
    masks/<name>/<version>/ledger/...      every film that this version has seen
    runs/<run_id>/masks.csv, masks.json    what this run did

Each film is done once a model version. One that cannot be read is in the ledger with its reason and
is tried again when it is replaced; one that vanishes before it is read is left out.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, replace

from jobs.errors import NotFoundError
from jobs.films.masker import Film, Masker, Network, log_review
from jobs.models import champion
from jobs.models.champion import Package
from jobs.runtime.parallel import chunked
from jobs.runtime.progress import track
from jobs.settings.config import InboxConfig
from jobs.sources import layouts
from jobs.storage.ledger import Ledger
from jobs.storage.manifest import (
    SCHEMA_VERSION,
    Manifest,
    Row,
    created_by,
    describe,
    hash_entries,
    manifest_of,
)
from jobs.storage.s3 import Store
from jobs.storage.work_folder import csv_bytes

log = logging.getLogger(__name__)

RECIPE = "3"
# What a killed run does again at most: a minute or two of a CPU.
FILMS_PER_PART = 128
COLUMNS = (
    *("id", "film", "status", "height", "width"),
    *("lung_fraction", "quality", "review", "mask", "reason"),
)


def run(config: InboxConfig, store: Store) -> Manifest:
    """Mask what is new and write masks.csv, a row a film of this run, those of earlier tries too.

    Without a champion there is nothing to do. Raises ConflictError where another run masks the
    same inbox with the same version.
    """
    started = time.time()
    models = f"{config.out.rstrip('/')}/models/{config.name}"
    entry, _ = champion.read_champion(store, f"{models}/champion.json")
    if not entry:
        log.warning("there is no champion of %s yet: the inbox waits for the first", config.name)
        return _finish(config, store, [], films=0, version="none", started=started)
    version = entry["version"]
    ledger = Ledger(store, f"{_folder(config, version)}/ledger")
    rows = [row for row in ledger.read() if row["run_id"] == config.run_id]
    films, new = _survey(config, store, ledger)
    log.info("%s: %d films, %d new to version %s", config.inbox, films, new, version)
    made: Iterable[Row] = ()
    if new:
        package = champion.read_package(store, models, version)
        made = track(_mask_new(config, store, ledger, package), new, "masks")
    done = itertools.chain(rows, made)
    return _finish(config, store, done, films=films, version=version, started=started)


def _films(config: InboxConfig, store: Store) -> Iterator[Film]:
    """The inbox's films, listed page after page, each with what its row says of this run."""
    for item in store.list_objects(config.folder()):
        origin = item.uri.removeprefix(config.folder())
        if layouts.is_film(origin):
            # As listed: if the film is replaced before it is read, its new ETag makes it new again.
            more = {"uri": item.uri, "etag": item.etag, "run_id": config.run_id}
            yield Film(layouts.film_id(origin), origin, item.uri, bytes=item.bytes, more=more)


def _is_done(ledger: Ledger, film: Film) -> bool | None:
    """Whether its mask is there; None where it is new."""
    return ledger.ok(film.origin, film.more["etag"])


def _survey(config: InboxConfig, store: Store, ledger: Ledger) -> tuple[int, int]:
    """(films in the inbox, those that are to be masked now)."""
    states = Counter(_is_done(ledger, film) for film in _films(config, store))
    if states[False]:
        log.warning("%d films could not be read before: the ledger has the reasons", states[False])
    films = states.total()
    return films, films if config.force else states[None]


def _mask_new(config: InboxConfig, store: Store, ledger: Ledger, package: Package) -> Iterator[Row]:
    """Mask every new film; yields its row once the part of the ledger that holds it is written."""

    def read(film: Film) -> bytes | None:
        try:
            return store.read(film.uri)
        except NotFoundError:
            log.info("%s vanished before it was read", film.origin)
            return None

    def put(film_id: str, mask: bytes) -> Row:
        key = f"{film_id}.png"
        store.write(f"{_folder(config, package.version)}/{key}", mask, content_type="image/png")
        return asdict(describe(key, mask))

    masker = Masker(Network(package.about, package.weights), read, put)
    listed = _films(config, store)
    new = (film for film in listed if config.force or _is_done(ledger, film) is None)
    made = masker.rows(chunked(new, FILMS_PER_PART))
    rows = (row for row in made if row["status"] != "missing")
    for part in chunked(rows, FILMS_PER_PART):
        ledger.append(part)
        yield from part


def _finish(
    config: InboxConfig,
    store: Store,
    rows: Iterable[Row],
    *,
    films: int,
    version: str,
    started: float,
) -> Manifest:
    """Write masks.csv as the rows come and, last, masks.json, which has a manifest's form."""
    states: Counter[str] = Counter()

    def lines() -> Iterator[Row]:
        for row in rows:
            states[row["status"]] += 1
            states["review"] += row.get("review", False)
            line = row | {"film": row["uri"]}
            if "mask" in row:
                line["mask"] = f"{_folder(config, version)}/{row['mask']['key']}"
            yield {name: line[name] for name in COLUMNS if name in line}

    run = f"{config.out.rstrip('/')}/runs/{config.run_id}"
    table = csv_bytes(COLUMNS, lines())
    store.write(f"{run}/masks.csv", table, content_type="text/csv")
    log_review(states["review"], f"{run}/masks.csv")
    entry = describe("masks.csv", table)
    counts = {
        "films": films,
        "new": states["ok"] + states["failed"],
        "masks": states["ok"],
        "failed": states["failed"],
        "review": states["review"],
    }
    about = {
        "schema_version": SCHEMA_VERSION,
        "job": "inbox",
        "recipe": RECIPE,
        "created_by": created_by(started),
        "inputs": {},
        "config": config.identity(),
        "counts": counts,
        "headline": {**counts, "version": version},
        "details": {},
        "files": [asdict(entry)],
        "records": [],
        "parts": [],
        "content_hash": hash_entries([entry]),
    }
    store.write_json(f"{run}/masks.json", about)
    return replace(manifest_of(f"{run}/masks.json", about), reused=not states)


def _folder(config: InboxConfig, version: str) -> str:
    return f"{config.out.rstrip('/')}/masks/{config.name}/{version}"
