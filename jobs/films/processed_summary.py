"""What the films of preprocess are together: counts, reasons, and whether they can be used."""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Any

from jobs.errors import BadDataError, ConfigError
from jobs.films.look_alikes import LookAlikes
from jobs.films.rows import SPLITS, ProcessedRow
from jobs.films.square import NO_MASK
from jobs.imaging import mask_values
from jobs.imaging.mask_levels import name_of

log = logging.getLogger(__name__)

REPEATED = "repeated"


class Summary:
    """Counts for the manifest, from the rows in order; keeps the quarantined rows alone."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.quarantined: list[dict[str, Any]] = []
        self._splits: Counter[str] = Counter()
        self._by_source: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._by_label: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._unlike_lungs: Counter[str] = Counter()
        self.mask_values: set[str] = set()
        self.look_alikes = LookAlikes()

    def add(self, row: ProcessedRow) -> None:
        if row["status"] != "ok":
            self.quarantined.append(dict(row))
            return
        split = row["split"]
        self._splits[split] += 1
        self._by_source[row["source"]][split] += 1
        self._by_label[row["label"]][split] += 1
        if reason := row.get("unlike_lungs"):
            self._unlike_lungs[reason] += 1
        self.mask_values.update(row.get("mask_values", []))
        self.look_alikes.add(row)

    @property
    def records(self) -> int:
        return self._splits.total()

    def counts(self) -> dict[str, int]:
        counts = {
            "films": self.total,
            "records": self.records,
            "quarantined": len(self.quarantined),
        }
        return counts | {split: self._splits[split] for split in SPLITS}

    def reasons(self) -> Counter[str]:
        """Quarantined films by reason, without the details after the reason's colon."""
        return Counter(film["reason"].partition(":")[0] for film in self.quarantined)

    def details(self) -> dict[str, Any]:
        """Reasons of the quarantine, films of each source and label by split, and why masks look
        unlike lungs.
        """
        return {
            "reasons": dict(self.reasons().most_common()),
            "unlike_lungs": dict(self._unlike_lungs.most_common()),
            "by_source": _sorted_counts(self._by_source),
            "by_label": _sorted_counts(self._by_label),
        }

    def log(self) -> None:
        for name, groups in (("source", self._by_source), ("label", self._by_label)):
            for group, counts in _sorted_counts(groups).items():
                splits = ", ".join(f"{split} {count}" for split, count in counts.items())
                log.info("%s %s: %s", name, group, splits)
        for reason, count in self.reasons().most_common():
            log.info("quarantined: %s: %d", reason, count)
        for reason, count in self._unlike_lungs.most_common():
            log.warning("masks that look unlike lungs: %s: %d", reason, count)


def _sorted_counts(groups: Mapping[str, Counter[str]]) -> dict[str, dict[str, int]]:
    """{group: {split: films}}, groups and splits sorted."""
    return {group: dict(sorted(groups[group].items())) for group in sorted(groups)}


def check_quarantine(summary: Summary, limit: float, uri: str) -> None:
    """Raise BadDataError where over `limit` (0..1) of the films with a mask are quarantined.

    Public sets have films without a mask and films of other sets: these do not count.
    """
    unusable = summary.reasons()
    with_mask = summary.total - sum(unusable.pop(reason, 0) for reason in (NO_MASK, REPEATED))
    if not with_mask:
        raise BadDataError(
            f"no film has a mask of its own, of {summary.total} films: give films with masks, as "
            f"in images/ beside masks/: see {uri}"
        )
    share = unusable.total() / with_mask
    if share > limit:
        reasons = ", ".join(f"{reason} ({count})" for reason, count in unusable.most_common(3))
        raise BadDataError(
            f"{unusable.total()} of {with_mask} films with a mask are quarantined ({share:.0%}, "
            f"at most {limit:.0%} by --max-quarantined): {reasons}{_remedy(summary)}: see {uri}"
        )


def _remedy(summary: Summary) -> str:
    """What to do about masks whose values do not say which pixels are lung, "" without any."""
    reasons = [film["reason"] for film in summary.quarantined]
    inverted = [reason for reason in reasons if reason.startswith(mask_values.INVERTED)]
    unclear = [
        reason for reason in reasons if reason.startswith((mask_values.SEVERAL, mask_values.ABSENT))
    ]
    if unclear:
        names = sorted(
            {name for reason in unclear for name in mask_values.names_in(reason)}, key=_order
        )
        return (
            f"; the masks have the values {', '.join(names)}: name those that are lung, joined by "
            "commas, in --mask-values"
        )
    if any(reason.startswith(mask_values.MANY) for reason in reasons):
        return (
            "; films, or films cut out by their masks, are no masks: give the masks themselves, or "
            "name the values that are lung in --mask-values, for probabilities 255"
        )
    remedies = {reason.rpartition("; ")[2] for reason in inverted}
    if inverted and not summary.records:
        return f"; {' or '.join(sorted(remedies))}"
    return "; inverted masks among others: invert them" if inverted else ""


def _order(name: str) -> tuple[bool, int]:
    """Gray values by size, then colors."""
    return name.startswith("#"), int(name.removeprefix("#"), 16 if name.startswith("#") else 10)


def check_mask_values(summary: Summary, values: str) -> None:
    """Raise ConfigError where one of the values of --mask-values occurs in no mask."""
    names = [name_of(value) for value in mask_values.parse(values)]
    if missing := [name for name in names if name not in summary.mask_values]:
        raise ConfigError(
            f"--mask-values {values}: no mask has the value {missing[0]}, give only values that "
            "the masks have"
        )


def check_splits(counts: Mapping[str, int]) -> None:
    """Raise BadDataError where a split has no films."""
    if empty := [split for split in SPLITS if not counts[split]]:
        films = ", ".join(f"{split} {counts[split]}" for split in SPLITS)
        raise BadDataError(
            f"the split {empty[0]} is empty ({films}): give more patients or a --split-file"
        )
