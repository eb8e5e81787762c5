"""What the DAGs need of the Airflow that they are copied into; to import this module checks it.

Raises ImportError with the command that installs what is missing. Import it before `airflow.sdk`:
an older Airflow would fail there with an error that names no remedy.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec

from airflow import __version__ as airflow_version
from packaging.version import Version

# The versions of docker/requirements/airflow.in, which the tests run with.
LOWEST_AIRFLOW = "3.3.2"
PROVIDERS = {"amazon": "9.39.0", "docker": "4.6.1"}


def missing_packages(airflow: str) -> list[str]:
    """What pip must install beside the version `airflow`, as its arguments; [] if nothing."""
    is_old = Version(Version(airflow).base_version) < Version(LOWEST_AIRFLOW)
    providers = [
        f"apache-airflow-providers-{name}=={version}"
        for name, version in PROVIDERS.items()
        if find_spec(f"airflow.providers.{name}") is None
    ]
    if not is_old and not providers:
        return []
    # Without Airflow's version pip might exchange Airflow itself for a provider's sake.
    return [f"apache-airflow=={LOWEST_AIRFLOW if is_old else airflow}", *providers]


if packages := missing_packages(airflow_version):
    raise ImportError(
        f"The lung DAGs need Airflow {LOWEST_AIRFLOW} or newer and its providers "
        f"{' and '.join(PROVIDERS)}. This is Airflow {airflow_version} in {sys.prefix}: on every "
        f"machine of it run pip install {' '.join(packages)}"
    )
