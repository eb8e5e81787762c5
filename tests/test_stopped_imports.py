"""A job that is stopped while it still imports ends with 75 and one line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.films import ROOT

# Runs `python -m jobs`, and stops it when it comes to import its command line.
STOPS_AT_THE_START = """
import os, runpy, signal, sys
class Stop:
    def find_spec(self, name, path=None, target=None):
        if name == "jobs.cli":
            os.kill(os.getpid(), signal.SIGTERM)
sys.meta_path.insert(0, Stop())
runpy.run_module("jobs", run_name="__main__")
"""
# Runs a command that imports the module `library`, and then works for a minute.
IMPORTS = """
import sys, time
from jobs import cli
def command(arguments):
    import library
    print("imported", flush=True)
    time.sleep(60)
cli._print_schema = command
sys.exit(cli.main(["schema"]))
"""
# As libraries do around what they may do without.
SWALLOWS = """
import os, signal, time
try:
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0.1)
except BaseException:
    pass
"""
TAKES_LONG = """
import os, signal, time
os.kill(os.getpid(), signal.SIGTERM)
time.sleep(60)
"""


def end_of(script: str, library: Path) -> tuple[int, str, list[str]]:
    """(exit code, stdout, lines of stderr) of a Python that runs `script` beside `library`."""
    process = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env={"PYTHONPATH": f"{library}:{ROOT}"},
        capture_output=True,
        text=True,
        timeout=50,
    )
    return process.returncode, process.stdout, process.stderr.splitlines()


def test_a_stop_before_the_command_line_is_imported_ends_with_75(tmp_path: Path) -> None:
    code, printed, lines = end_of(STOPS_AT_THE_START, tmp_path)
    assert (code, printed) == (75, "")
    assert lines == ["stopped by SIGTERM before the job began: start it again"]


def test_a_stop_that_a_library_would_swallow_waits_for_the_end_of_its_import(
    tmp_path: Path,
) -> None:
    (tmp_path / "library.py").write_text(SWALLOWS)
    code, printed, lines = end_of(IMPORTS, tmp_path)
    assert (code, printed, len(lines)) == (75, "imported\n", 1)
    assert "stopped by SIGTERM" in lines[0]


@pytest.mark.slow
def test_an_import_that_takes_longer_than_a_grace_is_ended(tmp_path: Path) -> None:
    (tmp_path / "library.py").write_text(TAKES_LONG)
    code, printed, lines = end_of(IMPORTS, tmp_path)
    assert (code, printed, len(lines)) == (75, "", 1)
    assert "stopped by SIGTERM" in lines[0]
