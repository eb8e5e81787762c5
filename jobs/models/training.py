"""The training of the job train: films to disk, epochs, checkpoints, the trained model."""

from __future__ import annotations

import dataclasses
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from jobs.errors import BadDataError, error_of_exit_code
from jobs.films.rows import Split
from jobs.films.training_pairs import Pair, chosen_sources, count_films, read_pairs
from jobs.models.epoch_writer import EpochWriter
from jobs.models.train_json import TrainJson
from jobs.models.trained_files import TrainedModel
from jobs.runtime.profile import spent, waiting
from jobs.runtime.progress import Progress, track
from jobs.runtime.save_on_signal import saving
from jobs.segmentation import distributed, ranks
from jobs.segmentation.dataset import load_cache, write_cache
from jobs.segmentation.device import log_device
from jobs.segmentation.fit_config import NETWORKS, FitConfig
from jobs.segmentation.launcher import default_processes, launch
from jobs.segmentation.trainer import Trainer
from jobs.settings.config import TrainConfig
from jobs.storage.manifest import Manifest, read_manifest
from jobs.storage.s3 import Store
from jobs.storage.work_folder import WorkFolder
from jobs.typed_json import REMEDY

# The splits that a training reads; test films are never loaded.
SPLITS: tuple[Split, ...] = ("train", "val")
# The fields that TrainConfig and FitConfig share.
SETTINGS = ("epochs", "batch_size", "learning_rate", "weight_decay", "seed", "precision")
# Set in the environment of each rank of several: the folder of the films on disk.
CACHE = "LUNG_TRAIN_CACHE"
# How long another rank waits for the main rank's checkpoint; the launcher kills after 3 s.
SECONDS_FOR_MAIN = 2.5


def fit(folder: WorkFolder, config: TrainConfig, processed: Manifest) -> Manifest:
    """Train to the last epoch: in this process, or in `config.processes` ranks (0: one a GPU).

    Args:
        folder: the training's folder in S3; last.pt in it is resumed from.
        processed: the manifest of the films.

    Raises the error of the exit code of the rank that failed first.
    """
    if ranks.is_rank():
        return _train_here(folder, config, processed, Path(os.environ[CACHE]))
    processes = config.processes or default_processes(config.batch_size)
    config = dataclasses.replace(config, processes=processes)
    log_device(config.precision, processes)
    with tempfile.TemporaryDirectory(prefix="train-") as temporary:
        cache = Path(temporary)
        _fill_cache(folder.store, config, processed, cache)
        if processes == 1:
            return _train_here(folder, config, processed, cache)
        _launch_ranks(folder.store, config, cache)
    return read_manifest(folder.store, folder.uri, "train")


def _fill_cache(store: Store, config: TrainConfig, processed: Manifest, cache: Path) -> None:
    """Write the films of both splits to disk as uint8 arrays, once for all ranks."""
    sources = chosen_sources(processed, "--train-sources", config.train_sources)
    for split in SPLITS:
        count = count_films(processed, split, sources)
        pairs = read_pairs(store, processed, split, sources=sources, threads=store.threads)
        films = track(_counted(pairs, count, processed), count, f"load {split}")
        write_cache(cache / split, films, count, processed.config["size"])


def _counted(pairs: Iterator[Pair], count: int, processed: Manifest) -> Iterator[Pair]:
    """The pairs; BadDataError where the manifest's rows are not as many as it counts."""
    number = 0
    for number, pair in enumerate(pairs, start=1):
        if number <= count:
            yield pair
    if number != count:
        raise BadDataError(f"{processed.uri} counts {count} films and has {number}: {REMEDY}")


def _launch_ranks(store: Store, config: TrainConfig, cache: Path) -> None:
    """Run this job again in each of N processes, with the same S3 and the films in `cache`."""
    command = [sys.executable, "-m", "jobs", "train", *config.arguments()]
    code = launch(command, config.processes, store.environment() | {CACHE: str(cache)})
    if code:
        message = f"a training process ended with {code}: its own message stands above"
        raise error_of_exit_code(code, message)


def _train_here(
    folder: WorkFolder, config: TrainConfig, processed: Manifest, cache: Path
) -> Manifest:
    """Train in this process; the process group of several ranks is joined and left again."""
    distributed.init()
    try:
        return TrainingRun(folder, config, processed, cache).run()
    finally:
        distributed.shutdown()


class TrainingRun:
    """A training in this process, alone or as one of several ranks; only the main rank writes.

    Args:
        folder: the training's folder in S3.
        processed: the manifest of the films.
        cache: the folder of the films on disk.
    """

    def __init__(
        self, folder: WorkFolder, config: TrainConfig, processed: Manifest, cache: Path
    ) -> None:
        self.folder = folder
        self.config = config
        self.processed = processed
        self.cache = cache
        self.fit_config = fit_config_of(config, processed.config["size"])
        train, self.val = (load_cache(cache / split) for split in SPLITS)
        self.writer = EpochWriter(folder, config.epochs)
        self.trainer = Trainer(self.fit_config, train, self.val, self.writer.read_last())

    def run(self) -> Manifest:
        """Train to the last epoch and write the trained model."""
        self.train()
        if not distributed.is_main():
            return self.folder.unfinished(counts={}, headline={})
        return self.write_model()

    def train(self) -> None:
        """Train every epoch that is left and write it while the next one trains."""
        steps = self.config.epochs * self.trainer.steps_per_epoch
        with saving(self.save), Progress(steps, "train", "step") as progress:
            meter = _Meter(self.trainer, progress)
            for result in self.trainer.epochs(meter.end_step):
                meter.end_validation()
                with waiting():
                    self.writer.write_epoch(result)
                meter.restart()
            with waiting():
                self.writer.wait()

    def save(self) -> None:
        """Save the steps since the epoch's start; called once, before a signal ends this process.

        The process ends without the clean-up of `fit`, so its films on disk are removed here.
        """
        if distributed.is_main():
            self.writer.write_last(self.trainer.state())
        elif self.trainer.device.type == "cuda":
            # The main rank saves after its GPU's sum, which waits for this rank's part.
            time.sleep(SECONDS_FOR_MAIN)
        if not ranks.is_rank():
            shutil.rmtree(self.cache, ignore_errors=True)

    def write_model(self) -> Manifest:
        best, history = self.writer.finish()
        sources = chosen_sources(self.processed, "--train-sources", self.config.train_sources)
        model = TrainedModel(self.fit_config, self.processed, sources, best, history)
        train_json = TrainJson(self.folder, self.config)
        manifest = model.write(self.folder, self.val, train_json.step)
        train_json.write()
        return manifest


def fit_config_of(config: TrainConfig, size: int) -> FitConfig:
    """The settings of the training of films of `size` x `size` pixels."""
    settings = {name: getattr(config, name) for name in SETTINGS}
    return FitConfig(size=size, **NETWORKS[config.network], **settings)


class _Meter:
    """Counts a training's seconds to the stages of the profile and moves its progress."""

    def __init__(self, trainer: Trainer, progress: Progress) -> None:
        self._trainer = trainer
        self._progress = progress
        self._last = time.perf_counter()

    def end_step(self, epoch: int, step: int, steps: int, loss: float) -> None:
        data_wait = self._trainer.steps[-1]["data_wait"]
        spent("data", data_wait)
        spent("compute", self.restart() - data_wait)
        self._progress.reach((epoch - 1) * steps + step, f"epoch {epoch} loss {loss:.4f}")

    def end_validation(self) -> None:
        spent("validate", self.restart())

    def restart(self) -> float:
        """Seconds since the last call."""
        before, self._last = self._last, time.perf_counter()
        return self._last - before
