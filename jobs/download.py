"""download: a source of films -> raw/<fingerprint>/ in S3, one row a film with its masks."""

from __future__ import annotations

import contextlib
import itertools
import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from jobs.errors import BadDataError
from jobs.films.rows import RawRow, check_raw
from jobs.runtime.byte_budget import ByteBudget
from jobs.runtime.profile import moved, timed
from jobs.runtime.progress import track
from jobs.settings.config import DownloadConfig
from jobs.sources import layouts, name_clashes, patients, refusal
from jobs.sources.catalogue import Catalogue, FilmFiles, Member, describe
from jobs.sources.file_names import ARCHIVE, DICOM_FILE, OTHER
from jobs.sources.source import Source, open_source, split_sources
from jobs.storage.manifest import FileRow, Manifest
from jobs.storage.s3 import Store
from jobs.storage.work_folder import WorkFolder

log = logging.getLogger(__name__)

RECIPE = "2"
# Bytes of files that all threads together hold in memory.
BYTES_UNDER_WAY = 2**26
# Files that are left out and may hold the masks of films that have none.
MAY_BE_MASKS = (layouts.STRAY, layouts.OTHER_MASKS, DICOM_FILE, ARCHIVE, OTHER)


def run(config: DownloadConfig, store: Store) -> Manifest:
    """Copy the recognised films and masks byte for byte; list in the manifest what was left out.

    The fingerprint covers the source's content (a Kaggle version; an archive's names, sizes and
    CRC-32s) and the settings that assign films to patients.
    Raises BadDataError where no film is recognised or one name belongs to two different films,
    ConfigError where a film has no patient.
    """
    table = patients.read_table(config.patients, store) if config.patients else {}
    with _opened(config.source, store) as sources:
        extra: dict[str, Any] = {"sources": [source.identity() for source in sources]}
        if config.patients:
            extra["patients"] = patients.digest(table)
        work_folder = WorkFolder(
            store,
            config,
            job="download",
            folder="raw",
            recipe=RECIPE,
            extra=extra,
            check_row=check_raw,
        )
        return work_folder.finished() or _copy(work_folder, sources, config, table)


@contextlib.contextmanager
def _opened(uris: str, store: Store) -> Iterator[list[Source]]:
    """The sources of `uris`, which are joined by "+", with a folder for what they keep on disk."""
    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="download-")))
        sources: list[Source] = []
        for uri in split_sources(uris):
            sources.append(open_source(uri, store, scratch))
            stack.callback(sources[-1].close)
        yield sources


def _copy(
    work_folder: WorkFolder,
    sources: Sequence[Source],
    config: DownloadConfig,
    table: Mapping[str, str],
) -> Manifest:
    catalogue = _recognise(sources)
    films = _with_patients(catalogue.films, config, table)
    log.info("%d films of %d patients", len(films), len({film.patient for film in films}))
    _check_sizes(sources, films)
    name_clashes.check_films(sources, catalogue)
    name_clashes.warn_of_masks(sources, catalogue)
    budget = ByteBudget(BYTES_UNDER_WAY)

    def copy(film: FilmFiles) -> RawRow:
        return _copy_film(work_folder, sources, film, budget)

    total = len(films)
    rows = track(work_folder.write_rows(films, total, copy), total, "download")
    pairs = sum(1 for row in rows if row["masks"])
    counts = {"films": total, "pairs": pairs, "without_mask": total - pairs}
    details = {
        "layouts": catalogue.layouts,
        "without_mask": catalogue.without_mask,
        "one_lung": catalogue.one_lung,
        "masks_without_film": catalogue.masks_without_film,
        "copies": [copy[1] for _, copy in catalogue.copies],
        "ignored": catalogue.ignored,
    }
    return work_folder.finish(counts=counts, headline=counts, details=details)


def _recognise(sources: Sequence[Source]) -> Catalogue:
    """The films of all sources; BadDataError where none has a mask and other files are left over.

    Films alone are taken: a model may mask them.
    """
    names = [source.names() for source in sources]
    catalogue = layouts.recognise(names)
    for line in describe(catalogue):
        log.info("%s", line)
    pairs = len(catalogue.films) - len(catalogue.without_mask)
    is_left_over = catalogue.masks_without_film or any(map(catalogue.ignored.get, MAY_BE_MASKS))
    if not catalogue.films or (not pairs and is_left_over):
        what = "no film has a lung mask" if catalogue.films else "no films were recognised"
        every_name = list(itertools.chain.from_iterable(names))
        met, remedy = refusal.folders_met(every_name), refusal.remedy(every_name)
        raise BadDataError(f"{what} in the source: it has {met}: {remedy}")
    if not pairs and set(catalogue.layouts) == {"films"}:
        _check_folders([film.film[1] for film in catalogue.films])
    return catalogue


def _check_folders(films: Sequence[str]) -> None:
    """Refuse films alone in two folders of the same names, of which one may hold the masks."""
    if folders := refusal.two_of_a_name(films):
        raise BadDataError(
            f"no film has a lung mask in the source, and {folders} have files of the same names: "
            f"give {refusal.FORMS}; films alone are masked without a download, by predict --films"
        )


def _with_patients(
    films: list[FilmFiles], config: DownloadConfig, table: Mapping[str, str]
) -> list[FilmFiles]:
    if config.patient_pattern:
        flag = f"--patient-pattern {config.patient_pattern!r}"
        return patients.assign(films, patients.by_pattern(config.patient_pattern), flag)
    if config.patients:
        return patients.assign(films, patients.by_table(table), f"--patients {config.patients}")
    patients.warn_of_numbered_films(films)
    return films


def _copy_film(
    work_folder: WorkFolder, sources: Sequence[Source], film: FilmFiles, budget: ByteBudget
) -> RawRow:
    def put(member: Member, stem: str) -> FileRow:
        source, name = sources[member[0]], member[1]
        with budget.taking(source.size(name)):
            with timed("fetch"):
                data = source.read(name)
            moved("fetch", len(data))
            return work_folder.put(stem + PurePosixPath(name).suffix.lower(), data)

    return {
        "id": film.id,
        "patient": film.patient,
        "source": film.source,
        "label": film.label,
        "origin": film.film[1],
        "film": put(film.film, f"films/{film.id}"),
        "masks": {
            side: put(member, f"masks/{film.id}.{side}")
            for side, member in sorted(film.masks.items())
        },
    }


def _check_sizes(sources: Sequence[Source], films: Sequence[FilmFiles]) -> None:
    """Raise BadDataError for a file over the size limit before the first file is copied."""
    for film in films:
        for source, name in (film.film, *film.masks.values()):
            sources[source].size(name)
