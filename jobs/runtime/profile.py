"""Where a job's time went: seconds of its threads by stage, and the bytes that were moved.

It is always on, as a stage costs a few microseconds; `--profile` only prints it.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

log = logging.getLogger(__name__)

# In the order that a film goes through them: fetch is from a source, read and write are S3.
STAGES = (
    *("fetch", "read", "decode", "check", "resize"),
    *("data", "compute", "validate", "restore", "encode", "write"),
)
WAITED = "waited"
LINE = "  %-10s %9s %6s %9s %9s %10s"


@dataclass
class Tally:
    """What one stage came to: seconds summed over threads, times entered, bytes moved."""

    seconds: float = 0.0
    times: int = 0
    bytes: int = 0


@dataclass
class Profile:
    """The tallies of one job; threads share it."""

    started: float = field(default_factory=time.perf_counter)
    tallies: dict[str, Tally] = field(default_factory=dict)
    threads: set[int] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, stage: str, seconds: float, *, times: int = 1, moved: int = 0) -> None:
        with self.lock:
            tally = self.tallies.setdefault(stage, Tally())
            tally.seconds += seconds
            tally.times += times
            tally.bytes += moved
            self.threads.add(threading.get_ident())

    def summary(self) -> dict[str, Any]:
        """Plain JSON: wall_seconds so far, those that the main thread waited, and the stages.

        `threads` is how many worked in any stage; the stages' seconds sum to no more than
        `threads` times `wall_seconds`.
        """
        wall = time.perf_counter() - self.started
        with self.lock:
            known = [name for name in STAGES if name in self.tallies]
            others = sorted(self.tallies.keys() - {*known, WAITED})
            waited = self.tallies.get(WAITED, Tally())
            return {
                "wall_seconds": round(wall, 3),
                "waited_seconds": round(waited.seconds, 3),
                "threads": len(self.threads),
                "stages": {name: _told(self.tallies[name]) for name in (*known, *others)},
            }


_current = Profile()
_recording = False
_thread = threading.local()


@contextlib.contextmanager
def recording() -> Iterator[Profile]:
    """A profile of its own for what runs inside, in whatever thread; one job at a time."""
    global _current, _recording
    before = _current, _recording
    _current, _recording = Profile(), True
    try:
        yield _current
    finally:
        _current, _recording = before


def summary() -> dict[str, Any]:
    """What is recorded now as `Profile.summary` tells it; {} where nothing is."""
    return _current.summary() if _recording else {}


@contextlib.contextmanager
def timed(stage: str) -> Iterator[None]:
    """Count what runs inside to `stage`, without what an inner stage counts to itself."""
    outer = getattr(_thread, "inner", 0.0)
    _thread.inner = 0.0
    started = time.perf_counter()
    try:
        yield
    finally:
        seconds = time.perf_counter() - started
        _current.add(stage, seconds - _thread.inner)
        _thread.inner = outer + seconds


def moved(stage: str, size: int) -> None:
    """Add `size` bytes to what `stage` has read or written."""
    _current.add(stage, 0.0, times=0, moved=size)


def spent(stage: str, seconds: float) -> None:
    """Add seconds of this thread that were measured elsewhere."""
    _current.add(stage, seconds)


def waiting() -> contextlib.AbstractContextManager[None]:
    """Count what the main thread waits for other threads; others' waiting counts for nothing."""
    in_main = threading.current_thread() is threading.main_thread()
    return timed(WAITED) if in_main else contextlib.nullcontext()


def stages(told: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The stages of a summary with their names and their shares of the seconds of all."""
    total = sum(stage["seconds"] for stage in told["stages"].values()) or 1.0
    return [
        {"name": name, "share": stage["seconds"] / total, **stage}
        for name, stage in told["stages"].items()
    ]


def log_table(job: str, told: Mapping[str, Any]) -> None:
    """What `--profile` prints of a job's summary, one line an event."""
    whole, waited = told["wall_seconds"], told["waited_seconds"]
    log.info("%s: where %.1f s went (%.1f s: the main thread waited)", job, whole, waited)
    log.info(LINE, "stage", "seconds", "share", "times", "ms each", "MB")
    for stage in stages(told):
        each = f"{1000 * stage['seconds'] / max(1, stage['times']):.2f}"
        size = f"{stage['bytes'] / 1e6:.1f}" if stage["bytes"] else ""
        figures = f"{stage['seconds']:.2f}", f"{stage['share']:.0%}", f"{stage['times']:,}"
        log.info(LINE, stage["name"], *figures, each, size)


def _told(tally: Tally) -> dict[str, Any]:
    return {"seconds": round(tally.seconds, 3), "times": tally.times, "bytes": tally.bytes}
