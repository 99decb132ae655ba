"""What a table says, in sentences: one for each kind of verdict, above the table."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.reports.ablation_table import AblationTable, ArmRow
from orchestrator.reports.comparisons import Difference
from orchestrator.reports.formatting import decimals, describe
from orchestrator.statistics import Verdict
from orchestrator.trials.trial import Role
from specvit.messages import one_line

_MOST_NAMED = 3
"""Arms of one verdict that a sentence names, each with its numbers; of more it says how many."""


def sentences_of(table: AblationTable) -> list[str]:
    """Return what a table says of its primary metric, a sentence for each verdict; none without an arm to compare."""
    comparison = table.comparisons.get(table.primary)
    rows = [row for row in table.rows if row.role is Role.ARM]
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
    num_seeds = [difference.n for each in by_verdict.values() for _, difference in each]
    scope = _scope(len(num_seeds), num_seeds)
    sentences = []
    for verdict, verb in ((Verdict.BETTER, "better"), (Verdict.WORSE, "worse")):
        arms = by_verdict[verdict]
        if arms:
            texts = [_with_interval(row, difference, digits) for row, difference in arms[:_MOST_NAMED]]
            more = f" and {len(arms) - _MOST_NAMED} more" if len(arms) > _MOST_NAMED else ""
            sentences.append(f"{name} is {verb} with {_listed(texts)}{more}{scope}.")
            scope = ""
    if equivalent := by_verdict[Verdict.EQUIVALENT]:
        bound = f"{table.smallest_effect:g}"
        change = "change" if len(equivalent) > 1 else "changes"
        sentences.append(f"{_names(equivalent)} {change} {name} by less than {bound} in either direction{scope}.")
        scope = ""
    if undecided := by_verdict[Verdict.UNDECIDED]:
        sentences.append(_undecided(undecided, len(num_seeds), name, comparison.detectable, digits) + f"{scope}.")
    return sentences


def _undecided(
    arms: Sequence[tuple[ArmRow, Difference]], num_arms: int, name: str, detectable: float | None, digits: int
) -> str:
    if len(arms) == num_arms:
        who = "No arm is found to differ from the baseline" if num_arms > 1 else f"{_names(arms)} is undecided"
        who += f" in {name}"
    else:
        who = f"{_names(arms)} {'are' if len(arms) > 1 else 'is'} undecided"
    if detectable is not None:
        who += f": differences under {detectable:.{digits}f} could not have been seen"
    more = [difference.more_seeds for _, difference in arms if difference.more_seeds is not None]
    if more:
        who += f"; {min(more)} more seed{'s' * (min(more) != 1)} would decide the nearest, if it stayed as it is"
    return who


def _scope(num_arms: int, num_seeds: Sequence[int]) -> str:
    if not num_seeds:
        return ""
    low, high = min(num_seeds), max(num_seeds)
    seeds = f"{low}" if low == high else f"{low} to {high}"
    return f" ({num_arms} arm{'s' * (num_arms != 1)}, {seeds} seed{'s' * (high != 1)})"


def _with_interval(row: ArmRow, difference: Difference, digits: int) -> str:
    mean, low, high = (
        f"{0.0 if value is None else value:+z.{digits}f}" for value in (difference.mean, difference.low, difference.high)
    )
    return f"{one_line(row.arm)}: {mean} [{low}, {high}]"


def _names(arms: Sequence[tuple[ArmRow, Difference]]) -> str:
    if len(arms) > _MOST_NAMED:
        return f"{len(arms)} arms"
    return _listed([one_line(row.arm) for row, _ in arms])


def _listed(texts: Sequence[str]) -> str:
    return ", ".join(texts[:-1]) + (" and " if len(texts) > 1 else "") + texts[-1]
