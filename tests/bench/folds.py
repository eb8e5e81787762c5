"""Folds by patient: every film is scored by a network that saw no film of its patient."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from jobs.films.postprocess import MaskRecipe, choose, to_mask
from jobs.imaging import decode, masks
from jobs.reports.curves import draw_curves
from tests.bench.launch import run_all
from tests.bench.ours import recipe_hash
from tests.bench.records import Records, fold_split, members
from tests.bench.runs import Probabilities, read_facts, read_probabilities, write_json
from tests.bench.scores import dices, dices_of_masks, summary

Row: TypeAlias = dict[str, Any]

WORST_FILMS, WORST_COLUMNS, TILE = 12, 4, 384


class Folds:
    """The trainings, each done once: what they leave in `work` is found again.

    A fold is trained again where the films, the settings or the code that trains are others.
    """

    def __init__(
        self,
        records: Records,
        work: Path,
        *,
        folds: int,
        network: str,
        budget: float,
        about: Row,
    ) -> None:
        self._records = records
        self._about = about
        self._folds = folds
        self._settings = ["ours", "0", str(budget), network]
        key = json.dumps([records.content, folds, *self._settings]).encode()
        self._work = work / hashlib.sha256(key).hexdigest()[:12]

    def run(self, artifacts: Path, at_once: int) -> Row:
        """Train what is not done, `at_once` side by side, and write what is known after each."""
        commands = {}
        for fold in range(self._folds):
            if self.is_done(fold):
                print(f"fold {fold} is done: {self.folder(fold)}", flush=True)
            else:
                (self.folder(fold) / "ours.json").unlink(missing_ok=True)
                commands[f"fold {fold}"] = self.prepare(fold)
        run_all(commands, at_once, lambda name: write(self.result(), artifacts))
        result = self.result()
        write(result, artifacts)
        self.draw(result, artifacts)
        return result

    def folder(self, fold: int) -> Path:
        return self._work / str(fold)

    def is_done(self, fold: int) -> bool:
        facts = read_facts(self.folder(fold), "ours")
        by = recipe_hash(self._settings[-1], self._records.images.shape[-1])
        return facts is not None and facts["trained_by"] == by

    def prepare(self, fold: int) -> list[str]:
        """Put the fold's films where its training reads them; the command that trains."""
        self._records.write(self.folder(fold), self._split_in(fold))
        return [sys.executable, "-m", "tests.bench.ours", str(self.folder(fold)), *self._settings]

    def result(self) -> Row:
        """The figures of the folds that are done, and each film's."""
        folds, films = [], []
        for fold in range(self._folds):
            if facts := read_facts(self.folder(fold), "ours"):
                recipe = self.recipe(fold)
                rows = list(self.rows(fold, recipe))
                films += rows
                about = {"fold": fold, "films": len(rows), "recipe": recipe}
                folds.append(about | figures(rows) | facts)
        groups = sorted({row["group"] for row in films})
        return self._about | {
            "folds": folds,
            "all": figures(films),
            "by_group": {
                group: figures([row for row in films if row["group"] == group]) for group in groups
            },
            "films": films,
        }

    def recipe(self, fold: int) -> Row:
        """The post-processing that the fold's validation films choose."""
        chosen, found = self.found(fold, "val")
        return choose(found, self._records.masks[chosen] > 0)

    def rows(self, fold: int, recipe: Mapping[str, Any]) -> Iterator[Row]:
        """Each film of a fold with its Dice before and after post-processing."""
        chosen, found = self.found(fold, "test")
        masks = self._records.masks[chosen]
        before = dices(found, masks)
        after = dices_of_masks(processed(found, recipe), masks)
        for index, raw, dice in zip(chosen.tolist(), before, after, strict=True):
            yield {
                "id": self._records.ids[index],
                "patient": self._records.patients[index],
                "group": self._records.groups[index],
                "fold": fold,
                "index": index,
                "dice": dice,
                "dice_before": raw,
            }

    def found(self, fold: int, split: str) -> tuple[NDArray[np.int64], Probabilities]:
        """The indices of the films of a split, test or val, and their probabilities."""
        chosen = members(len(self._records), self._split_in(fold))[split]
        return chosen, read_probabilities(self.folder(fold), "ours", split)

    def draw(self, result: Row, artifacts: Path) -> None:
        """The worst films of all, the truth green and the mask red; the curves of each fold."""
        for one in result["folds"]:
            curves = draw_curves(one["history"])
            (artifacts / f"bench-folds-curves-{one['fold']}.png").write_bytes(curves)
        worst = sorted(result["films"], key=lambda row: float(row["dice"]))[:WORST_FILMS]
        recipes = {one["fold"]: one["recipe"] for one in result["folds"]}
        tiles = [(self.outlined(row, recipes[row["fold"]]), caption(row)) for row in worst]
        sheet = masks.contact_sheet(tiles, columns=WORST_COLUMNS, tile=TILE)
        (artifacts / "bench-folds-worst.png").write_bytes(decode.encode_png(sheet))

    def outlined(self, row: Row, recipe: Mapping[str, Any]) -> NDArray[np.uint8]:
        chosen, found = self.found(row["fold"], "test")
        probabilities = found[chosen == row["index"]]
        lines = [
            (self._records.masks[row["index"]] > 0, masks.TRUTH_COLOR),
            (processed(probabilities, recipe)[0], masks.PREDICTION_COLOR),
        ]
        return masks.outline(self._records.images[row["index"]], lines, 1)

    def _split_in(self, fold: int) -> Callable[[int], str]:
        return lambda index: fold_split(self._records.patients[index], fold, self._folds)


def processed(found: Probabilities, recipe: Mapping[str, Any]) -> NDArray[np.bool_]:
    """Masks (N, S, S) of probabilities (N, S, S), as predict makes them."""
    return np.stack([to_mask(one, MaskRecipe.of(recipe)) for one in found])


def figures(rows: Sequence[Row]) -> dict[str, Any]:
    """The films' Dice after post-processing, and before it at 0.5."""
    return {
        **summary([row["dice"] for row in rows]),
        "before_postprocessing": summary([row["dice_before"] for row in rows]),
    }


def caption(row: Row) -> str:
    return f"{row['id']} · {row['dice']:.3f} · fold {row['fold']}"


def write(result: Row, artifacts: Path) -> None:
    write_json(artifacts / "bench-folds.json", result)


def table(result: Row) -> list[str]:
    """The folds, the groups and all films in lines."""
    lines = [f"{'':28}{'films':>6}{'Dice':>8}{'median':>8}{'p05':>8}{'epochs':>8}{'CPU-s':>8}"]
    for one in result["folds"]:
        tail = f"{one['epochs']:>8}{one['process_cpu_seconds']:>8.0f}"
        lines.append(_line(f"fold {one['fold']}", one["films"], one) + tail)
    for group, found in result["by_group"].items():
        count = sum(1 for row in result["films"] if row["group"] == group)
        lines.append(_line(group, count, found))
    count = len(result["films"])
    lines.append(_line("all", count, result["all"]))
    lines.append(_line("all, at 0.5 as it is", count, result["all"]["before_postprocessing"]))
    if len({one["trained_by"] for one in result["folds"]}) > 1:
        lines.append("The code changed while the folds were trained: run it again for what is old")
    return lines


def _line(name: str, films: int, found: Mapping[str, float]) -> str:
    dice = (found[figure] for figure in ("dice_mean", "dice_median", "dice_p05"))
    return f"{name:28}{films:>6}" + "".join(f"{value:>8.4f}" for value in dice)
