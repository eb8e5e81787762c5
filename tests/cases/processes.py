"""Tries that start the product as a process, as a person or a script of the case does."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from jobs.storage import weed
from tests.cases.table import SkippedError
from tests.cases.tries import Action, Bench
from tests.support.films import ROOT

SECONDS = 240
# A small training, with which any film may be masked.
SMALL = ["--size", "64", "--epochs", "1", "--network", "small", "--min-dice", "0"]
SMALL += ["--starter", "false"]
PHANTOMS = ["--source", "synthetic://phantoms?films=12&seed=0"]
EXIT = re.compile(r"^exit (\d+)\s+\((.+?), \d+ s\)$")
# Nothing listens there: a request to a host elsewhere fails at once.
NO_NETWORK = {"HTTPS_PROXY": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"}


def jobs(
    arguments: Sequence[str], environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `python -m jobs` with more variables."""
    return subprocess.run(
        [sys.executable, "-m", "jobs", *arguments],
        cwd=ROOT,
        env=os.environ | dict(environment or {}),
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )


def ending(process: subprocess.CompletedProcess[str]) -> str:
    """The exit code, with the error's line where it is not 0."""
    if not process.returncode:
        return "exit 0"
    last = process.stderr.splitlines()[-1] if process.stderr else ""
    return f"exit {process.returncode}: {_without_time(last)}"


def _without_time(text: str) -> str:
    return re.sub(r"^[-\d]+ [:,\d]+ [A-Z]+ ", "", text)


# Scripts


def script(case: Path, arguments: Sequence[str], environment: Mapping[str, str]) -> dict[str, str]:
    """Run try.sh on this checkout; {name of its try: "exit N: the line before"}."""
    process = subprocess.run(
        ["bash", str(case / "try.sh"), str(ROOT), *arguments],
        env=os.environ | dict(environment),
        capture_output=True,
        text=True,
    )
    endings: dict[str, str] = {}
    before = ""
    for text in process.stdout.splitlines():
        if match := EXIT.match(text):
            words = f": {_without_time(before)}" if match[1] != "0" and before else ""
            endings[match[2]] = f"exit {match[1]}{words}"
            before = ""
        elif text.strip():
            before = text
    return endings


# Runs and masks


def run(*arguments: str, source: str = "", environment: Mapping[str, str] | None = None) -> Action:
    """The whole chain on its own server."""

    def action(bench: Bench, case: Path) -> str:
        given = ["--source", (case / source).as_uri()] if source else PHANTOMS
        with tempfile.TemporaryDirectory(dir=bench.scratch) as folder:
            command = ["run", "--folder", folder, *given, *SMALL, *arguments]
            return ending(jobs(command, environment))

    return action


def masks_twice(films: str, to: str) -> Action:
    """`jobs masks` into a folder among the films, twice."""

    def action(bench: Bench, case: Path) -> str:
        command = ["masks", "--films", str(case / films), "--to", str(case / to)]
        command += ["--folder", str(bench.artifacts), "--model", "last"]
        results = []
        for _ in range(2):
            process = jobs(command)
            printed = process.stdout.partition(":")[0]
            results.append(printed if not process.returncode else ending(process))
        return ", then ".join(results)

    return action


# Variables of a launcher


def result_of_rank(number: int) -> Action:
    """A job with a launcher's variables left over: whether it writes its result."""

    def action(bench: Bench, case: Path) -> str:
        out = bench.out()
        variables = {"WORLD_SIZE": "2", "RANK": str(number), "LOCAL_RANK": str(number)}
        result = {"RESULT_URI": f"{out}/result.json"}
        process = jobs(
            ["download", *PHANTOMS, "--out", out], bench.environment | variables | result
        )
        written = bench.store.exists(result["RESULT_URI"])
        return f"{ending(process)}, result {'written' if written else 'missing'}"

    return action


# Disk and temporary folder


def full_disk(mebibytes: int, source: str, *, filled: bool = False) -> Action:
    """A run on a small disk; `filled` from its start."""

    def action(bench: Bench, case: Path) -> str:
        with _small_disk(bench, mebibytes) as disk:
            if filled:
                (disk / "filler").write_bytes(bytes(mebibytes * 2**20 - 2**16))
            given = ["--source", (bench.scratch / source).as_uri()]
            if not (bench.scratch / source).exists():
                raise SkippedError(f"there is no {source} beside the cases")
            return ending(jobs(["run", "--folder", str(disk / "art"), *given, *SMALL]))

    return action


@contextlib.contextmanager
def _small_disk(bench: Bench, mebibytes: int) -> Iterator[Path]:
    """A disk of so many MiB; SkippedError where this user may not mount one."""
    with tempfile.TemporaryDirectory(dir=bench.scratch) as name:
        command = ["mount", "-t", "tmpfs", "-o", f"size={mebibytes}m", "tmpfs", name]
        if os.getuid() or subprocess.run(command, capture_output=True).returncode:
            raise SkippedError("a small disk: only root mounts one, and not in every container")
        try:
            yield Path(name)
        finally:
            subprocess.run(["umount", name], check=True)


def litter() -> Action:
    """What a server leaves in the temporary folders once its command has ended."""

    def action(bench: Bench, case: Path) -> str:
        with tempfile.TemporaryDirectory(prefix="t") as temporary:
            command = ["s3", "--folder", str(bench.scratch / "served"), "--"]
            process = jobs([*command, "printenv", "AWS_ENDPOINT_URL"], {"TMPDIR": temporary})
            port = urlsplit(process.stdout.strip()).port or 0
            left = [path.name for path in Path(temporary).iterdir()]
        for number in weed.ports(port):
            left += [path.name for path in Path("/tmp").glob(f"seaweedfs-*{number}.sock")]
        return f"{ending(process)}, left: {', '.join(sorted(left)) or 'nothing'}"

    return action
