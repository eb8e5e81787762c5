"""inbox: the champion and the films of an inbox -> a mask for every film that has none yet.

Until there is a champion the starter masks, as a version of the model like any other.

    masks/<name>/<version>/<id>.png        a film's mask, at the film's own size
    masks/<name>/<version>/previews/...    films drawn small with their masks' outlines
    masks/<name>/<version>/ledger/...      every film that this version was given
    runs/<run_id>/masks.csv, masks.json    what this run did
    runs/<run_id>/skipped.csv              the inbox's files that are no films
    runs/<run_id>/sheet.json, sheet.jsonl  the masks in the order of the run's page

Each model version masks a film once, and with `--remask false` all versions of the model together
do. A film that arrived as it is in S3 and cannot be decoded stands in the ledger with its reason
and is tried again when it is replaced. One whose bytes are damaged, in S3 or on the way, stands in
no ledger: the next run tries it again. A film that vanishes before it is read is left out.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

from jobs.errors import NotFoundError, ServiceUnavailableError
from jobs.films import skipped as skipped_files
from jobs.films.masker import Film, Masker, log_review
from jobs.films.preview import Previews
from jobs.films.rows import MASK_COLUMNS, InboxRow, check_inbox
from jobs.films.sheet import Sheet
from jobs.films.skipped import SKIPPED_CSV, by_reason, described, headline
from jobs.models.champion_entry import read_champion
from jobs.models.package import Package, read_package
from jobs.models.restored_champion import versions
from jobs.models.starter import published_starter
from jobs.runtime.parallel import chunked
from jobs.runtime.progress import track
from jobs.settings.config import InboxConfig
from jobs.sources.film_ids import film_id
from jobs.sources.names_in_turn import NamesInTurn
from jobs.storage.csv_table import csv_bytes
from jobs.storage.ledger import Ledger
from jobs.storage.manifest import FileRow, Manifest, describe, header, manifest_of
from jobs.storage.s3 import Store, StoredObject
from jobs.storage.verified_read import DamagedObjectError, DamagedTransferError

log = logging.getLogger(__name__)

RECIPE = "5"
# A killed run loses at most this many masks: a minute or two of a CPU.
FILMS_PER_PART = 128
COLUMNS = ["id", "film", *MASK_COLUMNS]


def run(config: InboxConfig, store: Store) -> Manifest:
    """Mask the new films and write masks.csv, a row a film of this run, earlier tries included.

    With neither a champion nor a starter there is nothing to do. Raises ConflictError where another
    run masks the same inbox with the same version, and, after all others are masked,
    ServiceUnavailableError where films did not arrive whole.
    """
    started = time.time()
    models = f"{config.out.rstrip('/')}/models/{config.name}"
    if not (model := _masking_model(config, store, models)):
        log.warning("there is no champion of %s yet: the inbox waits for the first", config.name)
        model = {"name": config.name, "version": "none", "val_dice": None}
        return _finish(config, store, [], {}, films=0, model=model, started=started)
    version = model["version"]
    ledger = Ledger(store, f"{_folder(config, version)}/ledger")
    earlier_rows = [row for row in _ledger_rows(ledger) if row["run_id"] == config.run_id]
    survey = _Survey(config, store, ledger, _other_ledgers(config, store, models, version))
    films, new, skipped = survey.count()
    log.info("%s: %d films, %d new to version %s", config.inbox, films, new, version)
    log.info("files passed over: %s", described(by_reason(skipped)))
    new_rows: Iterable[InboxRow] = ()
    not_whole: list[DamagedTransferError] = []
    if new:
        package = read_package(store, models, version)
        new_rows = track(_mask_new(survey, package, not_whole), new, "masks")
    rows = itertools.chain(earlier_rows, new_rows)
    manifest = _finish(config, store, rows, skipped, films=films, model=model, started=started)
    if not_whole:
        raise ServiceUnavailableError(
            f"{config.inbox}: {len(not_whole)} films did not arrive whole and have no mask yet, "
            f"the first one: {not_whole[0]}"
        )
    return manifest


def _masking_model(config: InboxConfig, store: Store, models: str) -> dict[str, Any] | None:
    """Name, version and Dice of the champion, else of the starter where it is wanted."""
    champion, _ = read_champion(store, f"{models}/champion.json")
    if champion:
        dice = champion.get("val_dice")
        return {"name": config.name, "version": champion["version"], "val_dice": dice}
    starter = published_starter(store, models) if config.starter else None
    if not starter:
        return None
    log.info(
        "there is no champion of %s yet: the starter masks, version %s",
        *(config.name, starter.version),
    )
    # Its Dice is of other films than this model's.
    return {"name": config.name, "version": starter.version, "val_dice": None}


def _ledger_rows(ledger: Ledger) -> Iterator[InboxRow]:
    for row in ledger.read():
        check_inbox(row, f"the ledger's row of {row['origin']}")
        yield cast("InboxRow", row)


def _noted(
    config: InboxConfig, objects: Iterable[StoredObject], names: NamesInTurn
) -> Iterator[StoredObject]:
    """The objects with their names noted; last those that another object may make a mask."""
    waiting = []
    for item in objects:
        if names.note(item.uri.removeprefix(config.folder())):
            waiting.append(item)
        else:
            yield item
    yield from waiting


def _films(
    config: InboxConfig,
    objects: Iterable[StoredObject],
    names: NamesInTurn,
    skipped: dict[str, str] | None = None,
) -> Iterator[Film]:
    """The films among the inbox's objects; puts {name: reason} of other files in `skipped`."""
    for item in objects:
        origin = item.uri.removeprefix(config.folder())
        if reason := names.reason_to_skip(origin):
            # A console marks an empty folder with an empty object whose key ends in "/".
            if skipped is not None and not origin.endswith("/"):
                skipped[origin] = reason
            continue
        # The ETag as listed: a film that is replaced before it is read is new again.
        listing = {"uri": item.uri, "etag": item.etag, "run_id": config.run_id}
        yield Film(film_id(origin), origin, item.uri, bytes=item.bytes, listing=listing)


def _other_ledgers(config: InboxConfig, store: Store, models: str, masking: str) -> list[Ledger]:
    """The ledgers of the model's other versions where their masks count, else none.

    By their packages: a listing of masks/<name>/ would be a listing of every mask.
    """
    if config.remask:
        return []
    others = [version for version in versions(store, models) if version != masking]
    ledgers = [Ledger(store, f"{_folder(config, version)}/ledger") for version in others]
    for ledger in ledgers:
        for _ in ledger.read():
            pass
    return ledgers


@dataclass(frozen=True)
class _Survey:
    """Which films of the inbox are new to the version that masks, whose ledger is `ledger`.

    Its objects are listed page after page: by `count` first, which notes their names, for a mask
    such as c1_seg.png is known by its film c1.png.
    """

    config: InboxConfig
    store: Store
    ledger: Ledger
    others: Sequence[Ledger]
    names: NamesInTurn = field(default_factory=NamesInTurn)

    def count(self) -> tuple[int, int, dict[str, str]]:
        """(films in the inbox, films to mask now, {name: reason} of the other files)."""
        skipped: dict[str, str] = {}
        objects = _noted(self.config, self._objects(), self.names)
        films_listed = _films(self.config, objects, self.names, skipped)
        states = Counter(map(self._has_mask, films_listed))
        if states[False]:
            log.warning(
                "%d films could not be read before: the ledger has the reasons", states[False]
            )
        films = states.total()
        return films, films if self.config.force else states[None], dict(sorted(skipped.items()))

    def new(self) -> Iterator[Film]:
        """The films to mask now."""
        films = _films(self.config, self._objects(), self.names)
        return (film for film in films if self.config.force or self._has_mask(film) is None)

    def _objects(self) -> Iterator[StoredObject]:
        return self.store.list_objects(self.config.folder())

    def _has_mask(self, film: Film) -> bool | None:
        """Whether the film has a mask; False where it could not be read, None where it is new."""
        origin, etag = film.origin, film.listing["etag"]
        if any(ledger.ok(origin, etag) for ledger in self.others):
            return True
        return self.ledger.ok(origin, etag)


def _mask_new(
    survey: _Survey, package: Package, not_whole: list[DamagedTransferError]
) -> Iterator[InboxRow]:
    """Mask every new film; yields rows once the part of the ledger that holds them is written.

    The errors of films that do not arrive whole are appended to `not_whole`.
    """
    config, store = survey.config, survey.store

    def write(key: str, packed: bytes) -> None:
        store.write(f"{_folder(config, package.version)}/{key}", packed)

    previews = Previews(write)
    masker = _build_masker(config, store, package, not_whole, previews)
    rows = masker.rows(chunked(survey.new(), FILMS_PER_PART))
    masked = (row for row in rows if row["status"] != "missing")
    for part in map(previews.pack, chunked(masked, FILMS_PER_PART)):
        survey.ledger.append(part)
        yield from cast("list[InboxRow]", part)


def _build_masker(
    config: InboxConfig,
    store: Store,
    package: Package,
    not_whole: list[DamagedTransferError],
    previews: Previews,
) -> Masker:
    # torch takes seconds to import, and an inbox without new films needs none.
    from jobs.films.network import Network

    def read(film: Film) -> bytes | None:
        try:
            return store.read(film.uri)
        except NotFoundError:
            log.info("%s vanished before it was read", film.origin)
        except (DamagedObjectError, DamagedTransferError) as error:
            log.warning("%s is left for the next run: %s", film.origin, error)
            if isinstance(error, DamagedTransferError):
                not_whole.append(error)
        return None

    def put(film_id: str, mask: bytes) -> FileRow:
        key = f"{film_id}.png"
        store.write(f"{_folder(config, package.version)}/{key}", mask, content_type="image/png")
        return describe(key, mask).row()

    return Masker(Network(package.model_json, package.weights), read, put, previews.keep)


def _finish(
    config: InboxConfig,
    store: Store,
    rows: Iterable[InboxRow],
    skipped: Mapping[str, str],
    *,
    films: int,
    model: Mapping[str, Any],
    started: float,
) -> Manifest:
    """Write masks.csv as the rows come, skipped.csv, the sheet and, last, masks.json, a header."""
    states, sheet, version = Counter[str](), Sheet(), model["version"]

    def lines() -> Iterator[dict[str, Any]]:
        for row in rows:
            states[row["status"]] += 1
            states["review"] += row.get("review", False)
            sheet.add(row)
            yield _table_line(row, _folder(config, version))

    run = f"{config.out.rstrip('/')}/runs/{config.run_id}"
    table = csv_bytes(COLUMNS, lines())
    store.write(f"{run}/masks.csv", table, content_type="text/csv")
    log_review(states["review"], f"{run}/masks.csv")
    skipped_table = csv_bytes(skipped_files.COLUMNS, skipped_files.lines(skipped))
    store.write(f"{run}/{SKIPPED_CSV}", skipped_table, content_type="text/csv")
    counts = {
        "films": films,
        "new": states["ok"] + states["failed"],
        "masks": states["ok"],
        "failed": states["failed"],
        "review": states["review"],
    }
    of_page = sheet.files(
        run_id=config.run_id, counts=counts, model=model, skipped=by_reason(skipped)
    )
    for name, content in of_page.items():
        store.write(f"{run}/{name}", content, content_type="application/json")
    masks_json = header(
        job="inbox",
        recipe=RECIPE,
        started=started,
        inputs={},
        config=config.identity(),
        counts=counts,
        headline={**counts, "version": version} | headline(by_reason(skipped)),
        files=[describe("masks.csv", table), describe(SKIPPED_CSV, skipped_table)],
        records=[describe(name, content) for name, content in of_page.items()],
    )
    store.write_json(f"{run}/masks.json", masks_json)
    return replace(manifest_of(f"{run}/masks.json", masks_json), reused=not states)


def _table_line(row: InboxRow, folder: str) -> dict[str, Any]:
    """The row's line of masks.csv: the URIs of the film and, where there is one, its mask."""
    line: dict[str, Any] = {**row, "film": row["uri"]}
    if "mask" in row:
        line["mask"] = f"{folder}/{row['mask']['key']}"
    return {name: line[name] for name in COLUMNS if name in line}


def _folder(config: InboxConfig, version: str) -> str:
    return f"{config.out.rstrip('/')}/masks/{config.name}/{version}"
