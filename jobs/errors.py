"""What can go wrong, once, with the exit code that each error ends a job with.

    JobError                        1   retried within the task's limit
    ├── ConfigError                 2   wrong arguments or config: never retried
    │   └── NotFoundError           2   absent bucket, object or source: never retried
    ├── BadDataError               65   the data cannot be used: never retried
    ├── ServiceUnavailableError    69   a service does not answer: retried
    ├── InterruptedJobError        75   stopped, state saved: retried, continues
    │   └── ConflictError          75   another writer owns the object: retried
    └── AccessError                77   access refused: never retried

The codes are those of BSD's sysexits.h where it has one. Every message says what is wrong, the
value, the accepted form and the remedy, on one line.
"""

from __future__ import annotations


class JobError(Exception):
    exit_code = 1


class ConfigError(JobError):
    exit_code = 2


class NotFoundError(ConfigError):
    pass


class BadDataError(JobError):
    exit_code = 65


class ServiceUnavailableError(JobError):
    exit_code = 69


class InterruptedJobError(JobError):
    exit_code = 75


class ConflictError(InterruptedJobError):
    pass


class StopRequest(BaseException):
    """SIGTERM or SIGINT, raised wherever the job is at that moment.

    No Exception, as libraries try again after any of those: botocore, a request that it was in.
    """


class AccessError(JobError):
    exit_code = 77
