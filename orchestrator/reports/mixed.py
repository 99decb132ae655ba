"""Which differences of a table are between trials that were computed with different code, versions or devices."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from orchestrator.trials.computation import differences_text, find_differences
from orchestrator.trials.records import State, TrialRecord

MARK = "‡"
"""Stands beside such a difference."""

Mixture = Mapping[str, tuple[str, ...]]
"""In what trials differ, to what it is; see ``orchestrator.trials.computation.find_differences``."""


def find_mixture(records: Sequence[TrialRecord], baseline: Sequence[TrialRecord]) -> Mixture:
    """Return in what the trials of an arm differ from the baseline's of the same seeds; empty if in nothing."""
    done = {record.trial.seed: record.computation for record in baseline if record.state is State.DONE}
    pairs = ((record.computation, done.get(record.trial.seed)) for record in records if record.state is State.DONE)
    return merge_mixtures(
        find_differences((own, other)) for own, other in pairs if other is not None and own is not other
    )


def merge_mixtures(mixtures: Iterable[Mapping[str, Iterable[str]]]) -> Mixture:
    """Return all that some of the mixtures have, each once."""
    merged: dict[str, dict[str, None]] = {}
    for mixture in mixtures:
        for kind, texts in mixture.items():
            merged.setdefault(kind, {}).update(dict.fromkeys(texts))
    return {kind: tuple(texts) for kind, texts in merged.items()}


def mixture_note(mixtures: Iterable[Mixture]) -> str | None:
    """Return the sentence that says what is marked; None if nothing is."""
    merged = merge_mixtures(mixtures)
    if not merged:
        return None
    return (
        f"Differences marked {MARK} are between trials that were computed with different {differences_text(merged)}: "
        "they are not of the arm alone."
    )
