"""Every edited file ends its job with 65 and one line, or is accepted with the right result."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from jobs.storage.s3 import Store
from tests.support.edited_kinds import Kind, kinds
from tests.support.edited_run import EditedRun, Outcome, make_run, run
from tests.support.edits import Edit
from tests.support.films import ROOT, draw_pair, png

pytestmark = pytest.mark.slow

# Edits of a kind: of all that there are, evenly spaced ones.
MOST = 8
KINDS = kinds(1, Path("witness"))
# Its arguments name the wrong manifest, or manifests of several runs.
OTHER_MANIFEST = ("is the manifest of", "was made from", "are of different raw films")


@pytest.fixture(scope="module")
def edited(s3: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> EditedRun:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in s3.items():
            patch.setenv(name, value)
        return make_run(Store(), tmp_path_factory.mktemp("films"))


def sample(edits: Sequence[Edit], offset: int) -> list[Edit]:
    count = min(MOST, len(edits))
    return [edits[(number * len(edits) // count + offset) % len(edits)] for number in range(count)]


@pytest.mark.parametrize("number", range(len(KINDS)), ids=[kind.name for kind in KINDS])
def test_an_edited_file_is_refused_in_one_line_or_changes_nothing(
    edited: EditedRun,
    store: Store,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
) -> None:
    witness = tmp_path / "witness"
    kind = kinds(1, witness)[number]
    edits = [*kind.edits(edited.objects[kind.uri(edited)])]
    for edit in sample(edits, number):
        outcome = kind.outcome(edited, edit)
        assert is_right(kind, edited, outcome), f"{kind.name}: {edit.name}: {outcome}"
    assert not witness.exists(), "code in the file was executed"


def is_right(kind: Kind, edited: EditedRun, outcome: Outcome) -> bool:
    if outcome.code == 65:
        return len(outcome.lines) == 1 and "Traceback" not in outcome.lines[0]
    if outcome.code == 2:
        return any(words in outcome.lines[0] for words in OTHER_MANIFEST)
    if kind.name == "ledger":
        # A film whose row is gone is new, and is masked again.
        return outcome.code == 0
    if outcome.code == 0 and not kind.sealed:
        untouched = Edit("untouched", edited.objects[kind.uri(edited)])
        return outcome.headline() == kind.outcome(edited, untouched).headline()
    # With the hashes of the edited file, other text of the right form is other data.
    return outcome.code == 0


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("last_run.json", b""),
        ("last_run.json", b"[" * 100_000),
        ("last_run.json", b'{"run_id": "local", "trained": 3}'),
        ("last_run.json", b'{"run_id": "local"}'),
        (".s3/credentials.json", b"\xff"),
        (".s3/credentials.json", b'{"AWS_ACCESS_KEY_ID": null}'),
        (".s3/credentials.json", b"[]"),
    ],
)
def test_an_edited_file_of_run_local_is_refused_in_one_line(
    tmp_path: Path, name: str, content: bytes
) -> None:
    (tmp_path / ".s3").mkdir()
    (tmp_path / "last_run.json").write_text(
        '{"run_id": "local", "trained": "s3://lung/pipeline/trained/x/manifest.json"}'
    )
    (tmp_path / name).write_bytes(content)
    films, to = tmp_path / "films", tmp_path / "to"
    films.mkdir()
    (films / "a.png").write_bytes(png(draw_pair(1)[0]))
    outcome = run("masks", "--films", str(films), "--folder", str(tmp_path), "--to", str(to))
    assert (outcome.code, len(outcome.lines)) == (65, 1), outcome
    assert name in outcome.lines[0]
    assert not [path for path in to.rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("job", "flag", "content"),
    [
        ("download", "--patients", b""),
        ("download", "--patients", b"\xff\xfe"),
        ("download", "--patients", b"film,patient\r\n"),
        ("download", "--patients", b'film,patient\n"a,b\n'),
        ("download", "--patients", b"film,patient\na,1\na,2\n"),
        ("preprocess", "--split-file", b"patient,split\nP1\n"),
        ("preprocess", "--split-file", b"patient,split\nP1,tes\n"),
        ("preprocess", "--split-file", b"patient,split\nP1,train\n"),
        ("preprocess", "--split-file", b"\0\0\0\0"),
    ],
)
def test_an_edited_table_is_refused_in_one_line(
    edited: EditedRun, store: Store, job: str, flag: str, content: bytes
) -> None:
    out = edited.beside("-")
    store.write(f"{out}/table.csv", content)
    inputs = {
        "download": ["--source", "synthetic://phantoms?films=12"],
        "preprocess": edited.flags("raw"),
    }
    outcome = run(job, *inputs[job], flag, f"{out}/table.csv", "--out", out)
    assert (outcome.code, len(outcome.lines)) == (65, 1), outcome
    assert "table.csv" in outcome.lines[0]


@pytest.mark.parametrize("number", range(10))
def test_a_process_ends_as_the_command_line_does_in_this_one(
    edited: EditedRun, store: Store, s3: dict[str, str], number: int
) -> None:
    sampled = [kind for kind in KINDS if not kind.copied and not kind.sealed]
    kind = sampled[number % len(sampled)]
    out = edited.beside("-")
    with edited.edited(kind.uri(edited), b'{"schema_version": 1, "job": []}'):
        process = subprocess.run(
            [sys.executable, "-m", "jobs", *kind.arguments(edited), "--out", out],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
    errors = [line for line in process.stderr.splitlines() if " INFO " not in line]
    assert (process.returncode, len(errors), process.stdout) == (65, 1, ""), process.stderr
