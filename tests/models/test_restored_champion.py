"""`python -m jobs champion`: the versions of a model, and going back to an earlier one."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from jobs.cli import build_parser
from jobs.errors import BadDataError, ConflictError
from jobs.models import restored_champion
from jobs.storage.s3 import Store
from tests.support.films import run_job
from tests.support.inboxes import crown
from tests.support.published import Chain, chain

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def made(s3: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    with chain(s3, tmp_path_factory.mktemp("films")) as built:
        yield built


@pytest.fixture
def name() -> str:
    return uuid.uuid4().hex


def command(*arguments: str, environment: dict[str, str]) -> tuple[int, str, str]:
    """(exit code, stdout, last line of stderr)."""
    process = run_job("champion", *arguments, environment=environment, check=False)
    assert "Traceback" not in process.stderr
    return process.returncode, process.stdout, (process.stderr.splitlines() or [""])[-1]


def test_going_back_makes_an_earlier_version_the_champion_until_a_new_one_wins(
    made: Chain, name: str, s3: dict[str, str]
) -> None:
    earlier, later, latest = (made.five(rows) for rows in (0.6, 0.7, 0.8))
    made.publish(earlier, name=name, run_id=f"{name}-1")
    first = made.champion(name)
    made.publish(later, name=name, run_id=f"{name}-2")
    version = earlier["trained"].fingerprint
    where = ("--out", made.out, "--model", name)
    code, printed, _ = command(*where, "--version", version, environment=s3)
    entry = made.champion(name)
    assert (code, printed) == (0, f"champion of {name}: {version} since {entry['since']}\n")
    for key in ("version", "val_dice", "run_id", "model", "processed", "val_films"):
        assert entry[key] == first[key]
    decision = entry["decision"]
    assert (decision["outcome"], decision["version"]) == ("restored", version)
    assert decision["by"] and decision["by"] in decision["reason"]
    assert entry["since"] in decision["reason"]

    again = made.publish(later, name=name, run_id=f"{name}-3").details["champion"]
    assert (again["outcome"], again["version"]) == ("kept", version)
    assert "went back" in again["reason"]
    same = made.publish(earlier, name=name, run_id=f"{name}-1")
    assert same.headline["champion"] == "kept"
    assert made.publish(latest, name=name).headline["champion"] == "replaced"
    assert made.champion(name)["set_aside"] == [later["trained"].fingerprint]
    forced = made.publish(earlier, name=name, force_champion="known")
    assert forced.headline["champion"] == "replaced"


def test_without_a_version_it_lists_them_with_their_dice_and_the_champion(
    made: Chain, name: str, s3: dict[str, str]
) -> None:
    fives = [made.five(rows) for rows in (0.7, 0.6)]
    for five in fives:
        made.publish(five, name=name)
    champion, other = (five["trained"].fingerprint for five in fives)
    code, printed, _ = command("--out", made.out, "--model", name, environment=s3)
    lines = {f"{champion}  val dice 0.9000  champion", f"{other}  val dice 0.9000"}
    assert (code, set(printed.splitlines())) == (0, lines)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--model", "no-such"), "no-such has no version"),
        (("--model", "a/b"), "--model 'a/b'"),
        (("--out", "lung"), "--out 'lung'"),
        (("--version", "v3"), "'v3'"),
        (("--version", "../v1"), "'../v1'"),
    ],
)
def test_what_does_not_exist_is_refused_in_one_line(
    store: Store, out: str, s3: dict[str, str], arguments: tuple[str, str], words: str
) -> None:
    crown(store, out, "v1")
    code, printed, line = command("--out", out, *arguments, environment=s3)
    assert (code, printed, words in line) == (2, "", True), line


def folder_of(out: str) -> str:
    return f"{out}/models/lung-unet"


@pytest.mark.parametrize("damage", ["changed weights", "no weights", "no sha256", "no recipe"])
def test_a_package_that_is_not_whole_is_refused_and_the_champion_stays(
    store: Store, out: str, damage: str
) -> None:
    crown(store, out, "v1")
    crown(store, out, "v2")
    about: Any = store.read_json(f"{folder_of(out)}/v1/model.json")
    if damage == "changed weights":
        store.write(f"{folder_of(out)}/v1/model.safetensors", b"other")
    elif damage == "no weights":
        store.delete([f"{folder_of(out)}/v1/model.safetensors"])
    else:
        del about["weights" if damage == "no sha256" else "recipe"]
        store.write_json(f"{folder_of(out)}/v1/model.json", about)
    with pytest.raises(BadDataError, match="v1"):
        restored_champion.restore(store, out, folder_of(out), "v1")
    assert store.read_json(f"{folder_of(out)}/champion.json") == {"version": "v2"}


def test_a_champion_that_a_run_names_meanwhile_is_not_overwritten(
    store: Store, out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    crown(store, out, "v1")
    crown(store, out, "v2")
    person = restored_champion._person

    def meanwhile() -> str:
        crown(store, out, "v3")
        return person()

    monkeypatch.setattr(restored_champion, "_person", meanwhile)
    with pytest.raises(ConflictError):
        restored_champion.restore(store, out, folder_of(out), "v1")
    assert store.read_json(f"{folder_of(out)}/champion.json") == {"version": "v3"}


def test_a_model_whose_champion_file_was_deleted_gets_one(store: Store, out: str) -> None:
    crown(store, out, "v1")
    store.delete([f"{folder_of(out)}/champion.json"])
    restored_champion.restore(store, out, folder_of(out), "v1")
    entry = store.read_json(f"{folder_of(out)}/champion.json")
    assert (entry["version"], entry["set_aside"]) == ("v1", [])
    assert restored_champion.restore(store, out, folder_of(out), "v1") == entry


@pytest.mark.parametrize("damaged", [b"[]", b"{", b'{"details": {}}'])
def test_a_damaged_file_of_another_run_or_version_is_no_obstacle(
    store: Store, out: str, damaged: bytes
) -> None:
    crown(store, out, "v1")
    crown(store, out, "v2")
    store.write(f"{out}/runs/a/run.json", damaged)
    assert restored_champion.restore(store, out, folder_of(out), "v1")["version"] == "v1"
    assert list(restored_champion.table(store, folder_of(out))) == [
        "v1  no val dice  champion",
        "v2  no val dice",
    ]


def test_its_help_says_what_it_does(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        build_parser().parse_args(["champion", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "Go back to an earlier version of a model; without --version list its versions" in text
