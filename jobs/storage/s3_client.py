"""A boto3 client for S3: by the standard AWS variables, or by settings that are passed in."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import boto3
import botocore.config
import botocore.exceptions
import botocore.session

from jobs.errors import ConfigError
from jobs.storage.s3_errors import credential_error, to_job_error

DEFAULT_REGION = "us-east-1"
# AWS variables that a child process keeps: a file of certificates names no S3.
KEPT = ["AWS_CA_BUNDLE"]
NO_PROXY = ["no_proxy", "NO_PROXY"]


@dataclass(frozen=True)
class S3Settings:
    """An S3 server and its keys, in place of the user's AWS variables, profiles and proxies."""

    endpoint_url: str  # http://HOST:PORT
    access_key: str
    secret_key: str = field(repr=False)
    region: str = DEFAULT_REGION

    def variables(self) -> dict[str, str]:
        """The standard AWS variables of this server."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint_url,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_DEFAULT_REGION": self.region,
        }

    def environment(self) -> dict[str, str]:
        """A child process's environment: this process's, with this server as its only S3."""
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("AWS_") or name in KEPT
        }
        no_config = dict.fromkeys(["AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"], os.devnull)
        return inherited | self.variables() | no_config | self.no_proxy()

    def no_proxy(self) -> dict[str, str]:
        """The variables that list the hosts reached without a proxy, with this server's host."""
        hosts = next(filter(None, map(os.environ.get, NO_PROXY)), "")
        host = urlsplit(self.endpoint_url).hostname
        return dict.fromkeys(NO_PROXY, ",".join(filter(None, [hosts, host])))


def connect(settings: S3Settings | None, *, connections: int) -> Any:
    """A boto3 client for S3 with a pool of `connections`; without settings by the AWS variables.

    Raises ConfigError or AccessError where those name no usable region, endpoint or profile.
    """
    options: dict[str, Any] = {
        "signature_version": "s3v4",
        "s3": {"addressing_style": "path"},
        "retries": {"mode": "standard", "max_attempts": 5},
        "connect_timeout": 5,  # seconds
        "read_timeout": 60,  # seconds
        "max_pool_connections": connections,
        "request_checksum_calculation": "when_required",
        "response_checksum_validation": "when_required",
    }
    if settings:
        return _client_of_settings(settings, options)
    return _client_of_variables(options)


def _client_of_settings(settings: S3Settings, options: dict[str, Any]) -> Any:
    # botocore's settings at their defaults, none from the user's variables or files. Each is
    # (its name in the file, its variable, default, conversion).
    defaults = {
        name: (None, None, default, convert)
        for name, (_, _, default, convert) in botocore.session.Session.SESSION_VARIABLES.items()
    }
    no_file = (None, None, os.devnull, None)
    core = botocore.session.Session(
        session_vars=defaults | {"config_file": no_file, "credentials_file": no_file}
    )
    # Outside those defaults: AWS_S3_US_EAST_1_REGIONAL_ENDPOINT and its like.
    core.get_component("config_store").set_config_variable("s3", None)
    session = boto3.session.Session(
        aws_access_key_id=settings.access_key,
        aws_secret_access_key=settings.secret_key,
        botocore_session=core,
    )
    return session.client(
        "s3",
        region_name=settings.region,
        endpoint_url=settings.endpoint_url,
        config=botocore.config.Config(proxies={}, **options),
    )


def _client_of_variables(options: dict[str, Any]) -> Any:
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or DEFAULT_REGION
    try:
        # boto3.client would reuse the credentials of this process's first client.
        session = boto3.session.Session()
        _check_credentials(session)
        return session.client("s3", region_name=region, config=botocore.config.Config(**options))
    except botocore.exceptions.InvalidRegionError as error:
        raise ConfigError(
            f"AWS_REGION (or AWS_DEFAULT_REGION) {region!r} is not a region: give us-east-1, "
            "or the one where the bucket lies"
        ) from error
    except botocore.exceptions.BotoCoreError as error:
        raise to_job_error(error, "S3's settings") from error
    except ValueError as error:
        endpoint = os.environ.get("AWS_ENDPOINT_URL", "")
        raise ConfigError(
            f"AWS_ENDPOINT_URL {endpoint!r} is not a URL: give http://HOST:PORT"
        ) from error


def _check_credentials(session: boto3.session.Session) -> None:
    """Raise AccessError where credentials are configured but cannot be had.

    At the first request a missing token file or a failing credential_process would be an error
    like any other, with nothing that says what it was for. None configured: the request says so.
    """
    try:
        if credentials := session.get_credentials():
            credentials.get_frozen_credentials()
    except Exception as error:  # a profile can make boto3 run any program and read any file
        raise credential_error(error, "S3's settings") from error
