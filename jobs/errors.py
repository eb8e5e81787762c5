"""The errors of the jobs, each with the exit code that it ends a job with.

    JobError                        1   retried within the task's limit
    ├── ConfigError                 2   wrong arguments or config: never retried
    │   └── NotFoundError           2   absent bucket, object or source: never retried
    ├── BadDataError               65   the data cannot be used: never retried
    ├── ServiceUnavailableError    69   a service does not answer: retried
    ├── InterruptedJobError        75   stopped, state saved: retried, continues
    │   └── ConflictError          75   another writer owns the object: retried
    ├── AccessError                77   access refused: never retried
    └── ProcessError                *   a process of the job ended with a code that is not above

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


class RepeatableConflictError(ConflictError):
    """S3 refused a conditional request beside another one, and asks to send it again."""


class AccessError(JobError):
    exit_code = 77


class ProcessError(JobError):
    """A process of the job ended with a code that no other class has: 128 + n for signal n."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class StopRequest(BaseException):
    """SIGTERM or SIGINT, raised at the point that the main thread has reached.

    Not an Exception: libraries such as botocore catch those and try again.
    """


# The base class of each code.
ERROR_OF_EXIT_CODE: dict[int, type[JobError]] = {
    error.exit_code: error
    for error in (
        JobError,
        ConfigError,
        BadDataError,
        ServiceUnavailableError,
        InterruptedJobError,
        AccessError,
    )
}


def error_of_exit_code(code: int, message: str) -> JobError:
    """The error that ends this job with `code`, the exit code of a process that it started."""
    if code in ERROR_OF_EXIT_CODE:
        return ERROR_OF_EXIT_CODE[code](message)
    return ProcessError(message, code)
