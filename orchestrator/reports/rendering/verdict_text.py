"""What a table says, in sentences: one for each kind of verdict, above the table."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.reports.ablation_table import AblationTable, ArmRow
from orchestrator.reports.comparisons import Difference
from orchestrator.reports.rendering.factorial_text import factorial_sentences
from orchestrator.reports.rendering.formatting import decimals, describe, format_change, format_size, list_texts
from orchestrator.statistics import LEAST_SEEDS, Verdict
from orchestrator.trials.trial import REPEAT, Role
from specvit.messages import one_line

_MOST_NAMED = 3
"""Arms of one verdict that a sentence names, each with its numbers; of more it says how many."""

_ALARMS = {
    True: "distrust this table's intervals",
    False: "own weights of any token may do what those of [CLS] do, or this table's intervals are too narrow",
}
"""What a control that differs means: the repeat, and others."""


def sentences_of(table: AblationTable) -> list[str]:
    """Return what a table says of its primary metric; nothing without an arm to compare.

    A sentence for each verdict on arms, one on no-ops, one for each factorial, and what the controls show.
    """
    no_ops = [row for row in table.every_row if row.is_no_op]
    verb = "are no-ops" if len(no_ops) > 1 else "is a no-op"
    return [
        *_sentences_on_arms(table),
        *([f"{_texts(no_ops)} {verb}: equal to the baseline in every metric and seed."] if no_ops else []),
        *factorial_sentences(table),
        *_sentences_on_controls(table),
    ]


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
            seen = f": differences under {format_size(table.primary, comparison.detectable)} could not have been seen"
        sentences.append(f"{who} ({scope}){seen}.{_more_seeds(undecided)}")
    return sentences


def _sentences_on_controls(table: AblationTable) -> list[str]:
    """Return whether the controls are undecided or equivalent, as they must be, and a warning of each that is not."""
    comparison = table.comparisons.get(table.primary)
    if comparison is None or comparison.missing is not None:
        return []
    name, digits = describe(table.primary).title, decimals(table.primary)
    calm: dict[Verdict, list[ArmRow]] = {}
    warnings, waiting = [], []
    for row in table.every_row:
        difference = row.metrics[table.primary].difference
        if row.role is not Role.CONTROL:
            continue
        if difference is None or difference.verdict is None or difference.low is None or difference.n < LEAST_SEEDS:
            waiting.append(row)
        elif difference.verdict in (Verdict.UNDECIDED, Verdict.EQUIVALENT):
            calm.setdefault(difference.verdict, []).append(row)
        else:
            by = format_change(difference.mean or 0.0, difference.low, difference.high, digits)
            found = f"Control {one_line(row.arm)} is found to differ from the baseline in {name} by {by}"
            warnings.append(f"{found}: {_ALARMS[row.arm == REPEAT]}.")
    sentences = []
    if calm:
        parts = [f"{_texts(rows)} {'are' if len(rows) > 1 else 'is'} {verdict}" for verdict, rows in calm.items()]
        num = sum(map(len, calm.values()))
        start = "The control does as it must" if num == 1 else "The controls do as they must"
        sentences.append(f"{start}: {' and '.join(parts)}.")
    if waiting:
        sentences.append(f"No verdict yet on the control{'s' * (len(waiting) > 1)} {_texts(waiting)}.")
    return [*sentences, *warnings]


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
    return f"{one_line(row.arm)}: {format_change(difference.mean or 0.0, difference.low, difference.high, digits)}"


def _names(arms: Sequence[tuple[ArmRow, Difference]]) -> str:
    return _texts([row for row, _ in arms])


def _texts(rows: Sequence[ArmRow]) -> str:
    if len(rows) > _MOST_NAMED:
        return f"{len(rows)} arms"
    return list_texts([one_line(row.arm) for row in rows])
