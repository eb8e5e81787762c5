"""Try folders of odd inputs and compare with what is right: `make cases CASES=folder`.

An argument is a folder of cases, or one case. A case is a folder NN-name with a make.py, which
writes data/ beside itself, or a try.sh; cases are copied before. A case that is not known is listed
without an expectation. The exit code is 1 if any result is wrong.
"""

from __future__ import annotations

import contextlib
import logging
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from jobs.errors import ConfigError, JobError
from jobs.models.last_run import LAST_RUN
from jobs.storage.local_server import embedded_s3
from jobs.storage.s3 import Store
from jobs.typed_json import parse
from tests.cases import processes, tries
from tests.cases.expectations import ARCHIVE, CALLS, NEEDED, SCRIPTS, TRIES, Try
from tests.cases.table import (
    HEADING,
    WRONG,
    Row,
    SkippedError,
    compared,
    line,
    skipped,
    summary,
    without_expectation,
)
from tests.cases.tries import Bench

CASE = r"\d\d-.+"
# Threads that draw and that run scripts, which wait more than they compute.
AT_ONCE = 3


def main(arguments: Sequence[str]) -> int:
    logging.basicConfig(level=logging.CRITICAL)
    cases = found(arguments)
    if not cases:
        print("make cases CASES=folder: give a folder that has folders named NN-name")
        return 2
    with tempfile.TemporaryDirectory(prefix="cases-") as name:
        rows = []
        print(line(HEADING))
        for row in results(cases, Path(name)):
            rows.append(row)
            print(line(row), flush=True)
    print(summary(rows))
    return int(any(row.verdict == WRONG for row in rows))


def found(arguments: Sequence[str]) -> list[Path]:
    """The folders of the cases that the arguments name, each once, in their order."""
    folders = [Path(argument).resolve() for argument in arguments]
    cases = [
        case
        for folder in folders
        for case in ([folder] if re.fullmatch(CASE, folder.name) else sorted(folder.glob("*")))
        if case.is_dir() and re.fullmatch(CASE, case.name)
    ]
    return list(dict.fromkeys(cases))


def results(cases: Sequence[Path], scratch: Path) -> Iterator[Row]:
    """A row for each try of the cases, in their order.

    Data are drawn and scripts run beside the other tries.
    """
    copies = [_copied(case, scratch) for case in cases]
    with ThreadPoolExecutor(AT_ONCE) as pool, _bench(scratch) as bench:
        made = {copy: pool.submit(_made, copy, scratch) for copy in copies}
        scripts = {
            copy: pool.submit(_run_script, copy, made[copy], bench)
            for copy in copies
            if copy.name in SCRIPTS
        }
        for copy in copies:
            if failure := made[copy].result():
                yield compared(copy.name, "make.py", "exit 0", failure)
            elif copy in scripts:
                yield from _script_rows(copy.name, scripts[copy].result())
            elif copy.name in TRIES:
                yield from (_tried(item, copy, bench) for item in TRIES[copy.name])
            else:
                yield without_expectation(copy.name)


def _script_rows(case: str, endings: Mapping[str, str]) -> Iterator[Row]:
    for name, expected in SCRIPTS[case].expected.items():
        yield compared(case, name, expected, endings.get(name, "not tried"))


def _tried(item: Try, case: Path, bench: Bench) -> Row:
    try:
        got = item.action(bench, case)
    except SkippedError as reason:
        return skipped(case.name, item.name, item.expected, str(reason))
    except JobError as error:
        got = tries.failed(error)
    except Exception as error:  # a try that breaks is a wrong result, and others follow
        got = " ".join(f"{type(error).__name__}: {error}".split())
    return compared(case.name, item.name, item.expected, got)


def _run_script(case: Path, made: Future[str], bench: Bench) -> dict[str, str]:
    """The endings of the script's tries, once the data that it reads are there."""
    made.result()
    script = SCRIPTS[case.name]
    environment = {**bench.environment, **processes.NO_NETWORK} if script.has_s3 else {}
    return processes.script(case, script.arguments, environment)


# The copies of the cases, and their data


def _copied(case: Path, scratch: Path) -> Path:
    """The case's copy, beside all files that its folder's cases share and the archive."""
    copies = scratch / f"cases-{case.parent.name}"
    if not copies.exists():
        shutil.copytree(case.parent, copies, ignore=shutil.ignore_patterns("data"))
        for path in copies.rglob("*"):
            path.chmod(path.stat().st_mode | 0o200)
        archive = case.parent.parent / "data" / ARCHIVE
        if archive.exists() and not (scratch / ARCHIVE).exists():
            (scratch / ARCHIVE).symlink_to(archive)
    return copies / case.name


def _made(case: Path, scratch: Path) -> str:
    """Write the case's data by its make.py, and of cases that it needs; the failure, or ""."""
    script = case.parent / NEEDED.get(case.name, case.name) / "make.py"
    for call in CALLS.get(case.name, [[]]) if script.exists() else []:
        arguments = [str(scratch / part) if part == ARCHIVE else part for part in call]
        process = subprocess.run(
            [sys.executable, str(script), *arguments], capture_output=True, text=True
        )
        if process.returncode:
            return f"exit {process.returncode}: {[*process.stderr.splitlines(), ''][-2]}"
    return ""


# What all tries share


@contextlib.contextmanager
def _bench(scratch: Path) -> Iterator[Bench]:
    """A model of one epoch, and the S3 that has it."""
    folder = scratch / "artifacts"
    process = processes.jobs(
        ["run", "--folder", str(folder), *processes.PHANTOMS, *processes.SMALL]
    )
    if process.returncode:
        raise ConfigError(f"no model for the tries: {processes.ending(process)}")
    trained = parse((folder / LAST_RUN).read_bytes(), LAST_RUN)["trained"]
    artifacts = shutil.copytree(folder, scratch / "copy")
    with embedded_s3(folder / ".s3") as settings:
        yield Bench(Store(settings), settings.environment(), trained, artifacts, scratch)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
