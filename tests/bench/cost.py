"""What a training costs: CPU-seconds spent, and training films a second."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from pathlib import Path

LINES_OF_PROGRESS = 10


def cpu_seconds() -> float:
    """User and system time of this process and of its children that have ended."""
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def peak_mebibytes() -> float:
    """The most memory that this program has held, in MiB (Linux).

    Not getrusage's ru_maxrss, which counts what the process held before it became this program.
    """
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def epochs_within(budget: float, epoch_cost: float) -> int:
    """The whole epochs of `epoch_cost` that `budget` pays for, 1 at least; both in CPU-seconds."""
    return max(1, int(budget / epoch_cost))


class Throughput:
    """Counts the training steps alone: augmentation, forward, backward, update; no validation."""

    def __init__(self) -> None:
        self.films, self.cpu, self.wall = 0, 0.0, 0.0
        self._since: tuple[float, float] | None = None

    def start(self) -> None:
        """A step begins."""
        self._since = cpu_seconds(), time.perf_counter()

    def stop(self, films: int) -> None:
        """The step that began has trained on `films` films; nothing where none began."""
        if self._since is None:
            return
        cpu, wall = self._since
        self.cpu += cpu_seconds() - cpu
        self.wall += time.perf_counter() - wall
        self.films += films
        self._since = None

    def figures(self) -> dict[str, float]:
        """Films measured, and films a CPU-second and a second; 0 where nothing was measured."""
        return {
            "films_seen": self.films,
            "images_per_cpu_second": self.films / self.cpu if self.cpu else 0.0,
            "images_per_second": self.films / self.wall if self.wall else 0.0,
        }


class Clock:
    """A budget of CPU-seconds, spent from the first step on."""

    def __init__(self, budget: float) -> None:
        self._started = 0.0
        self._budget = budget
        self._told = 0
        self._throughput = Throughput()

    def steps(self) -> Iterator[float]:
        """The share of the budget that is spent, 0..1, at the start of each step it pays for."""
        self._started = cpu_seconds()
        while (spent := self._spent()) < 1:
            self._throughput.start()
            yield spent

    def end_step(self, films: int, loss: float) -> None:
        """A step has trained on `films` films; a line is printed at each tenth of the budget."""
        self._throughput.stop(films)
        if (part := int(LINES_OF_PROGRESS * self._spent())) > self._told:
            self._told = part
            seen, spent = self._throughput.films, cpu_seconds() - self._started
            print(f"{seen} films seen: loss {loss:.4f}, {spent:.0f} CPU-s", flush=True)

    def facts(self) -> dict[str, float]:
        """CPU-seconds so far, and the throughput."""
        return {"cpu_seconds": cpu_seconds() - self._started, **self._throughput.figures()}

    def _spent(self) -> float:
        return (cpu_seconds() - self._started) / self._budget
