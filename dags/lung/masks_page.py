"""The page that shows a run's masks: its text and figures, without web or S3."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
from markupsafe import Markup

from lung.mask_sheet import FILMS_PER_PAGE, Film, Sheet, Table
from lung.run_failures import RETRIED
from lung.run_report_page import Run
from lung.visible_text import visible

HERE = Path(__file__).parent
STYLES = ("run_report.css", "run_failures.css", "masks.css")
STYLE = "".join((HERE / name).read_text() for name in STYLES)
# The style sheet's hash, as a Content-Security-Policy names it.
STYLE_SOURCE = f"'sha256-{base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()}'"

# {section: its heading}
HEADINGS = {
    "review": "For review: a person should look at these masks",
    "failed": "Failed: films without a mask",
    "others": "Other masks",
}
# The version of an inbox without a champion.
NO_MODEL = "none"
# The links on each side of the page that is shown.
NEIGHBOURS = 2
# Reasons to pass over a file that are listed.
REASONS_LISTED = 20


@dataclass(frozen=True)
class Tile:
    """A film with its picture, a data URI; "" where it has none."""

    film: Film
    picture: Markup | str


@dataclass(frozen=True)
class Frame:
    """What surrounds the masks.

    job: the task that masks. refresh_seconds: after which the page reloads, 0: never.
    """

    run: Run
    job: str
    refresh_seconds: int = 0


def of_sheet(
    frame: Frame,
    sheet: Sheet,
    page: int,
    films: Sequence[Film],
    previews: Sequence[bytes | None],
    *,
    reused_from: str = "",
) -> str:
    """A page of the sheet, from 1; `reused_from` is the earlier run that made the masks."""
    tiles = [Tile(film, _picture(jpeg)) for film, jpeg in zip(films, previews, strict=True)]
    title, text = words_of_sheet(sheet)
    has_model = sheet.model["version"] != NO_MODEL
    return _render(
        frame,
        title=title,
        text=text,
        reused_from=reused_from,
        figures=figures(frame.job, sheet) if has_model else [],
        skipped=sorted(sheet.skipped.items(), key=lambda item: -item[1])[:REASONS_LISTED],
        skipped_at=sheet.uri.replace("sheet.json", "skipped.csv"),
        groups=_groups(tiles, sheet.sections),
        pages=links(page, len(sheet.pages) - 1),
        page=page,
        note=f"Masks: {sheet.masks}" if films else "",
    )


def of_table(frame: Frame, table: Table) -> str:
    """The page of a run of an earlier version, which has no sheet: counts and doubtful films."""
    groups = _groups([Tile(film, "") for film in table.listed], table.sections)
    sections = table.sections
    return _render(
        frame,
        title=_title(table.films - sections["failed"], sections["review"]),
        text="An earlier version made these masks and kept no pictures of them.",
        figures=[
            ("Films", table.films, ""),
            ("Masks", table.films - sections["failed"], ""),
            ("For review", sections["review"], ""),
            ("Failed", sections["failed"], ""),
        ],
        groups=groups,
        note=f"All films are in {table.uri}.",
        is_list=True,
    )


def of_state(frame: Frame, *, parts: tuple[int, int] = (0, 0)) -> str:
    """The page of a run without masks yet; `parts` of predict are (written, all)."""
    title, text = words_of_state(frame.run, frame.job, *parts)
    return _render(frame, title=title, text=text, parts=parts)


def words_of_sheet(sheet: Sheet) -> tuple[str, str]:
    """(title, text) of a sheet."""
    model, sections = sheet.model, sheet.sections
    if model["version"] == NO_MODEL:
        return "No model to mask with", "The inbox waits for the first champion."
    name = f"{model['name']}, version" if model["name"] else "version"
    maker = f"{name} {model['version']}"
    if model["val_dice"] is not None:
        maker += f", validation Dice {model['val_dice']:.3f}"
    if not sheet.films:
        return "No new films", f"The model is {maker}."
    order = ""
    if sections["review"]:
        order = " Masks for review come first, those of the lowest quality at the top."
    return _title(
        sections["review"] + sections["others"], sections["review"]
    ), f"By the model {maker}.{order}"


def figures(job: str, sheet: Sheet) -> list[tuple[str, int, str]]:
    """(name, number, link to their first page) of the counts to show."""
    review, failed, others = (sheet.sections[name] for name in ("review", "failed", "others"))
    if job == "inbox":
        listed, new = sheet.counts.get("films", 0), sheet.counts.get("new", 0)
        films = [("Films in the inbox", listed, ""), ("Done before", max(0, listed - new), "")]
    else:
        films = [("Films", sheet.films, "")]
    return [
        *films,
        ("Masks", review + others, ""),
        ("For review", review, _link(1, "review") if review else ""),
        ("Failed", failed, _link(review // FILMS_PER_PAGE + 1, "failed") if failed else ""),
    ]


def words_of_state(run: Run, job: str, written: int = 0, parts: int = 0) -> tuple[str, str]:
    """(title, text) of a run without masks to show; `written` of `parts` of the rows are there."""
    state = run.tasks.get(job, "none")
    if state == "success" and written >= parts:
        text = "An earlier version made them, or they were deleted."
        return "No masks to show", f"The run names no masks. {text}"
    if state == "failed" or (run.is_over and parts):
        if written:
            text = f"Once {job} is cleared, it goes on from there."
            return f"Masking stopped after {written:,} of {parts:,} parts", text
        return "Masking stopped", f"It made no masks. Once mended, clear {job}."
    if run.is_over:
        failed = [task for task, task_state in run.tasks.items() if task_state == "failed"]
        because = f": {failed[0]} failed" if failed else ""
        return "No masks", f"The run is over and made no masks{because}."
    if parts:
        return f"Masking: {written:,} of {parts:,} parts", "The masks appear here after the last."
    if state == RETRIED:
        return "Masking is retried", f"The masks appear here after the task {job}."
    if state == "running":
        return "Masking has begun", "The masks appear here when it is done."
    return "Masking has not begun", f"The masks appear here after the task {job}."


def links(page: int, count: int) -> list[int]:
    """The pages to link to, in order, 0 for a gap; none where there is one page alone."""
    if count < 2:
        return []
    near = range(max(1, page - NEIGHBOURS), min(count, page + NEIGHBOURS) + 1)
    shown = sorted({1, *near, count})
    result: list[int] = []
    for number in shown:
        if result and number > result[-1] + 1:
            result.append(0)
        result.append(number)
    return result


def _title(masks: int, review: int) -> str:
    title = f"{masks:,} {'mask' if masks == 1 else 'masks'}"
    return f"{title}, {review:,} for review" if review else title


def _picture(jpeg: bytes | None) -> Markup | str:
    return Markup("data:image/jpeg;base64," + base64.b64encode(jpeg).decode()) if jpeg else ""


def _groups(
    tiles: Sequence[Tile], sections: Mapping[str, int]
) -> list[tuple[str, str, int, list[Tile]]]:
    """(section, heading, its films on all pages, tiles) of the sections that have a tile here."""
    groups: dict[str, list[Tile]] = {name: [] for name in HEADINGS}
    for tile in tiles:
        film = tile.film
        groups[
            "failed" if not film.is_masked else "review" if film.is_for_review else "others"
        ].append(tile)
    return [
        (name, HEADINGS[name], sections[name], group) for name, group in groups.items() if group
    ]


def _link(page: int, section: str) -> str:
    return f"?page={page}#{section}"


def _render(frame: Frame, **contents: object) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        # Not Markup, which is ours.
        finalize=lambda value: visible(value) if type(value) is str else value,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    template = environment.get_template("masks.html.j2")
    defaults: dict[str, object] = {
        "reused_from": "",
        "figures": [],
        "skipped": [],
        "groups": [],
        "pages": [],
        "page": 1,
        "note": "",
        "parts": (0, 0),
        "is_list": False,
    }
    return template.render(
        {**defaults, **contents}, frame=frame, failures=frame.run.failures, style=Markup(STYLE)
    )
