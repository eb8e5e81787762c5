"""Runs DAGs one after the other in this process by `dag.test`, each with the values of a form.

usage: python -m tests.support.dag_runs FORMS OUTCOME.json
       FORMS: '[["lung_masks", {"inbox": "s3://lung/inbox"}], ...]'

Writes to OUTCOME.json each run's state, the asset events in Airflow's database, and the DAGs that
are queued for them.
"""

from __future__ import annotations

import json
import os
import sqlite3
import sys
from pathlib import Path
from typing import Any

EVENTS = """
SELECT asset.name, source_task_id, asset_event.extra FROM asset_event
JOIN asset ON asset.id = asset_event.asset_id ORDER BY asset_event.id
"""


def main(forms: list[tuple[str, dict[str, Any]]], outcome: Path) -> None:
    from airflow.dag_processing.dagbag import DagBag

    bag = DagBag(os.environ["AIRFLOW__CORE__DAGS_FOLDER"])
    states = [bag.dags[name].test(run_conf=form).state for name, form in forms]
    with sqlite3.connect(Path(os.environ["AIRFLOW_HOME"], "airflow.db")) as database:
        events = [(name, task, json.loads(extra)) for name, task, extra in database.execute(EVENTS)]
        queued = [
            row[0] for row in database.execute("SELECT target_dag_id FROM asset_dag_run_queue")
        ]
    outcome.write_text(json.dumps({"states": states, "events": events, "queued": queued}))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), Path(sys.argv[2]))
