"""The champion rule: from the scores of two models to the decision, and why it is so."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from jobs.models.contest_films import DIGITS, Comparison


@dataclass(frozen=True)
class Decision:
    """What became of the champion: `outcome` is first, replaced, kept, none or restored.

    `version` is the champion after the decision. `val_dice` and `champion_dice` are mean Dice over
    all validation films of this run; `champion_dice` is None where there was no other version.

    compared: both models on each set of films that decided.
    missing: why the champion's validation films could not be read.
    forced: the reason that a person gave for forcing it. by: who went back to the version.
    starter: whether the starter was in the place of a champion; `version` is its own if it stays.
    seen: validation films that did not count, as they look like those of an earlier training.
    """

    outcome: str
    reason: str
    version: str | None
    val_dice: float
    champion_dice: float | None
    min_dice: float
    compared: list[Comparison] = field(default_factory=list)
    missing: str = ""
    forced: str = ""
    by: str = ""
    starter: bool = False
    seen: int = 0

    @staticmethod
    def of(entry: dict[str, Any]) -> Decision:
        """The decision of champion.json; one of version 0.1.0 has fewer fields."""
        known = {item.name: entry[item.name] for item in fields(Decision) if item.name in entry}
        compared = [Comparison(**comparison) for comparison in known.get("compared", [])]
        return Decision(**{**known, "compared": compared})


@dataclass(frozen=True)
class Scores:
    """The figures of a contest: of `Decision`, with the reasons why the challenger cannot win.

    unlike_lungs: what is wrong with the truth masks, a sentence, or "".
    """

    val_dice: float
    champion_dice: float | None = None
    own: Comparison | None = None
    champions: Comparison | None = None
    missing: str = ""
    set_aside: bool = False
    unlike_lungs: str = ""
    starter: bool = False
    seen: int = 0


def decide(
    challenger: str, champion: str | None, scores: Scores, min_dice: float, forced: str = ""
) -> Decision:
    """The champion rule, on versions and their scores; `forced` is the reason to skip the rule.

    `champion` is the starter's version where `scores.starter`.
    """
    compared = [item for item in (scores.own, scores.champions) if item]

    def decision(outcome: str, version: str | None, reason: str) -> Decision:
        return Decision(
            outcome=outcome,
            reason=reason,
            version=version,
            val_dice=scores.val_dice,
            champion_dice=scores.champion_dice,
            min_dice=min_dice,
            compared=compared,
            missing=scores.missing,
            forced=forced,
            starter=scores.starter,
            seen=scores.seen,
        )

    won = "replaced" if champion and not scores.starter else "first"
    score = f"Validation Dice {scores.val_dice:.{DIGITS}f}"
    if champion == challenger:
        return decision("kept", champion, "This version is the champion already.")
    if forced:
        return decision(won, challenger, f"Forced, whatever the scores: {forced.rstrip('.')}.")
    if scores.unlike_lungs:
        return decision("kept" if champion else "none", champion, scores.unlike_lungs)
    if scores.val_dice < min_dice:
        reason = f"{score} is below the minimum of {min_dice:g}."
        return decision("kept" if champion else "none", champion, reason)
    if not champion:
        reason = f"{score} reaches the minimum of {min_dice:g}, and there was no champion."
        return decision("first", challenger, reason)
    if scores.set_aside:
        reason = "This version was the champion until someone went back to an earlier one."
        return decision("kept", champion, reason)
    wins, reason = _contest(scores.own, scores.champions, scores.starter)
    return decision(won if wins else "kept", challenger if wins else champion, reason)


def _contest(
    own: Comparison | None, champions: Comparison | None, is_starter: bool
) -> tuple[bool, str]:
    """(whether the challenger wins, the sentence that says why)."""
    incumbent, former = ("starter",) * 2 if is_starter else ("champion", "former champion")
    if own and not own.is_better():
        return False, f"It does not beat the {incumbent}: Dice {own}."
    if own and champions and champions.is_worse():
        return False, f"It beats the champion on its own films, but is worse: Dice {champions}."
    if own:
        also = f", and it is not worse: {champions}" if champions else ""
        return True, f"It beats the {former}: Dice {own}{also}."
    if champions and champions.is_surely_better():
        return True, f"It beats the former champion beyond chance: Dice {champions}."
    if champions:
        reason = "has no validation films of people, and does not beat the champion beyond chance"
        return False, f"It {reason}: Dice {champions}."
    return (
        False,
        f"There are no validation films of people to compare it with the {incumbent} on.",
    )
