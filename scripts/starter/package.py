"""The starter model as a package: weights in float16, model.json, its card and the credits."""

from __future__ import annotations

import base64
import json
import shutil
import string
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from jobs.films.rows import RawRow, ScoredRow
from jobs.models.package import INTENDED_USE
from jobs.reports import summary
from jobs.segmentation.checkpoint import from_safetensors, to_safetensors
from jobs.storage.manifest import Manifest, describe
from jobs.storage.s3 import Store
from scripts.starter.chain import PHANTOMS, Recipe, group_of

CREDITS = "starter-credits.csv"
LICENCES = {
    "films and masks of people": "CC BY 4.0 and CC BY 3.0, each film with its own in credits.csv; "
    "the films of children are of Kermany, Zhang, Goldbaum, Large dataset of labeled optical "
    "coherence tomography and chest X-ray images, Mendeley data rscbjbr9sj (CC BY 4.0), with lung "
    "masks of V7 Labs (CC BY 4.0)",
    PHANTOMS: "none: drawn by a program, of no person",
}


def figures(scored: Sequence[ScoredRow]) -> dict[str, Any]:
    """Dice, IoU and HD95 of all scored films ("all") and by group, with their intervals."""
    rows: list[Any] = [{**row, "source": group_of(row["origin"])} for row in scored]
    summarised = summary.summarise(rows, [])
    return {"all": summarised["test"], **summarised["by_source"]}


def write(
    folder: Path,
    *,
    store: Store,
    recipe: Recipe,
    raw_rows: Sequence[RawRow],
    trained: Manifest,
    looks: bytes,
    out_of_fold: Mapping[str, Any],
    credits_csv: Path,
) -> Path:
    """Write the package into `folder`, in place of an earlier one."""
    tensors = from_safetensors(trained.read_file(store, "model.safetensors"))
    weights = to_safetensors(
        {
            name: tensor.half() if tensor.is_floating_point() else tensor
            for name, tensor in tensors.items()
        }
    )
    entry = describe("model.safetensors", weights)
    trained_json = trained.read_json(store, "model.json")
    films = Counter(
        PHANTOMS if row["source"] == PHANTOMS else group_of(row["origin"]) for row in raw_rows
    )
    model_json = trained_json | {
        "version": f"starter-{entry.sha256[:8]}",
        "weights": asdict(entry),
        "metrics": {**trained_json["metrics"], "out_of_fold": dict(out_of_fold)},
        "data": {
            **trained_json["data"],
            # The films bear the names of public sets in two archives, and are not of these sets.
            "train_sources": ["custom", PHANTOMS],
            "by_source": {group: {"films": count} for group, count in sorted(films.items())},
            "looks": base64.b64encode(looks).decode(),
        },
        "licences": LICENCES,
        "intended_use": INTENDED_USE,
    }
    folder.mkdir(exist_ok=True)
    (folder / "model.safetensors").write_bytes(weights)
    (folder / "model.json").write_text(json.dumps(model_json, indent=2) + "\n")
    shutil.copyfile(credits_csv, folder / "credits.csv")
    (folder / "README.md").write_text(_card(recipe, model_json))
    return folder


def _card(recipe: Recipe, model_json: Mapping[str, Any]) -> str:
    template = string.Template(Path(__file__).with_name("card.md").read_text())
    training, films = model_json["training"], model_json["data"]["by_source"]
    return template.substitute(
        version=model_json["version"],
        children=films["children"]["films"],
        adults=films["adults"]["films"],
        phantoms=films[PHANTOMS]["films"],
        network=recipe.network,
        size=recipe.size,
        epochs=training["epochs"],
        batch_size=training["batch_size"],
        table="\n".join(_lines(model_json["metrics"]["out_of_fold"])),
    )


def _lines(out_of_fold: Mapping[str, Any]) -> list[str]:
    lines = []
    for group, row in out_of_fold.items():
        dice, hd95 = row["dice"], row["hd95"]
        interval = f"{dice['low']:.4f} to {dice['high']:.4f}" if dice["low"] is not None else "none"
        lines.append(
            f"| {group} | {row['films']} | {row['patients']} | {dice['mean']:.4f} | {interval} | "
            f"{dice['median']:.4f} | {dice['p05']:.4f} | {hd95['mean']:.2f} |"
        )
    return lines
