"""What the training report says before there is a report: words and figures, no web and no S3."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
from markupsafe import Markup

JOBS = ("download", "preprocess", "train", "predict", "evaluate", "publish")
# Of the parts of a mapped task the one that a person should know of first.
URGENCY = ("failed", "upstream_failed", "up_for_retry", "running", "queued", "scheduled", "none")
ROWS_SHOWN = 10

History = Sequence[Mapping[str, float]]

HERE = Path(__file__).parent
STYLE = (HERE / "run_report.css").read_text()
STYLE_SOURCE = f"'sha256-{base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()}'"


@dataclass(frozen=True)
class Run:
    """A run as Airflow's database has it: its state and the state of each of its tasks."""

    run_id: str
    state: str
    tasks: dict[str, str]

    @classmethod
    def of(cls, run_id: str, state: str, tasks: Iterable[tuple[str, str | None]]) -> Run:
        """`tasks` names a mapped task once for each of its parts."""
        found: dict[str, str] = {}
        for task, part in tasks:
            found[task] = min(found.get(task, "success"), part or "none", key=_urgency)
        return cls(run_id, state, found)

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
    every: int = 0,
) -> str:
    """The page of a run whose report is not there: how far it has come, and what is awaited.

    `curves` is an SVG file; `every` says after how many seconds the page is loaded again.
    """
    title, text = words(run, history, epochs)
    return _render(
        title=title,
        text=text,
        run=run,
        jobs=[(job, run.tasks.get(job, "none")) for job in JOBS],
        history=history,
        shown=list(reversed(history[-ROWS_SHOWN:])),
        best=_best(history),
        epochs=epochs,
        # As a picture, an SVG runs no script and loads nothing, whoever wrote it.
        curves=base64.b64encode(curves).decode() if curves else "",
        folder=folder,
        every=every,
    )


def notice(title: str, text: str) -> str:
    return _render(title=title, text=text, run=None)


def words(run: Run, history: History, epochs: int) -> tuple[str, str]:
    """(the title, what to know next) for the state of the task `train`."""
    done, best = len(history), _best(history)
    figures = ""
    if best:
        figures = f"Best validation Dice {best['val_dice']:.3f} in epoch {best['epoch']:.0f}. "
    if run.train == "running" and done:
        return f"Epoch {done} of {epochs}", figures + _time_left(history, epochs)
    if run.train == "running":
        return "Training has begun", "The first epoch is under way: its figures will stand here."
    if run.train == "success":
        return f"Trained for {done} {'epoch' if done == 1 else 'epochs'}", figures + _awaited(run)
    if run.train == "failed" and done:
        kept = f"What it learned is kept: once cleared, it goes on with epoch {done + 1}."
        return f"Training failed after epoch {done} of {epochs}", f"Its log says why. {kept}"
    if run.train == "failed":
        return "Training failed before its first epoch ended", "Its log says why."
    if done and not run.is_over:
        return "Training is tried again", f"{figures}{done} of {epochs} epochs are kept."
    return ("Nothing was trained" if run.is_over else "Training has not begun"), _awaited(run)


def _awaited(run: Run) -> str:
    """What keeps the report from being there."""
    in_state = {state: job for job in reversed(JOBS) for state in [run.tasks.get(job)]}
    if job := in_state.get("failed"):
        return f"There is no report, as {job} failed: its log says why."
    if run.is_over:
        return "The run is over and has left no report."
    job = in_state.get("running")
    now = f"{job.capitalize()} is running. " if job else ""
    if run.train == "success":
        return f"{now}The full report comes with the last task."
    return f"{now}The losses will stand here after the first epoch, the report after the last task."


def _time_left(history: History, epochs: int) -> str:
    recent = [row["seconds"] for row in history[-5:]]
    seconds = (epochs - len(history)) * sum(recent) / len(recent)
    if seconds < 60:
        return "Less than a minute to go."
    if seconds < 5400:
        return f"About {seconds / 60:.0f} min to go."
    return f"About {seconds / 3600:.0f} h to go."


def _best(history: History) -> Mapping[str, float]:
    return max(history, key=lambda row: row["val_dice"]) if history else {}


def _urgency(state: str) -> int:
    return URGENCY.index(state) if state in URGENCY else len(URGENCY)


def _render(**contents: object) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    template = environment.get_template("run_report.html.j2")
    return template.render(contents, style=Markup(STYLE))
