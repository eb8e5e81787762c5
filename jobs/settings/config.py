"""One validated dataclass for each job; the command line and the Airflow form are built from them.

A field that changes the bytes that a job writes is part of its identity, and thus its fingerprint.
`identity=False` marks the others, and URIs whose content is hashed instead.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jobs.errors import ConfigError
from jobs.settings.options import (
    IF_SET,
    check,
    check_apart,
    film_sources,
    lung_values,
    manifest_uri,
    model_name,
    option,
)
from jobs.settings.patterns import (
    ONE_LINE,
    RUN_ID,
    S3_CSV,
    S3_OR_LOCAL_CSV,
    S3_URI,
    SHARD,
    SOURCES_URI,
)
from jobs.sources.patients import compile_pattern
from jobs.sources.source import split_sources


@dataclass(frozen=True, kw_only=True)
class JobConfig:
    """The flags of every job."""

    out: str = option("Prefix to write to: s3://BUCKET/PREFIX", pattern=S3_URI, identity=False)
    run_id: str = option(
        "Id of the run, which names runs/<run_id>/: up to 128 letters, digits and . _ -, the first "
        "a letter or a digit",
        "manual",
        pattern=RUN_ID,
        identity=False,
    )
    force: bool = option(
        "Recompute results that exist already, once for each run id", False, identity=False
    )

    def __post_init__(self) -> None:
        for item in dataclasses.fields(self):
            check(item.name, getattr(self, item.name), item.metadata)

    def arguments(self) -> list[str]:
        """The command-line flags of this config."""
        flags = []
        for item in dataclasses.fields(self):
            flag, value = "--" + item.name.replace("_", "-"), getattr(self, item.name)
            is_unset = isinstance(value, bool) and value == item.default
            flags += [] if is_unset else [flag, str(value)]
        return flags

    def identity(self) -> dict[str, Any]:
        """The fields that decide the bytes written; inputs count by their content hashes."""
        return {
            item.name: getattr(self, item.name)
            for item in dataclasses.fields(self)
            if item.metadata["identity"] is True
            or (item.metadata["identity"] == IF_SET and getattr(self, item.name))
        }


@dataclass(frozen=True, kw_only=True)
class DownloadConfig(JobConfig):
    source: str = option(
        "Source of the films: kaggle://OWNER/NAME[@VERSION], https://HOST/PATH.zip, "
        "file:///PATH (a zip or a folder, not from a container), s3://BUCKET/PREFIX, "
        "s3://BUCKET/KEY.zip, or synthetic://phantoms?films=48&seed=0 (1 to 100000 films); join "
        "several with +",
        "kaggle://kmader/pulmonary-chest-xray-abnormalities+kaggle://yoctoman/shcxr-lung-mask",
        title="Source of the films",
        form="main",
        pattern=SOURCES_URI,
        identity=False,
    )
    patient_pattern: str = option(
        "Regular expression for the patient in a film's file name: its only group, or the group "
        "named patient, such as ^([^_]+)_ for 0012_left.png. A pattern with a / is matched against "
        "the path in the source. All films of a patient go to one split. Films of the public sets "
        "keep the patients of their names",
        "",
        title="Patient pattern",
        text_format="regex",
        form="Advanced",
    )
    patients: str = option(
        "CSV with the columns film,patient, instead of a pattern: s3://BUCKET/KEY.csv, "
        "file:///PATH.csv (not from a container), or empty. A film is named by its path in the "
        "source or by its id",
        "",
        title="Patients file",
        pattern=f"{S3_OR_LOCAL_CSV}?",
        form="Advanced",
        identity=False,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.patient_pattern and self.patients:
            raise ConfigError(
                f"--patient-pattern {self.patient_pattern!r} and --patients {self.patients} are "
                "both given: give one of them"
            )
        if self.patient_pattern:
            compile_pattern(self.patient_pattern)
        # An archive is one object, so it cannot contain the output.
        for part in split_sources(self.source):
            if part.startswith("s3://") and not part.lower().endswith(".zip"):
                check_apart("--source", part, self.out)


@dataclass(frozen=True, kw_only=True)
class PreprocessConfig(JobConfig):
    raw: str = manifest_uri("raw")
    size: int = option(
        "Side of the network's square input in pixels, a multiple of 32",
        512,
        title="Image size",
        minimum=32,
        maximum=2048,
        multiple_of=32,
        form="main",
    )
    fit: str = option(
        "How to fit a non-square film into the square: stretch it, or letterbox (black bars)",
        "stretch",
        title="Fit",
        choices=("stretch", "letterbox"),
        form="Advanced",
    )
    crop_borders: bool = option(
        "Crop the black borders of a collimated film; masks still cover the whole film",
        False,
        title="Crop black borders",
        form="Advanced",
    )
    mask_values: str = lung_values(form="Advanced")
    max_quarantined: float = option(
        "Largest share of the films with a mask that may be quarantined; above it the job fails",
        0.2,
        title="Largest share quarantined",
        minimum=0.0,
        maximum=1.0,
        form="Advanced",
        identity=False,
    )
    split_file: str = option(
        "CSV with the columns patient,split (train, val or test), instead of the hashed split: "
        "s3://BUCKET/KEY.csv, or empty",
        "",
        title="Split file",
        pattern=f"({S3_CSV})?",
        form="Advanced",
        identity=False,
    )


@dataclass(frozen=True, kw_only=True)
class TrainConfig(JobConfig):
    processed: str = manifest_uri("processed")
    epochs: int = option(
        "Passes over the training films", 40, title="Epochs", minimum=1, maximum=2000, form="main"
    )
    batch_size: int = option(
        "Films in one optimizer step, over all processes together",
        8,
        title="Batch size",
        minimum=1,
        maximum=1024,
        form="main",
    )
    learning_rate: float = option(
        "Peak learning rate of the one-cycle schedule",
        3e-3,
        title="Learning rate",
        minimum=1e-6,
        maximum=1.0,
        form="Advanced",
    )
    weight_decay: float = option(
        "Decoupled weight decay of AdamW",
        1e-2,
        title="Weight decay",
        minimum=0.0,
        maximum=1.0,
        form="Advanced",
    )
    network: str = option(
        "Size of the U-Net: small (0.5 million weights), base (4 million) or large (11 million)",
        "base",
        title="Network",
        choices=("small", "base", "large"),
        form="main",
    )
    seed: int = option(
        "Seed of the initial weights, the order of the films and the augmentation",
        0,
        title="Seed",
        minimum=0,
        maximum=2**31 - 1,
        form="Advanced",
    )
    precision: str = option(
        "Floating-point type of the network; auto is the device's fastest",
        "auto",
        title="Precision",
        choices=("auto", "float32", "bfloat16", "float16"),
        form="Advanced",
    )
    train_sources: str = film_sources(
        "train", ". Films of the other sources then test the model on unseen sources"
    )
    processes: int = option(
        "Training processes; 0: one for each GPU that the job sees, one on the CPU",
        0,
        minimum=0,
        maximum=64,
        identity=False,
    )


@dataclass(frozen=True, kw_only=True)
class PredictConfig(JobConfig):
    trained: str = manifest_uri("trained")
    films: str = option(
        "Films to segment: the URI of a raw or processed manifest, or any s3://BUCKET/PREFIX",
        pattern=S3_URI,
        identity=False,
    )
    shard: str = option(
        "Part of the films, i/n with i from 1 to n. The objects below a prefix must not change "
        "while its shards run: otherwise no shard completes the set",
        "1/1",
        pattern=SHARD,
        identity=False,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        index, count = self.shard_of()
        if index >= count:
            raise ConfigError(f"--shard {self.shard} has i above n: give i/n with i from 1 to n")
        check_apart("--films", self.films, self.out)

    def shard_of(self) -> tuple[int, int]:
        """(index from 0, count)."""
        index, count = self.shard.split("/")
        return int(index) - 1, int(count)


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(JobConfig):
    predictions: str = manifest_uri("predictions")
    processed: str = manifest_uri("processed")
    test_sources: str = film_sources("test")


@dataclass(frozen=True, kw_only=True)
class PublishConfig(JobConfig):
    raw: str = manifest_uri("raw")
    processed: str = manifest_uri("processed")
    trained: str = manifest_uri("trained")
    predictions: str = manifest_uri("predictions")
    evaluation: str = manifest_uri("evaluation")
    name: str = model_name(form="Advanced")
    min_dice: float = option(
        "Smallest mean Dice on the validation films for a model that may become the champion",
        0.9,
        title="Minimum Dice",
        minimum=0.0,
        maximum=1.0,
        form="main",
    )
    force_champion: str = option(
        "Make this model the champion whatever the scores, for this reason, which is recorded on "
        "one line; empty: the scores decide",
        "",
        title="Force the champion: reason",
        pattern=ONE_LINE,
        form="Advanced",
        identity=IF_SET,
    )


@dataclass(frozen=True, kw_only=True)
class InboxConfig(JobConfig):
    inbox: str = option(
        "Prefix where new films arrive: s3://BUCKET/PREFIX",
        "s3://lung/inbox",
        title="Inbox",
        pattern=S3_URI,
        form="main",
    )
    name: str = model_name(form="main")
    remask: bool = option(
        "Whether a new champion masks all films of the inbox anew; otherwise it masks only films "
        "that no version of the model has masked",
        True,
        title="Mask all films anew with a new champion",
        form="Advanced",
        identity=False,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_apart("--inbox", self.inbox, self.out)

    def folder(self) -> str:
        """The inbox's URI with one "/" at the end."""
        return self.inbox.rstrip("/") + "/"


# Every job's config; which job reads which manifest stands in `jobs.chain`.
JOBS: dict[str, type[JobConfig]] = {
    "download": DownloadConfig,
    "preprocess": PreprocessConfig,
    "train": TrainConfig,
    "predict": PredictConfig,
    "evaluate": EvaluateConfig,
    "publish": PublishConfig,
    "inbox": InboxConfig,
}


def build_config(job: str, values: Mapping[str, Any]) -> JobConfig:
    """The job's config, from those of `values` that are fields of it."""
    config_class = JOBS[job]
    names = [item.name for item in dataclasses.fields(config_class)]
    return config_class(**{name: values[name] for name in names if name in values})
