"""Measure the cost of a training: CPU-seconds, peak memory, and training films per second."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from pathlib import Path

LINES_OF_PROGRESS = 10


def cpu_seconds() -> float:
    """User and system time of this process and of its children that have exited, in seconds."""
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def peak_mebibytes() -> float:
    """Peak resident memory of this program, in MiB (Linux)."""
    # Not getrusage's ru_maxrss: it survives exec, so it includes the parent's memory at the fork.
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def epochs_within(budget: float, epoch_cost: float) -> int:
    """How many epochs of `epoch_cost` fit into `budget`, at least 1; both in CPU-seconds."""
    return max(1, int(budget / epoch_cost))


class Throughput:
    """Times the training steps only (augmentation, forward, backward, update), not validation."""

    def __init__(self) -> None:
        self.films, self.cpu, self.wall = 0, 0.0, 0.0
        self._step_start: tuple[float, float] | None = None

    def start(self) -> None:
        """Start the clock of a step."""
        self._step_start = cpu_seconds(), time.perf_counter()

    def stop(self, films: int) -> None:
        """Count the step as one of `films` films; does nothing if no step was started."""
        if self._step_start is None:
            return
        cpu, wall = self._step_start
        self.cpu += cpu_seconds() - cpu
        self.wall += time.perf_counter() - wall
        self.films += films
        self._step_start = None

    def figures(self) -> dict[str, float]:
        """Films timed, films per CPU-second and films per second; rates are 0 without a film."""
        return {
            "films_seen": self.films,
            "images_per_cpu_second": self.films / self.cpu if self.cpu else 0.0,
            "images_per_second": self.films / self.wall if self.wall else 0.0,
        }


class Clock:
    """A budget of CPU-seconds that starts with the first step."""

    def __init__(self, budget: float) -> None:
        self._started = 0.0
        self._budget = budget
        self._last_printed = 0
        self._throughput = Throughput()

    def steps(self) -> Iterator[float]:
        """Yield the share of the budget spent so far, 0..1, before each step that is affordable."""
        self._started = cpu_seconds()
        while (spent := self._spent()) < 1:
            self._throughput.start()
            yield spent

    def end_step(self, films: int, loss: float) -> None:
        """Count a step of `films` films; prints a line at each tenth of the budget."""
        self._throughput.stop(films)
        if (part := int(LINES_OF_PROGRESS * self._spent())) > self._last_printed:
            self._last_printed = part
            films_seen, spent = self._throughput.films, cpu_seconds() - self._started
            print(f"{films_seen} films seen: loss {loss:.4f}, {spent:.0f} CPU-s", flush=True)

    def facts(self) -> dict[str, float]:
        """CPU-seconds so far, and the throughput."""
        return {"cpu_seconds": cpu_seconds() - self._started, **self._throughput.figures()}

    def _spent(self) -> float:
        return (cpu_seconds() - self._started) / self._budget
