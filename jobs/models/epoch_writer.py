"""Writes to S3 what a training keeps: after every epoch, and in mid-epoch when it is stopped."""

from __future__ import annotations

import logging
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from jobs.errors import ConflictError, NotFoundError
from jobs.reports.svg import picture
from jobs.runtime.parallel import submit
from jobs.segmentation import checkpoint
from jobs.segmentation.history import EpochRow
from jobs.segmentation.trainer import EpochResult
from jobs.storage.work_folder import WorkFolder

log = logging.getLogger(__name__)


class EpochWriter:
    """The only writer of a training's checkpoints and histories: a second one is refused.

    It writes an epoch while the next one trains, one epoch after the other.

    Args:
        folder: the training's folder in S3.
        epochs: how many epochs the whole training has.
    """

    def __init__(self, folder: WorkFolder, epochs: int) -> None:
        self._folder = folder
        self._epochs = epochs
        self._last_etag = ""
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="epoch-writer")
        self._pending: Future[None] | None = None

    def read_last(self) -> bytes | None:
        """The content of last.pt, from which training resumes; None where there is none."""
        uri = self._folder.uri_of("last.pt")
        try:
            last, self._last_etag = self._folder.store.read_tagged(uri)
        except NotFoundError:
            return None
        log.info("resuming from %s", uri)
        return last

    def write_epoch(self, result: EpochResult) -> None:
        """Log the epoch and write it from a thread. Raises the error of the epoch before."""
        self.wait()
        self._log_epoch(result.history[-1])
        self._pending = submit(self._thread, self._write_files, result)

    def write_last(self, last: bytes) -> None:
        """Write last.pt in mid-epoch, after the epoch that is being written."""
        self.wait()
        self._put_last(last)

    def wait(self) -> None:
        """Wait until all is written. Raises the error of the writing."""
        if self._pending:
            self._pending.result()

    def finish(self) -> tuple[dict[str, Any], list[EpochRow]]:
        """(the best epoch's checkpoint, the history), both from last.pt; best.pt is written anew.

        best.pt is older than last.pt where an earlier try was killed between the two puts.
        """
        store, uri_of = self._folder.store, self._folder.uri_of
        last = checkpoint.from_bytes(store.read(uri_of("last.pt")))
        store.write(uri_of("best.pt"), checkpoint.to_bytes(last["best"]))
        return last["best"], last["history"]

    def _log_epoch(self, row: EpochRow) -> None:
        log.info(
            "epoch %d of %d: train_loss %.4f val_loss %.4f val_dice %.4f "
            "(lung fraction %.3f: all-lung loss %.4f) %.1f s, %.1f films/s",
            row["epoch"],
            self._epochs,
            row["train_loss"],
            row["val_loss"],
            row["val_dice"],
            row["lung_fraction"],
            row["all_lung_loss"],
            row["seconds"],
            row["images_per_second"],
        )

    def _write_files(self, result: EpochResult) -> None:
        store, uri_of = self._folder.store, self._folder.uri_of
        # Write last.pt first: a refused conditional put stops this writer before it touches another
        # file.
        self._put_last(result.last)
        if result.best is not None:
            store.write(uri_of("best.pt"), result.best)
        store.write_json(uri_of("history.json"), {"epochs": result.history})
        curves = picture(result.history, self._epochs)
        store.write(uri_of("curves.svg"), curves, content_type="image/svg+xml")

    def _put_last(self, last: bytes) -> None:
        """Put last.pt over the one that this writer read or wrote. Raises ConflictError."""
        store, uri, etag = self._folder.store, self._folder.uri_of("last.pt"), self._last_etag
        try:
            self._last_etag = store.write(uri, last, if_absent=not etag, if_etag=etag)
        except ConflictError:
            # A put whose answer was lost is sent again and then conflicts with itself.
            stored, etag = store.read_tagged(uri)
            if stored != last:
                raise
            self._last_etag = etag
