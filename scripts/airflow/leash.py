"""Runs a command that ends, with all it started, when standard input ends.

usage: python scripts/airflow/leash.py [--restart] COMMAND...

Whoever starts it keeps the write end of a pipe: closing that, or dying in whatever way, ends the
command's whole family. With --restart a command that ends by itself is started again, unless it
lived so short that it would only fail again.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress

import psutil

# A task's supervisor gives its task 5 s, and the task gives its job 3 s.
GRACE_SECONDS = 7.0
POLL_SECONDS = 0.1
# A command that ended sooner has a fault in its start.
SECONDS_WORTH_RESTARTING = 30.0
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h


class Leash:
    """A command, its family, and the end of both."""

    def __init__(self) -> None:
        self._groups: list[int] = []
        self._over = threading.Event()
        # Descendants that lose their parent become this process's children and so stay known.
        prctl(PR_SET_CHILD_SUBREAPER, 1)

    def run(self, command: list[str], *, restart: bool) -> int:
        """Run the command until it or standard input ends; returns its exit code, 128 + n for n."""
        threading.Thread(target=self._wait_for_end_of_input, daemon=True).start()
        while True:
            started = time.monotonic()
            code = self._start(command).wait()
            short = time.monotonic() - started < SECONDS_WORTH_RESTARTING
            if self._over.is_set() or not restart or short:
                self._end_family()
                return code if code >= 0 else 128 - code
            print(f"{command} ended with {code}: starting it again", file=sys.stderr, flush=True)

    def _start(self, command: list[str]) -> subprocess.Popen[bytes]:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=lambda: prctl(PR_SET_PDEATHSIG, signal.SIGTERM),
        )
        self._groups.append(child.pid)
        return child

    def _wait_for_end_of_input(self) -> None:
        while os.read(0, 1):
            pass
        self._over.set()
        self._end_family()

    def _end_family(self) -> None:
        """TERM to the command's own groups, which tell their tasks; KILL to what is left."""
        for group in self._groups:
            with suppress(ProcessLookupError):
                os.killpg(group, signal.SIGTERM)
        deadline = time.monotonic() + GRACE_SECONDS
        while family() and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
        while left := family():
            for process in left:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            time.sleep(POLL_SECONDS)


def family() -> list[psutil.Process]:
    """The living descendants of this process."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value)


if __name__ == "__main__":
    again = sys.argv[1] == "--restart"
    sys.exit(Leash().run(sys.argv[1 + again :], restart=again))
