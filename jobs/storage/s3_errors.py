"""The one table from errors of S3 and boto3 to the exceptions of `jobs.errors`, with remedies."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from boto3.exceptions import Boto3Error
from botocore import exceptions
from botocore.parsers import ResponseParserError
from urllib3.exceptions import HTTPError

from jobs.errors import (
    AccessError,
    BadDataError,
    ConfigError,
    ConflictError,
    JobError,
    NotFoundError,
    RepeatableConflictError,
    ServiceUnavailableError,
)

Kind = type[JobError]

# What a request may raise. boto3 raises ValueError for an endpoint that is not a URL, OSError for a
# file of certificates or tokens that cannot be read, and RecursionError where a server that is no
# S3 redirects: botocore then asks for the bucket's region, and is redirected again.
REQUEST_ERRORS = (
    exceptions.BotoCoreError,
    exceptions.ClientError,
    Boto3Error,
    ResponseParserError,
    ValueError,
    OSError,
    RecursionError,
    HTTPError,
)
# What botocore leaves to its caller where the body of an error's response is cut.
CUT_ERRORS = (exceptions.ResponseStreamingError, HTTPError)
# What the reading of a body may raise. urllib3's HTTPError is that of bytes changed under TLS.
BODY_ERRORS = (
    exceptions.IncompleteReadError,
    exceptions.ReadTimeoutError,
    *CUT_ERRORS,
    ConnectionError,
)
NO_S3 = "no S3 answers there: check AWS_ENDPOINT_URL, the URL of S3 itself: http://HOST:PORT"
# S3 refuses requests whose clock differs by over 15 minutes; a proxy's cached Date may be off by
# some.
LARGEST_SKEW = 300.0  # seconds

KEYS = "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY or AWS_PROFILE, and what they allow there"
FULL = "this S3 is full: delete objects, or raise its quota, then start this again"
BUSY = "this S3 takes no more requests now: wait, then start again"
CLOCK = "set this machine's clock, by NTP for instance"
KMS = "the KMS key that encrypts the object cannot be used: enable it, or allow kms:Decrypt"
ARCHIVED = (
    "the object is archived (its storage class is GLACIER or DEEP_ARCHIVE): restore it, or leave "
    "it out of the source"
)
MEND_PROFILE = "mend the profile in ~/.aws/config, or give keys"
REQUEST = "S3 does not accept the request: its message says why"
REMEDY_OF_KIND: dict[Kind, str] = {
    NotFoundError: "check the bucket and the key; the bucket must exist",
    AccessError: KEYS,
    ConfigError: "check the URI's form, s3://BUCKET/KEY, and AWS_ENDPOINT_URL, http://HOST:PORT",
    ConflictError: "another writer owns it: let it finish, then start this again",
    ServiceUnavailableError: "check AWS_ENDPOINT_URL and that S3 answers there, then start again",
}
# By S3's code: the exception, and the remedy where it is not that of the exception.
ERROR_OF_CODE: dict[str, tuple[Kind, str]] = {
    "NoSuchKey": (NotFoundError, ""),
    "NoSuchBucket": (NotFoundError, ""),
    "NotFound": (NotFoundError, ""),
    "AccessDenied": (AccessError, ""),
    "Forbidden": (AccessError, ""),
    "InvalidAccessKeyId": (AccessError, ""),
    "SignatureDoesNotMatch": (AccessError, ""),
    "InvalidToken": (AccessError, ""),
    "ExpiredToken": (AccessError, "renew the session's keys: they have expired"),
    "AuthorizationHeaderMalformed": (AccessError, "check AWS_DEFAULT_REGION: the bucket's region"),
    "RequestTimeTooSkewed": (AccessError, CLOCK),
    "RequestExpired": (AccessError, CLOCK),
    "InvalidObjectState": (BadDataError, ARCHIVED),
    "QuotaExceeded": (ServiceUnavailableError, FULL),
    "XMinioStorageFull": (ServiceUnavailableError, FULL),
    "XMinioAdminBucketQuotaExceeded": (ServiceUnavailableError, FULL),
    "InsufficientStorage": (ServiceUnavailableError, FULL),
    "InvalidArgument": (ConfigError, ""),
    "InvalidBucketName": (ConfigError, ""),
    "KeyTooLongError": (ConfigError, ""),
    "NotImplemented": (ConfigError, REQUEST),
    "MethodNotAllowed": (ConfigError, REQUEST),
    "PermanentRedirect": (ConfigError, "check AWS_DEFAULT_REGION and AWS_ENDPOINT_URL"),
    "TemporaryRedirect": (ConfigError, "check AWS_DEFAULT_REGION and AWS_ENDPOINT_URL"),
    "PreconditionFailed": (ConflictError, ""),
    "ConditionalRequestConflict": (RepeatableConflictError, ""),
    "OperationAborted": (RepeatableConflictError, ""),
    "BadDigest": (ServiceUnavailableError, ""),
    "XAmzContentChecksumMismatch": (ServiceUnavailableError, ""),
    "InternalError": (ServiceUnavailableError, ""),
    "ServiceUnavailable": (ServiceUnavailableError, ""),
    "RequestTimeout": (ServiceUnavailableError, ""),
    "SlowDown": (ServiceUnavailableError, BUSY),
    "TooManyRequests": (ServiceUnavailableError, BUSY),
}
# By HTTP status, for codes that are not in the table and responses without a body.
ERROR_OF_STATUS: dict[int, tuple[Kind, str]] = {
    400: (ConfigError, REQUEST),
    401: (AccessError, "S3 refuses with 403: a proxy or another service asks for a login"),
    403: (AccessError, ""),
    404: (NotFoundError, ""),
    405: (ConfigError, REQUEST),
    408: (ServiceUnavailableError, ""),
    409: (ConflictError, ""),
    412: (ConflictError, ""),
    429: (ServiceUnavailableError, BUSY),
    501: (ConfigError, REQUEST),
    507: (ServiceUnavailableError, FULL),
}
SSO_ERRORS = (
    exceptions.SSOError,
    exceptions.TokenRetrievalError,
    exceptions.NoAuthTokenError,
    exceptions.LoginTokenLoadError,
)
Remedies = list[tuple[type[Exception] | tuple[type[Exception], ...], str]]
# How credentials fail to be had, each with its remedy; the first that fits counts.
REMEDY_OF_CREDENTIALS: Remedies = [
    (exceptions.NoCredentialsError, KEYS),
    (exceptions.PartialCredentialsError, "give both AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
    (exceptions.ProfileNotFound, "check AWS_PROFILE and ~/.aws/config"),
    (SSO_ERRORS, "sign in again by 'aws sso login' (or 'aws login'), or give keys: AWS_PROFILE"),
    (
        exceptions.MetadataRetrievalError,
        "check AWS_CONTAINER_CREDENTIALS_FULL_URI or the machine's role, or give keys",
    ),
    (
        exceptions.CredentialRetrievalError,
        "mend the profile's credential_process or role, or AWS_CONTAINER_CREDENTIALS_FULL_URI",
    ),
    (
        (
            exceptions.InfiniteLoopConfigError,
            exceptions.UnknownCredentialError,
            exceptions.RefreshWithMFAUnsupportedError,
        ),
        MEND_PROFILE,
    ),
]
# What says nothing of credentials unless it is raised while they are looked for.
REMEDY_OF_LOOKUP: Remedies = [
    ((exceptions.InvalidConfigError, exceptions.ConfigNotFound), MEND_PROFILE),
    (ValueError, "run the profile's credential_process by hand: it has to print JSON"),
    (OSError, "check AWS_WEB_IDENTITY_TOKEN_FILE: a file that this user can read"),
]
CREDENTIAL_ERRORS = tuple(kinds for kinds, _ in REMEDY_OF_CREDENTIALS)
SETTING_ERRORS = (
    exceptions.ParamValidationError,
    exceptions.ConfigParseError,
    exceptions.InvalidConfigError,
    exceptions.EndpointProviderError,
    ValueError,
)
FOREIGN_ERRORS = (ResponseParserError, RecursionError)


def to_job_error(error: Exception, uri: str) -> JobError:
    """The exception of `jobs.errors`, with its remedy, for an error of boto3 at `uri`."""
    if isinstance(error, exceptions.ClientError):
        return _of_response(error, uri)
    if isinstance(error, CREDENTIAL_ERRORS):
        return credential_error(error, uri)
    if isinstance(error, FOREIGN_ERRORS):
        return foreign_answer(uri)
    if isinstance(error, exceptions.SSLError) or _is_bundle_error(error):
        return _one_line(AccessError, uri, *_certificate_problem(error))
    if isinstance(error, SETTING_ERRORS):
        problem = f"boto3 refused the request ({error})"
        return _one_line(ConfigError, uri, problem, REMEDY_OF_KIND[ConfigError])
    remedy = REMEDY_OF_KIND[ServiceUnavailableError]
    return _one_line(ServiceUnavailableError, uri, f"S3 does not answer ({error})", remedy)


def credential_error(error: Exception, uri: str) -> AccessError:
    """AccessError for whatever kept boto3 from finding credentials, with that one's remedy."""
    table = [*REMEDY_OF_CREDENTIALS, *REMEDY_OF_LOOKUP]
    remedies = (remedy for kinds, remedy in table if isinstance(error, kinds))
    remedy = next(remedies, REMEDY_OF_CREDENTIALS[0][1])
    return AccessError(_line(uri, f"there are no S3 credentials ({error})", remedy))


def foreign_answer(uri: str) -> ConfigError:
    """ConfigError for an answer that S3 does not give: a page, or a redirect to another place."""
    return ConfigError(f"{uri}: {NO_S3}")


def _of_response(error: exceptions.ClientError, uri: str) -> JobError:
    """By S3's code, else by the HTTP status; S3's message is always part of it."""
    code = str(error.response.get("Error", {}).get("Code", ""))
    metadata: dict[str, Any] = dict(error.response.get("ResponseMetadata", {}))
    status = int(metadata.get("HTTPStatusCode", 0) or (code if code.isdecimal() else 0))
    code = code or str(status or "without a code")
    kind, remedy = ERROR_OF_CODE.get(code) or _of_status(status)
    if code.startswith("KMS."):
        kind, remedy = AccessError, KMS
    headers = metadata.get("HTTPHeaders", {})
    if kind is AccessError and _skew(headers.get("date", "")) > LARGEST_SKEW:
        remedy = CLOCK
    if code == str(status) and (300 <= status < 400 or _is_page(status, headers)):
        return foreign_answer(uri)
    said = str(error.response.get("Error", {}).get("Message", "")).rstrip(".")
    message = f"S3 answered {code} to {error.operation_name}"
    # botocore repeats the reason of a status, such as Forbidden, where S3 sent no message.
    if said and code != str(status):
        message += f": {said}"
    return _one_line(kind, uri, message, remedy or _remedy_of(kind))


def _is_page(status: int, headers: Mapping[str, str]) -> bool:
    """Whether another server's page came for a listing: botocore makes a 500 of what is no XML.

    Every S3 sends x-amz-request-id.
    """
    return status == 500 and not any(name.startswith("x-amz-") for name in headers)


def _remedy_of(kind: Kind) -> str:
    remedies = (REMEDY_OF_KIND[base] for base in kind.__mro__ if base in REMEDY_OF_KIND)
    return next(remedies, "see the message")


def _of_status(status: int) -> tuple[Kind, str]:
    if status >= 500 and status not in ERROR_OF_STATUS:
        return ServiceUnavailableError, ""
    return ERROR_OF_STATUS.get(status, (JobError, ""))


def _skew(date: str) -> float:
    """Seconds between this machine's clock and an HTTP Date header; 0 without one."""
    try:
        moment = parsedate_to_datetime(date)
    except (ValueError, TypeError):
        return 0.0
    return abs((datetime.now(UTC) - moment).total_seconds()) if moment.tzinfo else 0.0


def _is_bundle_error(error: Exception) -> bool:
    text = str(error).lower()
    # An empty AWS_CA_BUNDLE is a ValueError of botocore.
    return "ca bundle" in text or (isinstance(error, OSError) and "certificate" in text)


def _certificate_problem(error: Exception) -> tuple[str, str]:
    if "WRONG_VERSION_NUMBER" in str(error) or "record layer" in str(error).lower():
        return f"the endpoint does not speak TLS ({error})", "give AWS_ENDPOINT_URL as http://"
    remedy = "give the file of your authority's certificates, PEM, as AWS_CA_BUNDLE"
    return f"S3's certificate is not trusted ({error})", remedy


def _one_line(kind: Kind, uri: str, problem: str, remedy: str) -> JobError:
    return kind(_line(uri, problem, remedy))


def _line(uri: str, problem: str, remedy: str) -> str:
    # botocore's messages may hold newlines; an error is one line.
    return " ".join(f"{uri}: {problem}: {remedy}".split())
