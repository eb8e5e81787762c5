"""A job that is stopped saves at once, even during one long computation."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jobs.runtime.save_on_signal import saving
from tests.support.films import ROOT

SECONDS = 60
# One call of a C function, which no Python signal handler interrupts, and longer than the test.
LONG = "hashlib.pbkdf2_hmac('sha256', b'', b'', 10**9)"


def run(save: str, body: str, number: int, folder: Path) -> tuple[int, str]:
    """The exit code and the messages of a process that is sent a signal while it runs `body`."""
    script = f"""
import hashlib, logging, os, signal, sys, time
from pathlib import Path
from jobs.errors import ConflictError, ServiceUnavailableError
from jobs.runtime.save_on_signal import saving
logging.basicConfig(stream=sys.stderr)
def save():
    {save}
with saving(save):
    Path("ready").touch()
    {body}
"""
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=folder,
        env={"PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        limit = time.monotonic() + SECONDS
        while not (folder / "ready").exists():
            assert process.poll() is None and time.monotonic() < limit
            time.sleep(0.01)
        process.send_signal(number)
        _, messages = process.communicate(timeout=SECONDS)
    finally:
        process.kill()
    return process.returncode, messages


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_saves_and_leaves_with_75_while_the_main_thread_computes(
    number: signal.Signals, tmp_path: Path
) -> None:
    code, messages = run("Path('saved').touch()", LONG, number, tmp_path)
    assert code == 75
    assert f"stopped by {number.name}: the state is saved; start the job again" in messages
    assert (tmp_path / "saved").exists()


def test_a_main_thread_that_fails_meanwhile_does_not_cut_the_saving_short(tmp_path: Path) -> None:
    save = "Path('begun').touch(); time.sleep(0.5); Path('saved').touch()"
    body = (
        "while not Path('begun').exists(): time.sleep(0.01)\n    raise RuntimeError('peer is gone')"
    )
    code, _ = run(save, body, signal.SIGTERM, tmp_path)
    assert code == 75 and (tmp_path / "saved").exists()


def test_a_state_that_cannot_be_saved_is_logged_and_the_code_is_still_75(tmp_path: Path) -> None:
    save = "raise ConflictError('another run wrote last.pt')"
    code, messages = run(save, LONG, signal.SIGTERM, tmp_path)
    assert code == 75
    assert "not saved, resumes at the last epoch's end: another run wrote last.pt" in messages


def test_a_state_that_s3_does_not_take_leaves_with_the_code_of_an_absent_service(
    tmp_path: Path,
) -> None:
    save = "raise ServiceUnavailableError('S3 does not answer')"
    code, messages = run(save, LONG, signal.SIGTERM, tmp_path)
    assert code == 69
    assert "not saved, resumes at the last epoch's end: S3 does not answer" in messages


def test_signals_are_handled_as_before_once_the_block_is_left() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    with pytest.raises(ZeroDivisionError), saving(lambda: None):
        assert signal.getsignal(signal.SIGTERM) != before[0]
        raise ZeroDivisionError
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before
    assert signal.set_wakeup_fd(-1) == -1
