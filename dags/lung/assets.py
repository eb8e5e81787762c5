"""What Airflow shows of the pipeline as assets: each training with its figures, each new champion.

They have names and no S3 URI: Airflow would load boto3 for one at every parse of a DAG. Where in S3
they are stands in their events.
"""

from __future__ import annotations

from typing import Any

from airflow.sdk import Asset, AssetAlias, Context

TRAINING = Asset("lung_training")
CHAMPION = Asset("lung_champion")
# A task's outlet has an event with every success; what an alias stands for, only when it is said.
CHAMPION_MOVED = AssetAlias("lung_champion_moved")
MOVED = ("first", "replaced")


def record_training(context: Context, result: dict[str, Any]) -> None:
    """train's `post_execute`: the last figures and where the histories are."""
    context["outlet_events"][TRAINING].extra = {
        **result["headline"],
        "reused": result["reused"],
        "manifest": result["manifest"],
        "files": result["files"],
    }


def record_champion(context: Context, result: dict[str, Any]) -> None:
    """publish's `post_execute`: an event of the champion, only when it really moved."""
    if result["headline"]["champion"] in MOVED:
        extra = {
            "name": context["params"]["name"],
            **result["headline"],
            "manifest": result["manifest"],
        }
        context["outlet_events"][CHAMPION_MOVED].add(CHAMPION, extra=extra)
