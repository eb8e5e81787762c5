"""Where a job's time went: seconds of its threads by stage, and the bytes read and written.

A profile is recorded for every job, as a stage costs a few microseconds; `--profile` prints it.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

log = logging.getLogger(__name__)

# In the order that a film goes through them: fetch is from a source, read and write are S3.
STAGES = [
    "fetch",
    "read",
    "decode",
    "check",
    "resize",
    "data",
    "compute",
    "validate",
    "restore",
    "encode",
    "preview",
    "write",
]
# The stage of the main thread's waiting; kept apart from those of work.
WAITED = "waited"
LINE = "  %-10s %9s %6s %9s %9s %10s"


@dataclass
class Tally:
    """The totals of one stage: seconds summed over threads, times entered, bytes moved."""

    seconds: float = 0.0
    times: int = 0
    bytes: int = 0

    def rounded(self) -> dict[str, Any]:
        return {"seconds": round(self.seconds, 3), "times": self.times, "bytes": self.bytes}


@dataclass
class Profile:
    """The tallies of one job; all its threads add to it."""

    started: float = field(default_factory=time.perf_counter)
    tallies: dict[str, Tally] = field(default_factory=dict)
    threads: set[int] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)
    # Of each thread `inner`: the seconds that stages inside the current one have counted.
    local: threading.local = field(default_factory=threading.local)

    def add(self, stage: str, seconds: float, *, times: int = 1, moved: int = 0) -> None:
        with self.lock:
            tally = self.tallies.setdefault(stage, Tally())
            tally.seconds += seconds
            tally.times += times
            tally.bytes += moved
            self.threads.add(threading.get_ident())

    def summary(self) -> dict[str, Any]:
        """JSON: wall_seconds so far, those that the main thread waited, and the stages.

        `threads` is how many worked in any stage; the stages' seconds sum to no more than
        `threads` times `wall_seconds`.
        """
        wall = time.perf_counter() - self.started
        with self.lock:
            names = [name for name in STAGES if name in self.tallies]
            others = sorted(self.tallies.keys() - {*names, WAITED})
            waited = self.tallies.get(WAITED, Tally())
            return {
                "wall_seconds": round(wall, 3),
                "waited_seconds": round(waited.seconds, 3),
                "threads": len(self.threads),
                "stages": {name: self.tallies[name].rounded() for name in (*names, *others)},
            }


# The profile of the job that runs; `parallel` starts its threads with their caller's context.
_current: ContextVar[Profile | None] = ContextVar("profile", default=None)


@contextlib.contextmanager
def recording() -> Iterator[Profile]:
    """A new profile of what runs inside, and in the threads that `parallel` starts there."""
    profile = Profile()
    token = _current.set(profile)
    try:
        yield profile
    finally:
        _current.reset(token)


def summary() -> dict[str, Any]:
    """`Profile.summary` of the job that runs now; {} outside a recording."""
    profile = _current.get()
    return profile.summary() if profile else {}


@contextlib.contextmanager
def timed(stage: str) -> Iterator[None]:
    """Count the seconds inside to `stage`, less those that a stage further inside counts."""
    profile = _current.get()
    if not profile:
        yield
        return
    local = profile.local
    outer = getattr(local, "inner", 0.0)
    local.inner = 0.0
    started = time.perf_counter()
    try:
        yield
    finally:
        seconds = time.perf_counter() - started
        profile.add(stage, seconds - local.inner)
        local.inner = outer + seconds


def moved(stage: str, size: int) -> None:
    """Add `size` bytes to those that `stage` has read or written."""
    if profile := _current.get():
        profile.add(stage, 0.0, times=0, moved=size)


def spent(stage: str, seconds: float) -> None:
    """Add seconds of this thread that were measured elsewhere."""
    if profile := _current.get():
        profile.add(stage, seconds)


def waiting() -> contextlib.AbstractContextManager[None]:
    """Count the seconds inside as waited, in the main thread; other threads' are not counted."""
    in_main = threading.current_thread() is threading.main_thread()
    return timed(WAITED) if in_main else contextlib.nullcontext()


def stages(profile: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The stages of a `Profile.summary`, with their names and shares (0..1) of all seconds."""
    total = sum(stage["seconds"] for stage in profile["stages"].values()) or 1.0
    return [
        {"name": name, "share": stage["seconds"] / total, **stage}
        for name, stage in profile["stages"].items()
    ]


def log_table(job: str, profile: Mapping[str, Any]) -> None:
    """Log a job's `Profile.summary` as a table, as `--profile` prints it."""
    wall, waited = profile["wall_seconds"], profile["waited_seconds"]
    log.info("%s: where %.1f s went (%.1f s: the main thread waited)", job, wall, waited)
    log.info(LINE, "stage", "seconds", "share", "times", "ms each", "MB")
    for stage in stages(profile):
        each = f"{1000 * stage['seconds'] / max(1, stage['times']):.2f}"
        size = f"{stage['bytes'] / 1e6:.1f}" if stage["bytes"] else ""
        figures = f"{stage['seconds']:.2f}", f"{stage['share']:.0%}", f"{stage['times']:,}"
        log.info(LINE, stage["name"], *figures, each, size)
