"""The plugin: the tabs "Training report" and "Masks" on the page of a run of our DAGs.

Airflow loads it from the plugins folder that this package is in. The package's .airflowignore hides
every other file from the plugin loader.
"""

from __future__ import annotations

from typing import Any

import lung.prerequisites  # noqa: F401  # an error below would stop the api-server

# isort: split
from airflow.plugins_manager import AirflowPlugin

PREFIX = "/training-report"


class TrainingReportPlugin(AirflowPlugin):
    """The tabs and the application behind them."""

    name = "lung_training_report"
    external_views = [  # noqa: RUF012
        {
            "name": "Training report",
            # Relative: it also works where Airflow is served below a path.
            "href": PREFIX.lstrip("/") + "/dags/{DAG_ID}/runs/{RUN_ID}",
            "destination": "dag_run",
            "url_route": "training-report",
        },
        {
            "name": "Masks",
            "href": PREFIX.lstrip("/") + "/masks/dags/{DAG_ID}/runs/{RUN_ID}",
            "destination": "dag_run",
            "url_route": "lung-masks",
        },
    ]
    # Airflow 3.3 has no setting for the DAGs whose runs have a tab: a script hides ours elsewhere.
    react_apps = [  # noqa: RUF012
        {
            "name": "lung_tab_filter",
            "bundle_url": PREFIX.lstrip("/") + "/tabs.js",
            "destination": "base",
            "url_route": "lung-tab-filter",
        }
    ]

    @property
    def fastapi_apps(self) -> list[dict[str, Any]]:  # type: ignore[override]
        # Imported here: every Airflow process loads plugins, but only the api-server needs the app.
        from lung.run_report_app import app

        return [{"name": "Training report", "url_prefix": PREFIX, "app": app}]
