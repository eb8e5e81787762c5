"""The command line as a person and Airflow meet it: one clear line and the documented exit code."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from jobs.cli import build_parser
from jobs.storage.s3 import Store
from tests.support.films import ROOT, run_job, write_montgomery


def refused(*arguments: str, environment: dict[str, str]) -> tuple[int, str]:
    """(exit code, last line of stderr) of a job that fails; that line is to explain the failure."""
    process = run_job(*arguments, environment=environment, check=False)
    assert "Traceback" not in process.stderr, process.stderr
    return process.returncode, process.stderr.splitlines()[-1]


def test_a_job_prints_its_result_and_writes_it_where_airflow_reads_it(
    store: Store, s3: dict[str, str], out: str, tmp_path: Path
) -> None:
    write_montgomery(tmp_path, 2)
    uri = f"{out}/runs/r1/results/download--1-1.json"
    environment = s3 | {"RESULT_URI": uri}
    result = run_job(
        "download", "--source", tmp_path.as_uri(), "--out", out, environment=environment
    )
    assert store.read_json(uri) == result
    assert result["headline"] == {"films": 2, "pairs": 2, "without_mask": 0}
    assert store.exists(result["manifest"])
    assert result["reused"] is False


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["download", "--source", "ftp://films"], 2, "'ftp://films'"),
        (["download", "--source", "file:///no/such/films.zip"], 2, "/no/such/films.zip"),
        (["download", "--source", "synthetic://phantoms?films=0"], 2, "films"),
        (["download", "--source", "https:///films.zip"], 2, "https://HOST/PATH.zip"),
        (["download", "--source", "https://host:80a/films.zip"], 2, "'https://host:80a/films.zip'"),
        (["download", "--source", "https://[::1/films.zip"], 2, "'https://[::1/films.zip'"),
        (["download", "--patient-pattern", "P[0-9]+"], 2, "--patient-pattern 'P[0-9]+'"),
        (["download", "--patients", "s3://lung/absent.csv"], 2, "s3://lung/absent.csv"),
        (["download", "--source", "s3://no-such-bucket/films"], 2, "no-such-bucket"),
        (["preprocess", "--raw", "s3://lung/absent/manifest.json"], 2, "absent/manifest.json"),
        (["preprocess", "--raw", "s3://lung/x/manifest.json", "--size", "500"], 2, "--size 500"),
        (["predict", "--trained", "x", "--films", "s3://lung/x"], 2, "--trained 'x'"),
    ],
)
def test_wrong_arguments_leave_with_their_code(
    s3: dict[str, str], out: str, arguments: list[str], code: int, words: str
) -> None:
    exit_code, line = refused(*arguments, "--out", out, environment=s3)
    assert (exit_code, words in line) == (code, True), line


def test_a_missing_bucket_is_reported_before_any_work(s3: dict[str, str], tmp_path: Path) -> None:
    write_montgomery(tmp_path, 1)
    code, line = refused(
        "download", "--source", tmp_path.as_uri(), "--out", "s3://nowhere/p", environment=s3
    )
    assert (code, "s3://nowhere" in line) == (2, True), line


@pytest.mark.parametrize("secret", ["wrong", ""])
def test_wrong_credentials_leave_with_77(s3: dict[str, str], out: str, secret: str) -> None:
    wrong = s3 | {"AWS_SECRET_ACCESS_KEY": secret}
    code, line = refused("download", "--out", out, environment=wrong)
    assert (code, "AWS_SECRET_ACCESS_KEY" in line) == (77, True), line


def test_a_server_that_does_not_answer_leaves_with_69(s3: dict[str, str], out: str) -> None:
    absent = s3 | {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}
    code, line = refused("download", "--out", out, environment=absent)
    assert (code, "127.0.0.1:9" in line) == (69, True), line


def test_a_truncated_zip_leaves_with_65(s3: dict[str, str], out: str, tmp_path: Path) -> None:
    path = tmp_path / "films.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("images/a.png", b"x" * 10_000)
    path.write_bytes(path.read_bytes()[:5_000])
    code, line = refused("download", "--source", path.as_uri(), "--out", out, environment=s3)
    assert (code, "films.zip" in line) == (65, True), line


def test_a_run_never_overwrites_a_folder_that_holds_no_runs_results(tmp_path: Path) -> None:
    (tmp_path / "airflow").mkdir()
    (tmp_path / "airflow" / "airflow.db").write_bytes(b"every run")
    code, line = refused("run", "--folder", str(tmp_path), "--run-id", "airflow", environment={})
    assert (code, "airflow exists and holds no report.html" in line) == (2, True), line
    assert (tmp_path / "airflow" / "airflow.db").read_bytes() == b"every run"


def test_a_command_beside_the_server_gets_its_keys_and_its_exit_code_is_kept(
    tmp_path: Path,
) -> None:
    inner = "import os, sys; sys.exit(40 + ('AWS_SECRET_ACCESS_KEY' in os.environ))"
    process = subprocess.run(
        [
            sys.executable,
            "-m",
            "jobs",
            "s3",
            "--folder",
            str(tmp_path),
            "--",
            sys.executable,
            "-c",
            inner,
        ],
        cwd=ROOT,
    )
    assert process.returncode == 41


def test_sigterm_in_the_middle_of_a_request_ends_the_job_with_75(
    s3: dict[str, str], out: str
) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        job = subprocess.Popen(
            [sys.executable, "-m", "jobs", "download", "--out", out],
            cwd=ROOT,
            env=os.environ | s3 | {"AWS_ENDPOINT_URL": address},
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            request, _ = silent.accept()
            assert request.recv(4) == b"GET "
            job.terminate()
            _, messages = job.communicate(timeout=20)
            request.close()
        finally:
            job.kill()
    assert (job.returncode, "SIGTERM" in messages) == (75, True), messages


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ([], False),
        (["--crop-borders"], True),
        (["--crop-borders", "True"], True),
        (["--crop-borders=false"], False),
        (["--crop-borders", "False", "--size", "64"], False),
    ],
)
def test_a_switch_is_set_alone_or_by_the_forms_true_and_false(
    flags: list[str], expected: bool
) -> None:
    required = ["preprocess", "--raw", "s3://lung/raw/manifest.json", "--out", "s3://lung/p"]
    assert build_parser().parse_args([*required, *flags]).crop_borders is expected


def test_a_switch_takes_no_other_word(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        build_parser().parse_args(["preprocess", "--crop-borders", "maybe"])
    assert caught.value.code == 2
    assert "'maybe' is neither true nor false" in capsys.readouterr().err


def test_a_run_trains_in_one_process_unless_told_otherwise() -> None:
    parser = build_parser()
    assert parser.parse_args(["run"]).processes == 1
    assert parser.parse_args(["run", "--processes", "4"]).processes == 4
