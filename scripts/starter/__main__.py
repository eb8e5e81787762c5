"""Build the starter model again, from its films: `make starter FILMS=folder`.

First it is trained in five folds by patient, for the figures of its card: a film's scores are of a
network that never saw its patient. Then it is trained on all films. Work that was done is reused.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from jobs.cli import set_up_logging
from jobs.films.rows import ScoredRow
from jobs.models.package import STARTER
from jobs.storage.local_server import embedded_s3
from jobs.storage.timed_store import TimedStore
from scripts.starter import package
from scripts.starter.chain import ARCHIVES, FOLDS, Chain, Recipe, looks


def main() -> None:
    parser = argparse.ArgumentParser(prog="make starter", description=__doc__)
    parser.add_argument("films", type=Path, help="The folder of the archives and their credits")
    parser.add_argument("--folder", type=Path, default=Path("artifacts/starter"))
    arguments = parser.parse_args()
    films: Path = arguments.films
    if missing := [name for name in (*ARCHIVES, package.CREDITS) if not (films / name).is_file()]:
        parser.error(f"FILMS={films} lacks {', '.join(missing)}: give the folder that has them")
    set_up_logging()
    recipe = Recipe()
    with embedded_s3(arguments.folder / ".s3") as settings:
        store = TimedStore(settings)
        chain = Chain.of(store, recipe, films)
        scored: list[ScoredRow] = []
        for fold in range(FOLDS):
            processed = chain.preprocess(fold)
            scored += chain.score(processed, chain.train(processed))
        out_of_fold = package.figures(scored)
        print(json.dumps(out_of_fold, indent=2), flush=True)
        processed = chain.preprocess(None)
        written = package.write(
            STARTER,
            store=store,
            recipe=recipe,
            raw_rows=list(chain.rows()),
            trained=chain.train(processed),
            looks=looks(store, processed),
            out_of_fold=out_of_fold,
            credits_csv=films / package.CREDITS,
        )
    print(f"The starter model: {written}")


if __name__ == "__main__":
    main()
