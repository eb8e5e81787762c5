"""The pipeline's assets in Airflow: each training with its figures, each new champion.

Assets have names and no S3 URI: for a URI Airflow would load boto3 at every parse of a DAG. The
URIs are in the events.
"""

from __future__ import annotations

from typing import Any

from airflow.sdk import Asset, AssetAlias, Context

TRAINING = Asset("lung_training")
CHAMPION = Asset("lung_champion")
# An outlet gets an event at every success of its task, an alias only when the task adds one.
CHAMPION_MOVED = AssetAlias("lung_champion_moved")
MOVED = ("first", "replaced")


def record_training(context: Context, result: dict[str, Any]) -> None:
    """train's `post_execute`: adds the last figures and the histories' URIs to its event."""
    context["outlet_events"][TRAINING].extra = {
        **result["headline"],
        "reused": result["reused"],
        "manifest": result["manifest"],
        "files": result["files"],
    }


def record_champion(context: Context, result: dict[str, Any]) -> None:
    """publish's `post_execute`: an event of the champion, only where the champion changed."""
    if result["headline"]["champion"] in MOVED:
        extra = {
            "name": context["params"]["name"],
            **result["headline"],
            "manifest": result["manifest"],
        }
        context["outlet_events"][CHAMPION_MOVED].add(CHAMPION, extra=extra)
