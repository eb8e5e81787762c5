"""What S3's error codes mean here: the exception of `jobs.errors` for each, and the remedy."""

from __future__ import annotations

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
    AccessError: "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and what they may do there",
    ConfigError: "check the URI's form, s3://BUCKET/KEY",
    ConflictError: "another writer owns it: let it finish, then start this again",
    ServiceUnavailableError: "check AWS_ENDPOINT_URL and that S3 answers there, then start again",
}
