"""Installs packages by uv from where pip would take them: uv itself does not read pip's settings.

usage: python scripts/uv_install.py UV PYTHON ARGUMENT...

PYTHON is the interpreter of the environment, whose pip lists its settings (files and PIP_*). The
arguments are those of `uv pip install`. Exit code 3: one of the settings has no counterpart in uv.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from typing import NoReturn

UNTRANSLATED = 3
# The settings of `pip install`; later ones replace earlier ones.
SECTIONS = ("global", "install", ":env:")
# Variables, since every user of the machine can list arguments, and URLs may hold passwords.
VARIABLES = {
    "index-url": ["UV_DEFAULT_INDEX"],
    "extra-index-url": ["UV_INDEX"],
    "find-links": ["UV_FIND_LINKS"],
    "constraint": ["UV_CONSTRAINT"],
    "trusted-host": ["UV_INSECURE_HOST"],
    "cert": ["SSL_CERT_FILE"],
    "client-cert": ["SSL_CLIENT_CERT"],
    "proxy": ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"],
    "timeout": ["UV_HTTP_TIMEOUT"],
}
FLAGS = {"no-index": "--no-index", "no-deps": "--no-deps"}
ALIASES = {"pypi-url": "index-url", "no-dependencies": "no-deps", "default-timeout": "timeout"}
PATHS = {"find-links", "constraint", "cert", "client-cert"}
# How uv separates the values of a variable, where it is not by a space.
SEPARATORS = {"find-links": ","}
# Settings that change neither which packages are installed nor from where.
IRRELEVANT = {
    *("break-system-packages", "cache-dir", "config-file", "disable-pip-version-check", "log"),
    *("no-cache-dir", "no-color", "no-compile", "no-input", "no-python-version-warning"),
    *("no-warn-conflicts", "no-warn-script-location", "prefer-binary", "progress-bar", "quiet"),
    *("require-hashes", "require-virtualenv", "retries", "root-user-action", "upgrade-strategy"),
    *("use-feature", "verbose"),
}


class UntranslatedError(Exception):
    """uv has no counterpart of a setting of pip. The message has its name, not its value."""


def parse_settings(lines: Iterable[str]) -> dict[str, str]:
    """{setting: its value} of `pip install`, from the output of `pip config list`."""
    sections: dict[str, dict[str, str]] = {section: {} for section in SECTIONS}
    for line in lines:
        key, separator, value = line.partition("=")
        section, _, name = key.partition(".")
        if separator and section in sections:
            text = str(ast.literal_eval(value))
            if text.strip():
                sections[section][ALIASES.get(name, name)] = text
    return {name: text for part in sections.values() for name, text in part.items()}


def translate(settings: Mapping[str, str]) -> tuple[list[str], dict[str, str]]:
    """uv's flags and environment variables for settings of pip.

    Raises UntranslatedError for a setting that uv has no counterpart of.
    """
    flags: list[str] = []
    variables: dict[str, str] = {}
    for name, text in settings.items():
        if name in FLAGS:
            flags += [FLAGS[name]] if is_on(name, text) else []
        elif name in VARIABLES:
            values = text.split()
            if name in PATHS:
                values = [os.path.expanduser(value) for value in values]
            joined = SEPARATORS.get(name, " ").join(values)
            variables |= dict.fromkeys(VARIABLES[name], joined)
        elif name not in IRRELEVANT:
            raise UntranslatedError(name)
    if os.path.isdir(variables.get("SSL_CERT_FILE", "")):
        variables["SSL_CERT_DIR"] = variables.pop("SSL_CERT_FILE")
    return flags, variables


def is_on(name: str, text: str) -> bool:
    """Whether a setting of pip that is on or off is on."""
    if text.lower() in ("y", "yes", "t", "true", "on", "1"):
        return True
    if text.lower() in ("n", "no", "f", "false", "off", "0"):
        return False
    raise UntranslatedError(name)


def main() -> NoReturn:
    uv, python, *arguments = sys.argv[1:]
    listing = subprocess.run(
        [python, "-m", "pip", "config", "list"], check=True, stdout=subprocess.PIPE, text=True
    )
    try:
        flags, variables = translate(parse_settings(listing.stdout.splitlines()))
        if "--require-hashes" in arguments:
            # A lock pins every version, and uv would refuse constraints that are no pins beside it.
            variables.pop("UV_CONSTRAINT", None)
    except UntranslatedError as error:
        print(f"uv has no counterpart of pip's setting {error}", file=sys.stderr)
        sys.exit(UNTRANSLATED)
    # Like pip: the best version of all indexes, not all that the first index with the package has.
    command = [uv, "pip", "install", "--no-config", "--system-certs"]
    command += ["--index-strategy", "unsafe-best-match", "--python", python, *flags, *arguments]
    os.execve(uv, command, {**os.environ, **variables})


if __name__ == "__main__":
    main()
