"""The one table from errors of S3 and boto3 to the exceptions of `jobs.errors`."""

from __future__ import annotations

from boto3.exceptions import Boto3Error
from botocore import exceptions

from jobs.errors import (
    AccessError,
    ConfigError,
    ConflictError,
    JobError,
    NotFoundError,
    ServiceUnavailableError,
)

# What a request may raise; boto3 raises ValueError for an endpoint that is not a URL.
REQUEST_ERRORS = (
    exceptions.BotoCoreError,
    exceptions.ClientError,
    Boto3Error,
    ValueError,
)
ERROR_OF_CODE: dict[str, type[JobError]] = {
    "404": NotFoundError,
    "NoSuchKey": NotFoundError,
    "NoSuchBucket": NotFoundError,
    "NotFound": NotFoundError,
    "403": AccessError,
    "AccessDenied": AccessError,
    "Forbidden": AccessError,
    "InvalidAccessKeyId": AccessError,
    "SignatureDoesNotMatch": AccessError,
    "InvalidToken": AccessError,
    "ExpiredToken": AccessError,
    "AuthorizationHeaderMalformed": AccessError,
    "400": ConfigError,
    "InvalidArgument": ConfigError,
    "InvalidBucketName": ConfigError,
    "KeyTooLongError": ConfigError,
    "409": ConflictError,
    "412": ConflictError,
    "PreconditionFailed": ConflictError,
    "ConditionalRequestConflict": ConflictError,
    "BadDigest": ServiceUnavailableError,
    "XAmzContentChecksumMismatch": ServiceUnavailableError,
    "500": ServiceUnavailableError,
    "502": ServiceUnavailableError,
    "503": ServiceUnavailableError,
    "504": ServiceUnavailableError,
    "InternalError": ServiceUnavailableError,
    "RequestTimeout": ServiceUnavailableError,
    "ServiceUnavailable": ServiceUnavailableError,
    "SlowDown": ServiceUnavailableError,
}
REMEDY: dict[type[JobError], str] = {
    NotFoundError: "check the bucket and the key; the bucket must exist",
    AccessError: (
        "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY or AWS_PROFILE, and what they allow there"
    ),
    ConfigError: "check the URI's form, s3://BUCKET/KEY, and AWS_ENDPOINT_URL, http://HOST:PORT",
    ConflictError: "another writer owns it: let it finish, then start this again",
    ServiceUnavailableError: "check AWS_ENDPOINT_URL and that S3 answers there, then start again",
}
CREDENTIAL_ERRORS = (
    exceptions.NoCredentialsError,
    exceptions.PartialCredentialsError,
    exceptions.ProfileNotFound,
)
SETTING_ERRORS = (
    exceptions.ParamValidationError,
    exceptions.ConfigParseError,
    exceptions.InvalidConfigError,
    exceptions.EndpointProviderError,
    ValueError,
)


def to_job_error(error: Exception, uri: str) -> JobError:
    """The exception of `jobs.errors`, with a remedy, for an error of boto3 at `uri`."""
    if isinstance(error, exceptions.ClientError):
        code = error.response.get("Error", {}).get("Code", "unknown")
        status = str(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", ""))
        kind = ERROR_OF_CODE.get(code) or ERROR_OF_CODE.get(status, JobError)
        message = f"S3 answered {code} to {error.operation_name}"
    elif isinstance(error, CREDENTIAL_ERRORS):
        kind, message = AccessError, f"there are no S3 credentials ({error})"
    elif isinstance(error, SETTING_ERRORS):
        kind, message = ConfigError, f"boto3 refused the request ({error})"
    else:
        kind, message = ServiceUnavailableError, f"S3 does not answer ({error})"
    remedy = REMEDY.get(kind, "see the message")
    # botocore's messages may hold newlines; an error is one line.
    return kind(" ".join(f"{uri}: {message}: {remedy}".split()))
