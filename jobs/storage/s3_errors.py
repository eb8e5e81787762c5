"""What S3's error codes and boto3's own errors mean here: which of `jobs.errors`, what remedy."""

from __future__ import annotations

from botocore import exceptions

from jobs.errors import (
    AccessError,
    ConfigError,
    ConflictError,
    JobError,
    NotFoundError,
    ServiceUnavailableError,
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
        "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY or AWS_PROFILE, and what they may do there"
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
    """The exception of `jobs.errors` for what boto3 raised while working on `uri`."""
    if isinstance(error, exceptions.ClientError):
        code = error.response.get("Error", {}).get("Code", "unknown")
        status = str(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", ""))
        kind = ERROR_OF_CODE.get(code) or ERROR_OF_CODE.get(status, JobError)
        what = f"S3 answered {code} to {error.operation_name}"
    elif isinstance(error, CREDENTIAL_ERRORS):
        kind, what = AccessError, f"there are no S3 credentials ({error})"
    elif isinstance(error, SETTING_ERRORS):
        kind, what = ConfigError, f"boto3 refused the request ({error})"
    else:
        kind, what = ServiceUnavailableError, f"S3 does not answer ({error})"
    remedy = REMEDY.get(kind, "see the message")
    return kind(" ".join(f"{uri}: {what}: {remedy}".split()))
