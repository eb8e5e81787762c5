"""The command line: `python -m jobs <job> --flag value ...`, made from the jobs' dataclasses."""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import logging
import os
import signal
import sys
import typing
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from jobs.chain import INPUTS, run_job
from jobs.errors import InterruptedJobError, JobError, StopRequest
from jobs.runtime import lifeline
from jobs.runtime.memory import keep_freed_memory
from jobs.settings.airflow_form import form_fields, form_schema
from jobs.settings.config import JOBS, build_config

log = logging.getLogger("jobs")

DESCRIPTIONS = {
    "download": "Copy films and masks from a source to S3, and say what was recognised",
    "preprocess": "Decode, merge left and right masks, resize, check, and split by patient",
    "train": "Train a U-Net with the soft Dice loss; resumes where it was stopped",
    "predict": "Write a lung mask for every film, at the film's own size",
    "evaluate": "Score the predicted masks against the truth at the films' own size",
    "publish": "Write the report and the model package, and keep or replace the champion",
    "inbox": "Write masks for the films of an inbox that the champion has not masked yet",
}
# A laptop without a GPU is done in minutes with these; the Airflow form has the jobs' own defaults.
RUN_DEFAULTS = {
    "source": "synthetic://phantoms?films=48&seed=0",
    "size": 256,
    "epochs": 16,
    "batch_size": 4,
    "learning_rate": 1e-2,
    "network": "small",
}


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code; `jobs.errors` lists them."""
    arguments = build_parser().parse_args(argv)
    set_up_logging()
    keep_freed_memory()
    # Threads of torch that spin while they wait take the processor from whoever else has work.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _interrupt)
    try:
        code: int = arguments.command(arguments)
    except JobError as error:
        log.error("%s: %s", type(error).__name__, error)
        code = error.exit_code
    except StopRequest as request:
        log.error("%s", request)
        code = InterruptedJobError.exit_code
    if code == InterruptedJobError.exit_code:
        # Threads may still wait for the network; what they would write is safe to write again.
        logging.shutdown()
        os._exit(code)
    return code


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m jobs", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="<job>")
    for name, config in JOBS.items():
        job = _add_command(commands, name, DESCRIPTIONS[name], _run_job)
        job.set_defaults(job=name)
        for item in dataclasses.fields(config):
            _add_flag(job, item, typing.get_type_hints(config)[item.name])
        _add_profile(job)
    _add_local_commands(commands)
    return parser


def _add_local_commands(commands: Any) -> None:
    chain = "The whole chain with an S3 server of its own, the only one that s3:// here means"
    run = _add_command(commands, "run", chain, _run_chain)
    _add_path(run, "--folder", "artifacts", "Where results and the S3 server's data are kept")
    run.add_argument(
        "--run-id", default="local", help="Names the folder of the results (default: local)"
    )
    run.add_argument(
        "--force", action="store_true", help="Do all the work again, once for each --run-id"
    )
    for item, kind in itertools.chain.from_iterable(map(form_fields, INPUTS)):
        _add_flag(run, item, kind, RUN_DEFAULTS.get(item.name, item.default))
    _add_profile(run)

    masks = _add_command(commands, "masks", "Masks for a folder of films, last model", _run_masks)
    masks.add_argument("--films", type=Path, required=True, help="A folder of PNG, JPEG or TIFF")
    _add_path(masks, "--folder", "artifacts", "Where `run` kept its results")
    masks.add_argument("--to", type=Path, required=True, help="Where masks/ and the CSV are put")

    s3 = _add_command(commands, "s3", "An S3 server in the foreground, or around COMMAND", _run_s3)
    _add_path(s3, "--folder", "artifacts/.s3", "Where the server keeps its objects and keys")
    s3.add_argument("--host", default="127.0.0.1", help="Address to listen on (default: 127.0.0.1)")
    s3.add_argument(
        "--port", type=int, default=0, help="Port, and four after it (default: 0, free ones)"
    )
    s3.add_argument("program", nargs="*", metavar="COMMAND", help="Run this beside it (after --)")

    incoming = _add_command(
        commands, "incoming", "Copy a file:// source to S3 and print its new URI", _run_incoming
    )
    incoming.add_argument("--source", required=True, help="file:///PATH, several joined by +")
    incoming.add_argument("--out", required=True, help="Where to write: s3://BUCKET/PREFIX")

    _add_command(commands, "schema", "Print the Airflow form's schema as JSON", _print_schema)


def _add_command(commands: Any, name: str, description: str, command: Any) -> Any:
    parser = commands.add_parser(name, help=description, description=description)
    parser.set_defaults(command=command)
    return parser


def _add_path(parser: Any, flag: str, default: str, description: str) -> None:
    parser.add_argument(
        flag, type=Path, default=Path(default), help=f"{description} (default: {default})"
    )


def _yes_or_no(text: str) -> bool:
    """A flag's value where it has one: the form gives True or False."""
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")
    return text.lower() == "true"


def _add_profile(parser: Any) -> None:
    about = "Print where the time went: read, decode, compute, encode, write"
    parser.add_argument("--profile", action="store_true", help=about)


def _add_flag(
    parser: Any, item: dataclasses.Field[Any], kind: type, default: Any = dataclasses.MISSING
) -> None:
    flag = "--" + item.name.replace("_", "-")
    default = item.default if default is dataclasses.MISSING else default
    about = item.metadata["description"]
    bounds = [
        f"{word} {item.metadata[name]}"
        for name, word in (("minimum", "from"), ("maximum", "to"))
        if name in item.metadata
    ]
    about += f" ({' '.join(bounds)})" if bounds else ""
    about = about.replace("%", "%%")
    if kind is bool:
        parser.add_argument(
            flag, nargs="?", const=True, default=default, type=_yes_or_no, help=about
        )
    elif default is dataclasses.MISSING:
        parser.add_argument(flag, type=kind, required=True, help=about)
    else:
        about += f" (default: {default})" if default != "" else ""
        choices = item.metadata.get("choices")
        parser.add_argument(flag, type=kind, default=default, choices=choices, help=about)


def set_up_logging() -> None:
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s"
    )
    for library in ("botocore", "boto3", "urllib3", "matplotlib", "PIL"):
        logging.getLogger(library).setLevel(logging.WARNING)


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    name = signal.Signals(number).name
    raise StopRequest(f"stopped by {name}: what is done is kept; start it again to go on")


def _run_job(arguments: argparse.Namespace) -> int:
    from jobs.storage.timed_store import TimedStore

    lifeline.hold()
    config = build_config(arguments.job, vars(arguments))
    store = TimedStore()
    store.check_bucket(config.out)
    _, result = run_job(arguments.job, config, store, print_profile=arguments.profile)
    if "RESULT_URI" in os.environ and int(os.environ.get("RANK", "0")) == 0:
        store.write_json(os.environ["RESULT_URI"], result)
    print(json.dumps(result), flush=True)
    return 0


def _run_chain(arguments: argparse.Namespace) -> int:
    from jobs.local import run_chain

    return run_chain(vars(arguments), folder=arguments.folder, profiled=arguments.profile)


def _run_masks(arguments: argparse.Namespace) -> int:
    from jobs.local import predict_folder

    return predict_folder(arguments.films, folder=arguments.folder, to=arguments.to)


def _run_s3(arguments: argparse.Namespace) -> int:
    from jobs.local import serve_s3

    return serve_s3(
        arguments.folder, host=arguments.host, port=arguments.port, program=arguments.program
    )


def _run_incoming(arguments: argparse.Namespace) -> int:
    from jobs.local import copy_to_incoming
    from jobs.storage.s3 import Store

    print(copy_to_incoming(Store(), arguments.source, arguments.out))
    return 0


def _print_schema(arguments: argparse.Namespace) -> int:
    print(json.dumps(form_schema(), indent=2))
    return 0
