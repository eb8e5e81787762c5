"""Cross-validation by patient: the network that scores a film was trained on other patients."""

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
from jobs.imaging import encode, masks
from jobs.reports.curves import draw_curves
from tests.bench.launch import run_all
from tests.bench.ours import recipe_hash
from tests.bench.records import Records, fold_split, members
from tests.bench.runs import Probabilities, read_facts, read_probabilities, write_json
from tests.bench.scores import dices, dices_of_masks, summary

Row: TypeAlias = dict[str, Any]

WORST_FILMS, WORST_COLUMNS, TILE = 12, 4, 384


class Folds:
    """One training per fold, with its files in `work`; a later run reuses the finished folds.

    A fold is trained again if the films, the settings or the training code have changed.
    """

    def __init__(
        self,
        records: Records,
        work: Path,
        *,
        folds: int,
        network: str,
        budget: float,
        environment: Row,
    ) -> None:
        self._records = records
        self._environment = environment
        self._folds = folds
        self._settings = ["ours", "0", str(budget), network]
        key = json.dumps([records.content, folds, *self._settings]).encode()
        self._work = work / hashlib.sha256(key).hexdigest()[:12]

    def run(self, artifacts: Path, at_once: int) -> Row:
        """Train the unfinished folds, `at_once` in parallel; write the figures after each."""
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
        current = recipe_hash(self._settings[-1], self._records.images.shape[-1])
        return facts is not None and facts["trained_by"] == current

    def prepare(self, fold: int) -> list[str]:
        """Write the fold's films for its training; return the training's command."""
        self._records.write(self.folder(fold), self._split_in(fold))
        return [sys.executable, "-m", "tests.bench.ours", str(self.folder(fold)), *self._settings]

    def result(self) -> Row:
        """The figures of the finished folds, of all their films together, and of each film."""
        folds, films = [], []
        for fold in range(self._folds):
            if facts := read_facts(self.folder(fold), "ours"):
                recipe = self.recipe(fold)
                rows = list(self.rows(fold, recipe))
                films += rows
                settings = {"fold": fold, "films": len(rows), "recipe": recipe}
                folds.append(settings | figures(rows) | facts)
        groups = sorted({row["group"] for row in films})
        return self._environment | {
            "folds": folds,
            "all": figures(films),
            "by_group": {
                group: figures([row for row in films if row["group"] == group]) for group in groups
            },
            "films": films,
        }

    def recipe(self, fold: int) -> Row:
        """The post-processing with the best Dice on the fold's validation films."""
        indices, probabilities = self.probabilities(fold, "val")
        return choose(probabilities, self._records.masks[indices] > 0)

    def rows(self, fold: int, recipe: Mapping[str, Any]) -> Iterator[Row]:
        """Yield each test film of a fold with its Dice before and after post-processing."""
        indices, probabilities = self.probabilities(fold, "test")
        masks = self._records.masks[indices]
        before = dices(probabilities, masks)
        after = dices_of_masks(postprocessed(probabilities, recipe), masks)
        for index, dice_before, dice in zip(indices.tolist(), before, after, strict=True):
            yield {
                "id": self._records.ids[index],
                "patient": self._records.patients[index],
                "group": self._records.groups[index],
                "fold": fold,
                "index": index,
                "dice": dice,
                "dice_before": dice_before,
            }

    def probabilities(self, fold: int, split: str) -> tuple[NDArray[np.int64], Probabilities]:
        """(indices of the films in a split of the fold, test or val; their probabilities)."""
        indices = members(len(self._records), self._split_in(fold))[split]
        return indices, read_probabilities(self.folder(fold), "ours", split)

    def draw(self, result: Row, artifacts: Path) -> None:
        """Draw the loss curves of each fold, and the films with the lowest Dice.

        The outline of the labelled mask is green, that of the predicted one red.
        """
        for fold in result["folds"]:
            curves = draw_curves(fold["history"])
            (artifacts / f"bench-folds-curves-{fold['fold']}.png").write_bytes(curves)
        worst = sorted(result["films"], key=lambda row: float(row["dice"]))[:WORST_FILMS]
        recipes = {fold["fold"]: fold["recipe"] for fold in result["folds"]}
        tiles = [(self.outlined(row, recipes[row["fold"]]), caption(row)) for row in worst]
        sheet = masks.contact_sheet(tiles, columns=WORST_COLUMNS, tile=TILE)
        (artifacts / "bench-folds-worst.png").write_bytes(encode.encode_png(sheet))

    def outlined(self, row: Row, recipe: Mapping[str, Any]) -> NDArray[np.uint8]:
        """The film of a row with both outlines, uint8 (S, S, 3)."""
        indices, probabilities = self.probabilities(row["fold"], "test")
        predicted = postprocessed(probabilities[indices == row["index"]], recipe)[0]
        outlines = [
            (self._records.masks[row["index"]] > 0, masks.TRUTH_COLOR),
            (predicted, masks.PREDICTION_COLOR),
        ]
        return masks.outline(self._records.images[row["index"]], outlines, 1)

    def _split_in(self, fold: int) -> Callable[[int], str]:
        return lambda index: fold_split(self._records.patients[index], fold, self._folds)


def postprocessed(probabilities: Probabilities, recipe: Mapping[str, Any]) -> NDArray[np.bool_]:
    """Masks (N, S, S) of probabilities (N, S, S), with the post-processing of the job predict."""
    return np.stack([to_mask(film, MaskRecipe.of(recipe)) for film in probabilities])


def figures(rows: Sequence[Row]) -> dict[str, Any]:
    """Summaries of the films' Dice: after post-processing, and at a threshold of 0.5 before it."""
    return {
        **summary([row["dice"] for row in rows]),
        "before_postprocessing": summary([row["dice_before"] for row in rows]),
    }


def caption(row: Row) -> str:
    return f"{row['id']} · {row['dice']:.3f} · fold {row['fold']}"


def write(result: Row, artifacts: Path) -> None:
    write_json(artifacts / "bench-folds.json", result)


def table(result: Row) -> list[str]:
    """The figures as lines of text: a line per fold, per group, and for all films."""
    lines = [f"{'':28}{'films':>6}{'Dice':>8}{'median':>8}{'p05':>8}{'epochs':>8}{'CPU-s':>8}"]
    for fold in result["folds"]:
        costs = f"{fold['epochs']:>8}{fold['process_cpu_seconds']:>8.0f}"
        lines.append(_line(f"fold {fold['fold']}", fold["films"], fold) + costs)
    for group, dice in result["by_group"].items():
        count = sum(1 for row in result["films"] if row["group"] == group)
        lines.append(_line(group, count, dice))
    count = len(result["films"])
    lines.append(_line("all", count, result["all"]))
    lines.append(_line("all, at 0.5, unprocessed", count, result["all"]["before_postprocessing"]))
    if len({fold["trained_by"] for fold in result["folds"]}) > 1:
        lines.append("The code changed between the folds: run it again to train the outdated ones")
    return lines


def _line(name: str, films: int, dice: Mapping[str, float]) -> str:
    values = (dice[figure] for figure in ("dice_mean", "dice_median", "dice_p05"))
    return f"{name:28}{films:>6}" + "".join(f"{value:>8.4f}" for value in values)
