"""What the names of a source's files are: films, their masks, and what was left out."""

from __future__ import annotations

from dataclasses import dataclass, field

# (index of the source, name in the source)
Member = tuple[int, str]

# Public sets whose names hold the patient and, in the last digit, the label.
FAMILY_SOURCES = {"MCUCXR": "montgomery", "CHNCXR": "shenzhen", "PHANTOM": "phantoms"}

# Names listed in a line of the log.
NAMED = 10


@dataclass(frozen=True)
class FilmFiles:
    """One film and its masks, keyed left, right or lungs.

    `id` is safe in file names and S3 keys; `source` is montgomery, shenzhen, phantoms or custom;
    `label` is normal, abnormal or unknown.
    """

    id: str
    patient: str
    source: str
    label: str
    film: Member
    masks: dict[str, Member]

    @property
    def is_family(self) -> bool:
        """Whether the film is of a set whose names hold the patient and the label."""
        return self.source in FAMILY_SOURCES.values()


@dataclass(frozen=True)
class Catalogue:
    """What the names of all sources are; each name counts exactly once.

    Attributes:
        films: sorted by id.
        layouts: number of films by layout.
        without_mask, one_lung: ids of films without a mask, with the mask of one lung only.
        masks_without_film: names.
        copies: (first file, another file) of the same film, or of the same mask of a film.
        ignored: number of names by reason.
    """

    films: list[FilmFiles] = field(default_factory=list)
    layouts: dict[str, int] = field(default_factory=dict)
    without_mask: list[str] = field(default_factory=list)
    one_lung: list[str] = field(default_factory=list)
    masks_without_film: list[str] = field(default_factory=list)
    copies: list[tuple[Member, Member]] = field(default_factory=list)
    ignored: dict[str, int] = field(default_factory=dict)


def describe(catalogue: Catalogue) -> list[str]:
    """The catalogue in lines for the log."""
    layouts = ", ".join(f"{layout} {n}" for layout, n in sorted(catalogue.layouts.items()))
    pairs = len(catalogue.films) - len(catalogue.without_mask)
    lines = [
        f"films: {len(catalogue.films)} ({layouts or 'no layout known'}), with a mask: {pairs}"
    ]
    for title, names in (
        ("films without a mask", catalogue.without_mask),
        ("films with one lung's mask only", catalogue.one_lung),
        ("masks without a film", catalogue.masks_without_film),
    ):
        if names:
            more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
            lines.append(f"{title}: {len(names)} ({', '.join(names[:NAMED])}{more})")
    if catalogue.copies:
        lines.append(f"files that repeat a film or mask: {len(catalogue.copies)}")
    if catalogue.ignored:
        reasons = ", ".join(f"{reason} {n}" for reason, n in sorted(catalogue.ignored.items()))
        lines.append(f"files ignored: {sum(catalogue.ignored.values())} ({reasons})")
    return lines
