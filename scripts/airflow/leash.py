"""Runs a command and ends it, with all processes that it started, when standard input closes.

usage: python scripts/airflow/leash.py [--restart] COMMAND...

The caller holds the write end of a pipe. When it closes the pipe, or dies in any way, the command's
whole family ends. With --restart a command that ends by itself is started again, unless it ended
within 30 s of its start.
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

# Airflow's supervisor gives its task 5 s, and the task gives its job 3 s.
GRACE_SECONDS = 7.0
POLL_SECONDS = 0.1
# A command that ended sooner would fail again.
SECONDS_WORTH_RESTARTING = 30.0
# Options of prctl(2), from linux/prctl.h.
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36


class Leash:
    """A command and the family of processes that it started."""

    def __init__(self) -> None:
        self._groups: list[int] = []
        self._over = threading.Event()
        # Descendants that lose their parent become children of this process and stay known.
        prctl(PR_SET_CHILD_SUBREAPER, 1)

    def run(self, command: list[str], *, restart: bool) -> int:
        """Run the command until it ends or standard input closes.

        Returns its exit code; 128 + n after signal n.
        """
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
        """SIGTERM to the command's process groups, whose members stop their tasks; then SIGKILL."""
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
    living = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if process.status() != psutil.STATUS_ZOMBIE:
                living.append(process)
    return living


def prctl(option: int, value: int) -> None:
    """Set an attribute of this process; Linux only, elsewhere without effect."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value)


if __name__ == "__main__":
    is_restarted = sys.argv[1] == "--restart"
    sys.exit(Leash().run(sys.argv[1 + is_restarted :], restart=is_restarted))
