"""What a table says, in sentences: one for each kind of verdict, above the table."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.reports.ablation_table import AblationTable, ArmRow
from orchestrator.reports.comparisons import Difference
from orchestrator.reports.rendering.factorial_text import factorial_sentences
from orchestrator.reports.rendering.formatting import decimals, describe, list_texts
from orchestrator.statistics import Verdict
from orchestrator.trials.trial import Role
from specvit.messages import one_line

_MOST_NAMED = 3
"""Arms of one verdict that a sentence names, each with its numbers; of more it says how many."""


def sentences_of(table: AblationTable) -> list[str]:
    """Return what a table says of its primary metric; nothing without an arm to compare.

    A sentence for each verdict on arms, and one for each factorial that they hold.
    """
    return [*_sentences_on_arms(table), *factorial_sentences(table)]


def _sentences_on_arms(table: AblationTable) -> list[str]:
    comparison = table.comparisons.get(table.primary)
    rows = [row for row in table.every_row if row.role is Role.ARM]
    if comparison is None or not rows:
        return []
    name, digits = describe(table.primary).title, decimals(table.primary)
    if comparison.missing is not None:
        return [f"No verdict on {name}: {comparison.missing}."]
    found = [(row, row.metrics[table.primary].difference) for row in rows]
    by_verdict: dict[Verdict, list[tuple[ArmRow, Difference]]] = {verdict: [] for verdict in Verdict}
    for row, difference in found:
        if difference is not None and difference.verdict is not None:
            by_verdict[difference.verdict].append((row, difference))
    compared = [difference for each in by_verdict.values() for _, difference in each]
    scope = _scope(compared)
    sentences = []
    for verdict, word in ((Verdict.BETTER, "better"), (Verdict.WORSE, "worse")):
        if arms := by_verdict[verdict]:
            texts = [_with_interval(row, difference, digits) for row, difference in arms[:_MOST_NAMED]]
            more = f" and {len(arms) - _MOST_NAMED} more" if len(arms) > _MOST_NAMED else ""
            sentences.append(f"{name} is {word} with {list_texts(texts)}{more} ({scope}).")
    if equivalent := by_verdict[Verdict.EQUIVALENT]:
        verb = "change" if len(equivalent) > 1 else "changes"
        sentences.append(f"{_names(equivalent)} {verb} {name} by less than {table.smallest_effect:g} ({scope}).")
    if undecided := by_verdict[Verdict.UNDECIDED]:
        who = f"{_names(undecided)} {'are' if len(undecided) > 1 else 'is'} undecided"
        if len(undecided) == len(compared) > 1:
            who = f"No arm is found to differ from the baseline in {name}"
        seen = ""
        if comparison.detectable is not None and table.growth is None:
            seen = f": differences under {comparison.detectable:.{digits}f} could not have been seen"
        sentences.append(f"{who} ({scope}){seen}.{_more_seeds(undecided)}")
    return sentences


def _more_seeds(undecided: Sequence[tuple[ArmRow, Difference]]) -> str:
    more = [difference.more_seeds for _, difference in undecided if difference.more_seeds is not None]
    if not more:
        return ""
    return f" {min(more)} more seed{'s' * (min(more) != 1)} would decide the nearest one, if it stayed as it is."


def _scope(compared: Sequence[Difference]) -> str:
    low, high = (pick(difference.n for difference in compared) for pick in (min, max))
    seeds = f"{low}" if low == high else f"{low} to {high}"
    return f"{len(compared)} arm{'s' * (len(compared) != 1)}, {seeds} seed{'s' * (high != 1)}"


def _with_interval(row: ArmRow, difference: Difference, digits: int) -> str:
    """Return an arm with its difference and interval, which a verdict always has."""
    numbers = (0.0 if value is None else value for value in (difference.mean, difference.low, difference.high))
    mean, low, high = (f"{value:+z.{digits}f}" for value in numbers)
    return f"{one_line(row.arm)}: {mean} [{low}, {high}]"


def _names(arms: Sequence[tuple[ArmRow, Difference]]) -> str:
    if len(arms) > _MOST_NAMED:
        return f"{len(arms)} arms"
    return list_texts([one_line(row.arm) for row, _ in arms])
