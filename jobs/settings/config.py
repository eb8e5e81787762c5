"""One validated dataclass a job; the command line and the Airflow form are made from them.

A field that changes the bytes a job writes is part of the job's identity and so of its fingerprint.
Where to write, which run this is and how many processes work do not change them, and say so with
`identity=False`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jobs.errors import ConfigError
from jobs.settings.options import check, check_apart, option
from jobs.sources.patients import compile_pattern
from jobs.sources.source import split_sources

S3_URI = r"s3://[^/]+(/.*)?"
MANIFEST_URI = r"s3://[^/]+/.*manifest\.json"
SOURCES = r"([a-z]+(,[a-z]+)*)?"
SHARD = r"[1-9]\d*/[1-9]\d*"


@dataclass(frozen=True, kw_only=True)
class JobConfig:
    out: str = option("Where to write: s3://BUCKET/PREFIX", pattern=S3_URI, identity=False)
    run_id: str = option(
        "The run this belongs to; names runs/<run_id>/",
        "manual",
        pattern=r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}",
        identity=False,
    )
    force: bool = option(
        "Do the work again even where it is found done, once for each run id", False, identity=False
    )

    def __post_init__(self) -> None:
        for item in dataclasses.fields(self):
            check(item.name, getattr(self, item.name), item.metadata)

    def arguments(self) -> list[str]:
        """The command-line flags that make this config."""
        flags = []
        for item in dataclasses.fields(self):
            flag, value = "--" + item.name.replace("_", "-"), getattr(self, item.name)
            flags += ([flag] if value else []) if isinstance(value, bool) else [flag, str(value)]
        return flags

    def identity(self) -> dict[str, Any]:
        """The fields that decide the bytes written, URIs of inputs left to their content hashes."""
        return {
            item.name: getattr(self, item.name)
            for item in dataclasses.fields(self)
            if item.metadata["identity"]
        }


def model_name(*, form: str) -> Any:
    return option(
        "The model's name: models/<name>/",
        "lung-unet",
        title="Model name",
        pattern=r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}",
        form=form,
    )


@dataclass(frozen=True, kw_only=True)
class DownloadConfig(JobConfig):
    source: str = option(
        "Where the films come from: kaggle://OWNER/NAME[@VERSION], https://HOST/PATH.zip, "
        "file:///PATH (a zip or a folder, not from a container), s3://BUCKET/PREFIX, "
        "s3://BUCKET/KEY.zip, or synthetic://phantoms?films=48&seed=0; several joined by +",
        "kaggle://kmader/pulmonary-chest-xray-abnormalities+kaggle://yoctoman/shcxr-lung-mask",
        title="Source of the films",
        form="main",
        pattern=r"[a-z0-9]+://.+",
        identity=False,
    )
    patient_pattern: str = option(
        "A regular expression whose only group, or the one named patient, is the patient in a "
        "film's file name, as ^([^_]+)_ of 0012_left.png, or, with a / in it, in its path; all "
        "films of a patient go to one split; films of the public sets keep their own patients",
        "",
        title="Patient pattern",
        form="Advanced",
    )
    patients: str = option(
        "A CSV with the columns film,patient in place of a pattern: s3://BUCKET/KEY.csv, "
        "file:///PATH.csv (not from a container), or empty; film is its path in the source, or "
        "its id",
        "",
        title="Patients file",
        pattern=r"(s3://[^/]+/.+|file:///.+)?",
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
        for part in split_sources(self.source):
            if part.startswith("s3://") and not part.lower().endswith(".zip"):
                check_apart("--source", part, self.out)


@dataclass(frozen=True, kw_only=True)
class PreprocessConfig(JobConfig):
    raw: str = option("The raw manifest's URI", pattern=MANIFEST_URI, identity=False)
    size: int = option(
        "Side of the square the network sees, in pixels, a multiple of 32",
        512,
        title="Image size",
        minimum=32,
        maximum=2048,
        multiple_of=32,
        form="main",
    )
    fit: str = option(
        "How a film that is no square fills one: stretch it, or keep its aspect between black bars "
        "(letterbox)",
        "stretch",
        title="Fit",
        choices=("stretch", "letterbox"),
        form="Advanced",
    )
    crop_borders: bool = option(
        "Leave out the black borders of a collimated film; masks are still of the whole film",
        False,
        title="Crop black borders",
        form="Advanced",
    )
    max_quarantined: float = option(
        "The largest share of films with a mask that may be quarantined before the job fails",
        0.2,
        title="Largest share quarantined",
        minimum=0.0,
        maximum=1.0,
        form="Advanced",
        identity=False,
    )
    split_file: str = option(
        "A CSV with the columns patient,split (train, val or test) in place of the hashed split: "
        "s3://BUCKET/KEY.csv, or empty",
        "",
        title="Split file",
        pattern=r"(s3://[^/]+/.+)?",
        form="Advanced",
        identity=False,
    )


@dataclass(frozen=True, kw_only=True)
class TrainConfig(JobConfig):
    processed: str = option("The processed manifest's URI", pattern=MANIFEST_URI, identity=False)
    epochs: int = option(
        "Passes over the training films", 40, title="Epochs", minimum=1, maximum=2000, form="main"
    )
    batch_size: int = option(
        "Films in one step, over all processes together",
        8,
        title="Batch size",
        minimum=1,
        maximum=1024,
        form="main",
    )
    learning_rate: float = option(
        "Peak of the one-cycle schedule",
        3e-3,
        title="Learning rate",
        minimum=1e-6,
        maximum=1.0,
        form="Advanced",
    )
    weight_decay: float = option(
        "AdamW's decoupled weight decay",
        1e-2,
        title="Weight decay",
        minimum=0.0,
        maximum=1.0,
        form="Advanced",
    )
    network: str = option(
        "The U-Net: small (0.5 million weights), base (4 million) or large (11 million)",
        "base",
        title="Network",
        choices=("small", "base", "large"),
        form="main",
    )
    seed: int = option(
        "Seed of the weights, the order and the augmentation",
        0,
        title="Seed",
        minimum=0,
        maximum=2**31 - 1,
        form="Advanced",
    )
    precision: str = option(
        "Arithmetic of the network: what the device is fastest in (auto), or always one",
        "auto",
        title="Precision",
        choices=("auto", "float32", "bfloat16", "float16"),
        form="Advanced",
    )
    train_sources: str = option(
        "Train on films of these sources only, joined by commas: montgomery, shenzhen, phantoms, "
        "custom (all others); empty: all. The others' films then test what was never seen",
        "",
        title="Train sources",
        pattern=SOURCES,
        form="Advanced",
    )
    processes: int = option(
        "Processes that train together, one a GPU where there are GPUs",
        1,
        minimum=1,
        maximum=64,
        identity=False,
    )


@dataclass(frozen=True, kw_only=True)
class PredictConfig(JobConfig):
    trained: str = option("The trained manifest's URI", pattern=MANIFEST_URI, identity=False)
    films: str = option(
        "The films: a raw or processed manifest's URI, or any s3://BUCKET/PREFIX",
        pattern=S3_URI,
        identity=False,
    )
    shard: str = option(
        "Which part of the films, i/n with i from 1 to n; a prefix must not change while its "
        "shards run, or none of them completes the set",
        "1/1",
        pattern=SHARD,
        identity=False,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        index, count = self.shard_of()
        if index >= count:
            raise ConfigError(f"--shard {self.shard} has i over n: give i/n with i from 1 to n")
        check_apart("--films", self.films, self.out)

    def shard_of(self) -> tuple[int, int]:
        """(index from 0, count)."""
        index, count = self.shard.split("/")
        return int(index) - 1, int(count)


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(JobConfig):
    predictions: str = option(
        "The predictions manifest's URI", pattern=MANIFEST_URI, identity=False
    )
    processed: str = option(
        "The processed manifest's URI, which holds the split", pattern=MANIFEST_URI, identity=False
    )
    test_sources: str = option(
        "Test on films of these sources only, joined by commas: montgomery, shenzhen, phantoms, "
        "custom (all others); empty: all",
        "",
        title="Test sources",
        pattern=SOURCES,
        form="Advanced",
    )


@dataclass(frozen=True, kw_only=True)
class PublishConfig(JobConfig):
    raw: str = option("The raw manifest's URI", pattern=MANIFEST_URI, identity=False)
    processed: str = option("The processed manifest's URI", pattern=MANIFEST_URI, identity=False)
    trained: str = option("The trained manifest's URI", pattern=MANIFEST_URI, identity=False)
    predictions: str = option(
        "The predictions manifest's URI", pattern=MANIFEST_URI, identity=False
    )
    evaluation: str = option("The evaluation manifest's URI", pattern=MANIFEST_URI, identity=False)
    name: str = model_name(form="Advanced")
    min_dice: float = option(
        "Mean Dice on the validation films below which a model never becomes the champion",
        0.9,
        title="Minimum Dice",
        minimum=0.0,
        maximum=1.0,
        form="main",
    )


@dataclass(frozen=True, kw_only=True)
class InboxConfig(JobConfig):
    inbox: str = option(
        "Where new films arrive: s3://BUCKET/PREFIX",
        "s3://lung/inbox",
        title="Inbox",
        pattern=S3_URI,
        form="main",
    )
    name: str = model_name(form="main")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_apart("--inbox", self.inbox, self.out)

    def folder(self) -> str:
        """The inbox's URI with one "/" at its end."""
        return self.inbox.rstrip("/") + "/"


# In their order: each reads what those before it wrote.
CHAIN: dict[str, type[JobConfig]] = {
    "download": DownloadConfig,
    "preprocess": PreprocessConfig,
    "train": TrainConfig,
    "predict": PredictConfig,
    "evaluate": EvaluateConfig,
    "publish": PublishConfig,
}
JOBS: dict[str, type[JobConfig]] = {**CHAIN, "inbox": InboxConfig}


def build_config(job: str, values: Mapping[str, Any]) -> JobConfig:
    """The job's config from those of `values` that are its fields."""
    kind = JOBS[job]
    names = [item.name for item in dataclasses.fields(kind)]
    return kind(**{name: values[name] for name in names if name in values})
