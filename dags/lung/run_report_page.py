"""The training report before publish has written one: its text and figures, without web or S3."""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from lung.run_failures import RETRIED, Failure
from lung.visible_text import visible

JOBS = ("download", "preprocess", "train", "predict", "evaluate", "publish")
# The state of a mapped task is the first of these that one of its instances has.
URGENCY = ("failed", "upstream_failed", "up_for_retry", "running", "queued", "scheduled", "none")
# What the page says for a state of Airflow's; other states keep their words.
STATE_WORDS = {"none": "–", RETRIED: "failed, is retried"}
ROWS_SHOWN = 10
LONGEST_STEP_NAME = 60

# history.json's rows, one per epoch.
History = Sequence[Mapping[str, float]]

HERE = Path(__file__).parent
STYLE = "".join((HERE / name).read_text() for name in ("run_report.css", "run_failures.css"))
TABS_SCRIPT = (HERE / "run_report_tabs.js").read_text()
# The style sheet's hash, as a Content-Security-Policy names it.
STYLE_SOURCE = f"'sha256-{base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()}'"


@dataclass(frozen=True)
class Step:
    """What train does after its last epoch: how much of it is done, and the seconds spent on it."""

    name: str
    done: int
    total: int
    seconds: float

    @classmethod
    def of(cls, value: Any) -> Step:
        """From the JSON of train.json; TypeError or ValueError where train did not write it."""
        step = cls(**value)
        counts = (step.done, step.total)
        if type(step.name) is not str or not 0 < len(step.name) <= LONGEST_STEP_NAME:
            raise ValueError(step.name)
        if any(type(count) is not int for count in counts) or not 0 <= step.done <= step.total:
            raise ValueError(counts)
        if type(step.seconds) not in (int, float) or not 0 <= step.seconds < math.inf:
            raise ValueError(step.seconds)
        return step


@dataclass(frozen=True)
class Run:
    """A run in Airflow's database: its state and the state of each of its tasks.

    `tries` has (number, most) of the tasks that are past their first try.
    """

    run_id: str
    state: str
    tasks: dict[str, str]
    tries: dict[str, tuple[int, int]] = field(default_factory=dict)
    failures: Sequence[Failure] = ()

    @classmethod
    def of(
        cls, run_id: str, state: str, instances: Iterable[tuple[str, str | None]], **others: Any
    ) -> Run:
        """`instances` are (task, state) pairs, several of a mapped task."""
        states: dict[str, str] = {}
        for task, instance_state in instances:
            candidates = (states.get(task, "success"), instance_state or "none")
            states[task] = min(candidates, key=_urgency)
        return cls(run_id, state, states, **others)

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
    step: Step | None = None,
    *,
    curves: bytes | None = None,
    folder: str = "",
    refresh_seconds: int = 0,
) -> str:
    """The page of a run without a report: the training's progress and the tasks' states.

    `epochs` is the number of epochs to train, `step` what follows them, `curves` an SVG file,
    `folder` the URI of train's folder; the page says that it reloads every `refresh_seconds`, 0:
    never.
    """
    title, text = words(run, history, epochs, step)
    return _render(
        title=title,
        text=text,
        run=run,
        failures=run.failures,
        jobs=[(job, run.tasks.get(job, "none"), _state(run, job)) for job in JOBS],
        history=history,
        last_rows=list(reversed(history[-ROWS_SHOWN:])),
        best=_best(history),
        bar=_bar(history, epochs, step),
        # In an img element an SVG runs no script and loads nothing.
        curves=base64.b64encode(curves).decode() if curves else "",
        folder=folder,
        refresh_seconds=refresh_seconds,
    )


def notice(title: str, text: str, failures: Sequence[Failure] = ()) -> str:
    """A page that holds a title, a text and the errors of failed tasks only."""
    return _render(title=title, text=text, run=None, failures=failures)


def words(run: Run, history: History, epochs: int, step: Step | None = None) -> tuple[str, str]:
    """(title, text) for the state of the task `train`."""
    count, best = len(history), _best(history)
    figures = ""
    if best:
        figures = f"Best validation Dice {best['val_dice']:.3f} in epoch {best['epoch']:.0f}. "
    if run.train == "running" and count >= epochs > 0:
        return _after_the_epochs(figures, step)
    if run.train == "running" and count:
        return f"Epoch {count} of {epochs}", figures + _time_left(history, epochs)
    if run.train == "running":
        return "Training has begun", "The figures appear here after the first epoch."
    if run.train == "success":
        return f"Trained for {count} {'epoch' if count == 1 else 'epochs'}", figures + _pending(run)
    if run.train == "failed" and count:
        resume = f"resumes with epoch {count + 1}" if count < epochs else "chooses the threshold"
        text = f"Finished epochs are saved: once cleared, it {resume}."
        return f"Training failed after epoch {count} of {epochs}", text
    if run.train == "failed":
        return "Training failed before its first epoch ended", "There is no report."
    if count and not run.is_over:
        return "Training is retried", f"{figures}{count} of {epochs} epochs are saved."
    if run.train == RETRIED:
        return "Training is retried", "No epoch is saved yet."
    return ("Nothing was trained" if run.is_over else "Training has not begun"), _pending(run)


def _pending(run: Run) -> str:
    """Why there is no report yet."""
    # The first job of the chain in each state.
    job_in_state = {run.tasks.get(job): job for job in reversed(JOBS)}
    if job := job_in_state.get("failed"):
        return f"There is no report, as {job} failed."
    if run.is_over:
        return "The run is over and wrote no report."
    if job := job_in_state.get(RETRIED):
        return f"{job.capitalize()} is retried."
    job = job_in_state.get("running")
    current = f"{job.capitalize()} is running. " if job else ""
    if run.train == "success":
        return f"{current}The full report appears after the last task."
    return f"{current}The losses appear after the first epoch, the report after the last task."


def _state(run: Run, job: str) -> str:
    """The job's state in words, with the try where it is not the first."""
    state = run.tasks.get(job, "none")
    text = STATE_WORDS.get(state, state.replace("_", " "))
    number, most = run.tries.get(job, (1, 1))
    return f"{text}, try {number} of {most}" if number > 1 else text


def _bar(history: History, epochs: int, step: Step | None) -> tuple[int, int, str] | None:
    """(done, total, label) of the progress bar."""
    if step and step.total and len(history) >= epochs:
        return step.done, step.total, step.name
    return (len(history), epochs, "Epochs trained") if epochs else None


def _after_the_epochs(figures: str, step: Step | None) -> tuple[str, str]:
    """(title, text) of a training whose epochs are done."""
    trained = f"{figures}All epochs are trained. "
    if step is None:
        rest = "The threshold is chosen and the model written."
        return "The last epoch is trained", trained + rest
    text = f"{step.done} of {step.total} of this step are done. "
    if 0 < step.done < step.total:
        text += _duration(step.seconds / step.done * (step.total - step.done)) + " to go."
    return step.name.capitalize(), trained + text.strip()


def _time_left(history: History, epochs: int) -> str:
    seconds_of_last = [row["seconds"] for row in history[-5:]]
    seconds = (epochs - len(history)) * sum(seconds_of_last) / len(seconds_of_last)
    return f"{_duration(seconds)} to the last epoch's end; the threshold is chosen after it."


def _duration(seconds: float) -> str:
    if seconds < 60:
        return "Less than a minute"
    return f"About {seconds / 60:.0f} min" if seconds < 5400 else f"About {seconds / 3600:.0f} h"


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
