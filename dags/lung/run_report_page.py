"""The training report before publish has written one: its text and figures, without web or S3."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
from markupsafe import Markup

from lung.visible_text import visible

JOBS = ("download", "preprocess", "train", "predict", "evaluate", "publish")
# The state of a mapped task is the first of these that one of its instances has.
URGENCY = ("failed", "upstream_failed", "up_for_retry", "running", "queued", "scheduled", "none")
ROWS_SHOWN = 10

# history.json's rows, one per epoch.
History = Sequence[Mapping[str, float]]

HERE = Path(__file__).parent
STYLE = (HERE / "run_report.css").read_text()
# The style sheet's hash, as a Content-Security-Policy names it.
STYLE_SOURCE = f"'sha256-{base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()}'"


@dataclass(frozen=True)
class Run:
    """A run in Airflow's database: its state and the state of each of its tasks."""

    run_id: str
    state: str
    tasks: dict[str, str]

    @classmethod
    def of(cls, run_id: str, state: str, instances: Iterable[tuple[str, str | None]]) -> Run:
        """`instances` are (task, state) pairs, several of a mapped task."""
        states: dict[str, str] = {}
        for task, instance_state in instances:
            candidates = (states.get(task, "success"), instance_state or "none")
            states[task] = min(candidates, key=_urgency)
        return cls(run_id, state, states)

    @property
    def train(self) -> str:
        return self.tasks.get("train", "none")

    @property
    def is_over(self) -> bool:
        return self.state not in ("queued", "running")


def progress(
    run: Run,
    history: History,
    epochs: int,
    *,
    curves: bytes | None = None,
    folder: str = "",
    refresh_seconds: int = 0,
) -> str:
    """The page of a run without a report: the training's progress and the tasks' states.

    `epochs` is the number of epochs to train, `curves` an SVG file, `folder` the URI of train's
    folder; the page says that it reloads every `refresh_seconds`, 0: never.
    """
    title, text = words(run, history, epochs)
    return _render(
        title=title,
        text=text,
        run=run,
        jobs=[(job, run.tasks.get(job, "none")) for job in JOBS],
        history=history,
        last_rows=list(reversed(history[-ROWS_SHOWN:])),
        best=_best(history),
        epochs=epochs,
        # In an img element an SVG runs no script and loads nothing.
        curves=base64.b64encode(curves).decode() if curves else "",
        folder=folder,
        refresh_seconds=refresh_seconds,
    )


def notice(title: str, text: str) -> str:
    """A page that holds a title and a text only."""
    return _render(title=title, text=text, run=None)


def words(run: Run, history: History, epochs: int) -> tuple[str, str]:
    """(title, text) for the state of the task `train`."""
    count, best = len(history), _best(history)
    figures = ""
    if best:
        figures = f"Best validation Dice {best['val_dice']:.3f} in epoch {best['epoch']:.0f}. "
    if run.train == "running" and count:
        return f"Epoch {count} of {epochs}", figures + _time_left(history, epochs)
    if run.train == "running":
        return "Training has begun", "The figures appear here after the first epoch."
    if run.train == "success":
        return f"Trained for {count} {'epoch' if count == 1 else 'epochs'}", figures + _pending(run)
    if run.train == "failed" and count:
        resume = f"Finished epochs are saved: once cleared, it resumes with epoch {count + 1}."
        return f"Training failed after epoch {count} of {epochs}", f"Its log says why. {resume}"
    if run.train == "failed":
        return "Training failed before its first epoch ended", "Its log says why."
    if count and not run.is_over:
        return "Training is retried", f"{figures}{count} of {epochs} epochs are saved."
    return ("Nothing was trained" if run.is_over else "Training has not begun"), _pending(run)


def _pending(run: Run) -> str:
    """Why there is no report yet."""
    # The first job of the chain in each state.
    job_in_state = {run.tasks.get(job): job for job in reversed(JOBS)}
    if job := job_in_state.get("failed"):
        return f"There is no report, as {job} failed: its log says why."
    if run.is_over:
        return "The run is over and wrote no report."
    job = job_in_state.get("running")
    current = f"{job.capitalize()} is running. " if job else ""
    if run.train == "success":
        return f"{current}The full report appears after the last task."
    return f"{current}The losses appear after the first epoch, the report after the last task."


def _time_left(history: History, epochs: int) -> str:
    seconds_of_last = [row["seconds"] for row in history[-5:]]
    seconds = (epochs - len(history)) * sum(seconds_of_last) / len(seconds_of_last)
    if seconds < 60:
        return "Less than a minute to go."
    if seconds < 5400:
        return f"About {seconds / 60:.0f} min to go."
    return f"About {seconds / 3600:.0f} h to go."


def _best(history: History) -> Mapping[str, float]:
    """The first row with the highest validation Dice."""
    return max(history, key=lambda row: row["val_dice"]) if history else {}


def _urgency(state: str) -> int:
    return URGENCY.index(state) if state in URGENCY else len(URGENCY)


def _render(**contents: object) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        # Not Markup, which is ours.
        finalize=lambda value: visible(value) if type(value) is str else value,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    template = environment.get_template("run_report.html.j2")
    return template.render(contents, style=Markup(STYLE))
