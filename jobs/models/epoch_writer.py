"""What a training leaves in S3 after every epoch, and when it is told to stop."""

from __future__ import annotations

import logging
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from jobs.errors import ConflictError, NotFoundError
from jobs.reports.svg import picture
from jobs.segmentation import checkpoint
from jobs.segmentation.trainer import EpochResult
from jobs.storage.manifest import Row
from jobs.storage.work_folder import WorkFolder

log = logging.getLogger(__name__)


class Keeper:
    """Puts what an epoch leaves into S3, as the only writer: another one's put is refused.

    It does so while the next epoch trains, one epoch's after the other's.
    """

    def __init__(self, stage: WorkFolder, epochs: int) -> None:
        self._stage = stage
        self._epochs = epochs
        self._etag = ""
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="keeper")
        self._writing: Future[None] | None = None

    def load(self) -> bytes | None:
        """The last checkpoint, or None where training starts."""
        try:
            data, self._etag = self._stage.store.read_tagged(self._stage.uri_of("last.pt"))
        except NotFoundError:
            return None
        log.info("resuming from %s", self._stage.uri_of("last.pt"))
        return data

    def keep(self, result: EpochResult) -> None:
        """Begin to write an epoch's state. Raises what went wrong with the epoch's before."""
        self.wait()
        row = result.history[-1]
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
        self._writing = self._thread.submit(self._write, result)

    def wait(self) -> None:
        """Until all is written. Raises what went wrong."""
        if self._writing:
            self._writing.result()

    def save(self, last: bytes) -> None:
        """Write a checkpoint of the midst of an epoch, after what is being written."""
        self.wait()
        self._write_last(last)

    def _write(self, result: EpochResult) -> None:
        """last.pt first: who is refused there writes nothing."""
        store, uri_of = self._stage.store, self._stage.uri_of
        self._write_last(result.last)
        if result.best is not None:
            store.write(uri_of("best.pt"), result.best)
        store.write_json(uri_of("history.json"), {"epochs": result.history})
        curves = picture(result.history, self._epochs)
        store.write(uri_of("curves.svg"), curves, content_type="image/svg+xml")

    def _write_last(self, last: bytes) -> None:
        store, uri = self._stage.store, self._stage.uri_of("last.pt")
        owner: dict[str, Any] = {"if_etag": self._etag} if self._etag else {"if_absent": True}
        try:
            self._etag = store.write(uri, last, **owner)
        except ConflictError:
            # A put whose answer is lost is sent again, and then meets itself.
            found, etag = store.read_tagged(uri)
            if found != last:
                raise
            self._etag = etag

    def best(self) -> tuple[dict[str, Any], list[Row]]:
        """(the best epoch's checkpoint, the history of all epochs), as last.pt has both.

        best.pt may be behind it where this was killed between the two, and is put right.
        """
        store, uri_of = self._stage.store, self._stage.uri_of
        last = checkpoint.from_bytes(store.read(uri_of("last.pt")))
        store.write(uri_of("best.pt"), checkpoint.to_bytes(last["best"]))
        return last["best"], last["history"]
