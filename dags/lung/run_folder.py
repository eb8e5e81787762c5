"""The name of a run's folder in S3."""

from __future__ import annotations

import hashlib
import re

RUN_ID_LENGTH, RUN_ID_DIGITS = 128, 12
# As in scheduled__2026-11-23T00:00:00+00:00 and manual__2026-11-23T09:30:00.123456+00:00_aB3dE5fG.
AIRFLOWS_RUN_ID = re.compile(
    r"[a-z][a-z_]*__\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?\+00:00(_[A-Za-z0-9]+)?", re.ASCII
)
# The folders' names that `safe_run_id` makes of such ids, and of others by a hash.
MADE_NAME = re.compile(
    AIRFLOWS_RUN_ID.pattern.replace(":", "-").replace(r"\+", "-")
    + rf"|.*--[0-9a-f]{{{RUN_ID_DIGITS}}}",
    re.ASCII,
)


def safe_run_id(run_id: str) -> str:
    """The run's id as a folder's name: at most 128 letters, digits, ".", "_" and "-".

    An id that is a folder's name already keeps it, and those that Airflow makes have "-" for ":"
    and "+". Any other id, one that looks like a name made here included, has a hash at its end: so
    no two ids have one folder.
    """
    safe = re.sub(r"[^A-Za-z0-9._-]", "-", run_id).lstrip("._-") or "run"
    is_own_name = safe == run_id and not MADE_NAME.fullmatch(run_id)
    if (is_own_name or AIRFLOWS_RUN_ID.fullmatch(run_id)) and len(safe) <= RUN_ID_LENGTH:
        return safe
    digest = hashlib.sha256(run_id.encode(errors="surrogatepass")).hexdigest()[:RUN_ID_DIGITS]
    return f"{safe[: RUN_ID_LENGTH - 2 - RUN_ID_DIGITS]}--{digest}"
