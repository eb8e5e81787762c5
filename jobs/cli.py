"""The command line: `python -m jobs <job> --flag value ...`, made from the jobs' dataclasses."""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import os
import signal
import sys
import threading
import time
import typing
from collections.abc import Mapping
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, NoReturn

from jobs.chain import INPUTS, run_job
from jobs.errors import InterruptedJobError, JobError, StopRequest
from jobs.runtime import lifeline
from jobs.runtime.cores import limit_threads
from jobs.runtime.memory import keep_freed_memory
from jobs.runtime.visible_text import LineFormatter, visible
from jobs.segmentation import ranks
from jobs.settings.airflow_form import form_fields, form_schema
from jobs.settings.config import JOBS, TrainConfig, build_config
from jobs.settings.options import documentation

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
SIGNALS = (signal.SIGTERM, signal.SIGINT)
# Seconds that a stop waits for the end of an import, less than a container's grace, and between
# two looks at it.
SECONDS_OF_IMPORT, PAUSE = 2.0, 0.05
# When each signal came that found the main thread in an import.
_first_stop: list[float] = []
# Defaults of `run`, which take minutes on a laptop without a GPU; all else has the jobs' defaults.
RUN_DEFAULTS = {
    "source": "synthetic://phantoms?films=48&seed=0",
    "size": 256,
    "epochs": 16,
    "batch_size": 4,
    "learning_rate": 1e-2,
    "network": "small",
    # A batch of 4 films does not fill one GPU.
    "processes": 1,
}


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code; `jobs.errors` lists them."""
    arguments = build_parser().parse_args(argv)
    set_up_logging()
    keep_freed_memory()
    # By default torch's idle threads spin, and take the cores from threads that decode and encode.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    limit_threads()
    former = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        for number in SIGNALS:
            signal.signal(number, _interrupt)
        code: int = arguments.command(arguments)
    except JobError as error:
        log.error("%s: %s", type(error).__name__, error)
        code = error.exit_code
    except StopRequest as request:
        log.error("%s", request)
        code = InterruptedJobError.exit_code
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
    if code == InterruptedJobError.exit_code:
        # Leave without joining threads that wait for the network: the next try writes the same.
        logging.shutdown()
        os._exit(code)
    return code


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        super().error(visible(message))


def build_parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m jobs", description=__doc__)
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
    _add_run(commands)
    _add_masks(commands)
    _add_s3(commands)
    _add_incoming(commands)
    _add_champion(commands)
    _add_command(commands, "schema", "Print the Airflow form's schema as JSON", _print_schema)


def _add_run(commands: Any) -> None:
    description = "Run the whole chain on an embedded S3 server; s3:// URIs mean that server"
    run = _add_command(commands, "run", description, _run_chain)
    _add_path(run, "--folder", "artifacts", "Where results and the S3 server's data are kept")
    run.add_argument(
        "--run-id", default="local", help="Names the folder of the results (default: local)"
    )
    run.add_argument(
        "--force", action="store_true", help="Do all the work again, once for each --run-id"
    )
    for job in INPUTS:
        for item, kind in form_fields(job):
            _add_flag(run, item, kind, RUN_DEFAULTS.get(item.name, item.default))
    # Not on the form, where GPUs decide it.
    processes = {item.name: item for item in dataclasses.fields(TrainConfig)}["processes"]
    _add_flag(run, processes, int, RUN_DEFAULTS["processes"])
    _add_profile(run)


def _add_masks(commands: Any) -> None:
    masks = _add_command(commands, "masks", "Masks for a folder of films, last model", _run_masks)
    masks.add_argument("--films", type=Path, required=True, help="A folder of films")
    _add_path(masks, "--folder", "artifacts", "Where `run` kept its results")
    masks.add_argument("--to", type=Path, required=True, help="Where to put masks/ and the CSV")


def _add_s3(commands: Any) -> None:
    s3 = _add_command(commands, "s3", "An S3 server in the foreground, or around COMMAND", _run_s3)
    _add_path(s3, "--folder", "artifacts/.s3", "Where the server keeps its objects and keys")
    s3.add_argument("--host", default="127.0.0.1", help="Address to listen on (default: 127.0.0.1)")
    s3.add_argument(
        "--port", type=int, default=0, help="Port, and three after it (default: 0, free ones)"
    )
    s3.add_argument("program", nargs="*", metavar="COMMAND", help="Run this beside it (after --)")


def _add_incoming(commands: Any) -> None:
    incoming = _add_command(
        commands, "incoming", "Copy a file:// source to S3 and print its new URI", _run_incoming
    )
    incoming.add_argument("--source", required=True, help="file:///PATH, several joined by +")
    incoming.add_argument("--out", required=True, help="Where to write: s3://BUCKET/PREFIX")


def _add_champion(commands: Any) -> None:
    description = "Go back to an earlier version of a model; without --version list its versions"
    champion = _add_command(commands, "champion", description, _run_champion)
    champion.add_argument("--out", required=True, help="Prefix of the results: s3://BUCKET/PREFIX")
    champion.add_argument("--model", default="lung-unet", help="Model name (default: lung-unet)")
    champion.add_argument(
        "--version",
        default="",
        help="The version that is to mask the films from now on, as in models/<name>/<version>/; "
        "the version that it replaces does not win again unless forced",
    )


def _add_command(commands: Any, name: str, description: str, command: Any) -> Any:
    parser = commands.add_parser(name, help=description, description=description)
    parser.set_defaults(command=command)
    return parser


def _add_path(parser: Any, flag: str, default: str, description: str) -> None:
    parser.add_argument(
        flag, type=Path, default=Path(default), help=f"{description} (default: {default})"
    )


def _yes_or_no(text: str) -> bool:
    """The value of a switch: Airflow's form passes True or False, a person may pass none."""
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")
    return text.lower() == "true"


def _add_profile(parser: Any) -> None:
    help_text = "Print where the time went: read, decode, compute, encode, write"
    parser.add_argument("--profile", action="store_true", help=help_text)


def _add_flag(
    parser: Any, item: dataclasses.Field[Any], kind: type, default: Any = dataclasses.MISSING
) -> None:
    flag = "--" + item.name.replace("_", "-")
    default = item.default if default is dataclasses.MISSING else default
    help_text = _help_text(item.metadata)
    if kind is bool:
        parser.add_argument(
            flag, nargs="?", const=True, default=default, type=_yes_or_no, help=help_text
        )
    elif default is dataclasses.MISSING:
        parser.add_argument(flag, type=kind, required=True, help=help_text)
    else:
        help_text += f" (default: {default})" if default != "" else ""
        choices = item.metadata.get("choices")
        parser.add_argument(flag, type=kind, default=default, choices=choices, help=help_text)


def _help_text(metadata: Mapping[str, Any]) -> str:
    """The documentation for argparse, which formats it with %."""
    return documentation(metadata).replace("%", "%%")


def set_up_logging() -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LineFormatter("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    sys.excepthook = _print_traceback
    # A job's log is for its own events: botocore would add where it found the credentials.
    for library in ("botocore", "boto3", "urllib3", "PIL"):
        logging.getLogger(library).setLevel(logging.WARNING)
    for library in ("botocore.credentials", "botocore.tokens"):
        # They log tracebacks of what the job's own error says in one line.
        logging.getLogger(library).setLevel(logging.CRITICAL)


def _print_traceback(
    kind: type[BaseException], error: BaseException, traceback: TracebackType | None
) -> None:
    print(LineFormatter().formatException((kind, error, traceback)), file=sys.stderr)


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Raise StopRequest, once the import that the main thread is in has ended.

    A library may catch what is raised in its import, or stay half imported.
    """
    message = (
        f"stopped by {signal.Signals(number).name}: finished work is kept; start the job again to "
        "resume"
    )
    if not _is_importing(frame):
        raise StopRequest(message)
    _first_stop.append(time.monotonic())
    if time.monotonic() - _first_stop[0] > SECONDS_OF_IMPORT:
        log.error("%s", message)
        logging.shutdown()
        os._exit(InterruptedJobError.exit_code)
    again = threading.Timer(PAUSE, os.kill, (os.getpid(), number))
    again.daemon = True
    again.start()


def _is_importing(frame: FrameType | None) -> bool:
    while frame:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _run_job(arguments: argparse.Namespace) -> int:
    # Imported within commands: `--help` and `schema` need not wait for boto3.
    from jobs.storage.timed_store import TimedStore

    # Ranks end with their launcher, which watches the lifeline.
    if not ranks.is_rank():
        lifeline.hold()
    config = build_config(arguments.job, vars(arguments))
    store = TimedStore()
    store.check_bucket(config.out)
    _, result = run_job(arguments.job, config, store, print_profile=arguments.profile)
    # Of several ranks of a training one writes the result that Airflow's task returns.
    if "RESULT_URI" in os.environ and ranks.rank() == 0:
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

    # Refuses what download would refuse.
    build_config("download", vars(arguments))
    print(visible(copy_to_incoming(Store(), arguments.source, arguments.out)))
    return 0


def _run_champion(arguments: argparse.Namespace) -> int:
    from jobs.models.restored_champion import models_folder, restore, table
    from jobs.storage.s3 import Store

    models = models_folder(arguments.out, arguments.model)
    store = Store()
    if not arguments.version:
        print(*map(visible, table(store, models)), sep="\n")
        return 0
    entry = restore(store, arguments.out, models, arguments.version)
    since = entry.get("since", "an unknown date")
    print(f"champion of {arguments.model}: {entry['version']} since {since}")
    return 0


def _print_schema(arguments: argparse.Namespace) -> int:
    print(json.dumps(form_schema(), indent=2))
    return 0
