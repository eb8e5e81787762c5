"""download: a source of films -> raw/<fingerprint>/ in S3, one row a film with its masks."""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from jobs.config import DownloadConfig
from jobs.errors import BadDataError
from jobs.manifest import Manifest
from jobs.progress import track
from jobs.sources import Source, layouts, open_source, split_sources
from jobs.stage import Stage
from jobs.storage import Store

log = logging.getLogger(__name__)

RECIPE = "1"


def run(config: DownloadConfig, store: Store) -> Manifest:
    """Copy the films and masks that are recognised, byte for byte, and say what was not.

    The fingerprint is that of the source's content: a Kaggle version, an archive's sha256.
    Raises BadDataError where nothing is recognised or one name stands for two different films.
    """
    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="download-")))
        sources: list[Source] = []
        for uri in split_sources(config.source):
            sources.append(open_source(uri, store, scratch))
            stack.callback(sources[-1].close)
        identities = [source.identity() for source in sources]
        extra = {"sources": identities}
        stage = Stage(store, config, job="download", folder="raw", recipe=RECIPE, extra=extra)
        return stage.finished() or _copy(stage, sources)


def _copy(stage: Stage, sources: Sequence[Source]) -> Manifest:
    catalogue = layouts.recognise([source.names() for source in sources])
    for line in layouts.describe(catalogue):
        log.info("%s", line)
    if not catalogue.films:
        raise BadDataError(
            f"no films were recognised in the source (ignored: {catalogue.ignored or 'nothing'}): "
            "give the Montgomery layout, 'Lung Segmentation', or images/ beside masks/"
        )
    _check_copies(sources, catalogue.copies)

    def copy(film: layouts.FilmFiles) -> dict[str, Any]:
        return _copy_film(stage, sources, film)

    total = len(catalogue.films)
    rows = track(stage.write_rows(catalogue.films, total, copy), total, "download")
    pairs = sum(1 for row in rows if row["masks"])
    counts = {"films": total, "pairs": pairs, "without_mask": total - pairs}
    details = {
        "layouts": catalogue.layouts,
        "without_mask": catalogue.without_mask,
        "masks_without_film": catalogue.masks_without_film,
        "copies": [copy[1] for _, copy in catalogue.copies],
        "ignored": catalogue.ignored,
    }
    return stage.finish(counts=counts, headline=counts, details=details)


def _copy_film(stage: Stage, sources: Sequence[Source], film: layouts.FilmFiles) -> dict[str, Any]:
    def put(member: layouts.Member, stem: str) -> dict[str, Any]:
        source, name = member
        return stage.put(stem + PurePosixPath(name).suffix.lower(), sources[source].read(name))

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


def _check_copies(
    sources: Sequence[Source], copies: Sequence[tuple[layouts.Member, layouts.Member]]
) -> None:
    """Raise BadDataError unless each file that bears a film's name again holds the same bytes."""
    for kept, copy in copies:
        if sources[kept[0]].read(kept[1]) != sources[copy[0]].read(copy[1]):
            raise BadDataError(
                f"{kept[1]} and {copy[1]} bear the same film's name but differ: rename or remove "
                "one, since a mask can belong to only one of them"
            )
