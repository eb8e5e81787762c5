"""The chain of jobs: which job reads which job's manifest, and how one of them is run."""

from __future__ import annotations

import importlib
import time
from typing import TYPE_CHECKING, Any

from jobs.runtime import profile
from jobs.settings.job_config import JobConfig

if TYPE_CHECKING:
    # For types alone: jobs.cli imports this module and must not load boto3.
    from jobs.storage.manifest import Manifest
    from jobs.storage.s3 import Store

# The jobs in the order in which they run: {job: {argument: the job whose manifest it names}}.
INPUTS: dict[str, dict[str, str]] = {
    "download": {},
    "preprocess": {"raw": "download"},
    "train": {"processed": "preprocess"},
    "predict": {"trained": "train", "films": "download"},
    "evaluate": {"predictions": "predict", "processed": "preprocess"},
    "publish": {
        "raw": "download",
        "processed": "preprocess",
        "trained": "train",
        "predictions": "predict",
        "evaluation": "evaluate",
    },
}


def run_job(
    job: str, config: JobConfig, store: Store, *, print_profile: bool = False
) -> tuple[Manifest, dict[str, Any]]:
    """Run `jobs.<job>` in this process; (its manifest, its result as JSON with the profile)."""
    started = time.monotonic()
    with profile.recording() as recorded:
        # Imported here: a job's libraries take seconds, and no layer below imports a job.
        manifest: Manifest = importlib.import_module(f"jobs.{job}").run(config, store)
        summary = recorded.summary()
    if print_profile:
        profile.log_table(job, summary)
    return manifest, manifest.result(time.monotonic() - started) | {"profile": summary}
