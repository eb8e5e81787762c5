"""Objects of one bucket deleted by their keys, many in a request."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from botocore.exceptions import ClientError

from jobs.storage.s3_errors import to_job_error

# The most keys that S3's DeleteObjects accepts.
DELETE_BATCH = 1000


def delete_keys(delete_objects: Callable[..., Any], bucket: str, keys: Sequence[str]) -> None:
    """Delete the keys by requests of `delete_objects`; absent ones are ignored.

    The first refusal is raised as what `to_job_error` makes of it.
    """
    for start in range(0, len(keys), DELETE_BATCH):
        batch = [{"Key": key} for key in keys[start : start + DELETE_BATCH]]
        response = delete_objects(Bucket=bucket, Delete={"Objects": batch, "Quiet": True})
        # S3 answers 200 with an error for each key that it did not delete.
        if refusals := response.get("Errors"):
            error = ClientError({"Error": refusals[0]}, "DeleteObjects")
            raise to_job_error(error, f"s3://{bucket}/{refusals[0]['Key']}")
