"""Whether an S3 refuses a put for its condition, found by two puts of an empty object."""

from __future__ import annotations

import logging
import uuid
from datetime import timedelta
from typing import Any

from botocore.exceptions import ClientError

from jobs.errors import JobError
from jobs.storage.deletion import delete_keys
from jobs.storage.s3_errors import REQUEST_ERRORS, to_job_error

log = logging.getLogger(__name__)

# The probes' names begin with it, after the folder of the object that is to be put.
PREFIX = ".probe-"
# A probe lives for a moment; an older one was left by a process that was killed.
OLD = timedelta(hours=1)
REFUSED = ["PreconditionFailed", "412", "ConditionalRequestConflict"]
NOT_KNOWN = ["NotImplemented", "501", "InvalidArgument"]


def has_conditional_put(client: Any, bucket: str, key: str) -> bool:
    """Whether the second of two puts is refused that both require the object's absence.

    The probe lies beside `key`, where the caller may write. It is deleted, and so are older ones.
    Raises what `to_job_error` gives for any other refusal.
    """
    prefix = f"{key.rpartition('/')[0]}/{PREFIX}".lstrip("/")
    probe = f"{prefix}{uuid.uuid4().hex}"
    try:
        for _ in range(2):
            client.put_object(Bucket=bucket, Key=probe, Body=b"", IfNoneMatch="*")
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "")
        if code not in REFUSED + NOT_KNOWN:
            raise to_job_error(error, f"s3://{bucket}/{key}") from error
        return code in REFUSED
    except REQUEST_ERRORS as error:
        raise to_job_error(error, f"s3://{bucket}/{key}") from error
    finally:
        _delete(client, bucket, prefix, probe)
    return False


def _delete(client: Any, bucket: str, prefix: str, probe: str) -> None:
    try:
        items = client.list_objects_v2(Bucket=bucket, Prefix=prefix).get("Contents", ())
        newest = max((item["LastModified"] for item in items), default=None)
        old = {item["Key"] for item in items if newest - item["LastModified"] > OLD}
        delete_keys(client.delete_objects, bucket, sorted(old | {probe}))
    # The keys may allow writing but neither listing nor deleting.
    except (JobError, *REQUEST_ERRORS) as error:
        is_told = isinstance(error, JobError)
        problem = error if is_told else to_job_error(error, f"s3://{bucket}/{probe}")
        log.warning("The empty probe for conditional puts was not deleted: %s", problem)
