"""The factorial reading as text: a sentence above the table of arms, and what the table of effects below it holds."""

from __future__ import annotations

from orchestrator.reports.ablation_table import AblationTable
from orchestrator.reports.factorial import Effect, Estimate, FactorialReading
from orchestrator.reports.rendering.formatting import decimals, describe, format_change, list_texts
from orchestrator.statistics import Verdict
from specvit.messages import one_line

_MOST_NAMED = 3
"""Undecided effects that a sentence names; of more it says how many."""


def factorial_sentences(table: AblationTable) -> list[str]:
    """Return what each factorial says of the primary metric, a sentence each; none where verdicts are not given."""
    comparison = table.comparisons.get(table.primary)
    if comparison is None or comparison.missing is not None:
        return []
    return [
        _sentence(reading, table.primary, table.smallest_effect)
        for reading in table.factorials
        if any(table.primary in effect.metrics for effect in reading.effects)
    ]


def factorial_title(reading: FactorialReading) -> str:
    """Return the heading of a table of effects."""
    shared = f", all {one_line(reading.shared)}" if reading.shared else ""
    return f"Effects over the {len(reading.arms)} combinations of {list_texts(reading.factors)}{shared}"


def factorial_metrics(table: AblationTable, reading: FactorialReading) -> list[str]:
    """Return the metrics in which a factorial has effects, in the order of the table's columns."""
    return [name for name in table.metrics if any(name in effect.metrics for effect in reading.effects)]


def effect_text(effect: Effect, name: str) -> str:
    """Return an effect in one metric with its interval; empty if there is none."""
    estimate, digits = effect.metrics.get(name), decimals(name)
    if estimate is None:
        return ""
    return format_change(estimate.mean, estimate.low, estimate.high, digits)


def effect_verdict(effect: Effect, name: str) -> str:
    """Return the verdict on an effect, of the primary metric; empty of others."""
    estimate = effect.metrics.get(name)
    return "" if estimate is None or estimate.verdict is None else str(estimate.verdict)


def is_decided_effect(effect: Effect, name: str) -> bool:
    """Return whether the verdict is better or worse."""
    return effect_verdict(effect, name) in (Verdict.BETTER, Verdict.WORSE)


FACTORIAL_NOTE = (
    "Effects: of a component the mean of the arms with it less that of the arms without it, over all combinations of "
    "the others; of two (x) how much more one adds with the other than without it. 95% intervals, by how "
    "each varies over the seeds, simultaneous over the effects of a table. Pruned arms and no-ops are in none."
)
"""Stands below tables of effects."""


def _sentence(reading: FactorialReading, name: str, smallest_effect: float | None) -> str:
    title, digits = describe(name).title, decimals(name)
    found = [(effect, effect.metrics[name]) for effect in reading.effects if name in effect.metrics]
    decided = [
        _clause(effect, estimate, title, digits, smallest_effect)
        for effect, estimate in found
        if estimate.verdict is not Verdict.UNDECIDED
    ]
    undecided = [effect.name for effect, estimate in found if estimate.verdict is Verdict.UNDECIDED]
    if undecided and not decided:
        decided = [f"no effect on {title} is found"]
    elif undecided:
        names = list_texts(undecided) if len(undecided) <= _MOST_NAMED else f"{len(undecided)} effects"
        decided.append(f"{names} {'are' if len(undecided) > 1 else 'is'} undecided")
    shared = f", all {one_line(reading.shared)}" if reading.shared else ""
    seeds = f"{reading.num_seeds} seed{'s' * (reading.num_seeds != 1)}"
    scope = f"Over all combinations of {list_texts(reading.factors)} ({len(reading.arms)} arms{shared}, {seeds})"
    return f"{scope}: {'; '.join(decided)}."


def _clause(effect: Effect, estimate: Estimate, title: str, digits: int, smallest_effect: float | None) -> str:
    """Return what is known of an effect, which is decided or equivalent."""
    both = list_texts(effect.factors)
    if estimate.verdict is Verdict.EQUIVALENT:
        bound = f"{smallest_effect:g}"
        if effect.is_interaction:
            return f"{both} add up in {title} to within {bound}"
        return f"{both} changes {title} by less than {bound}"
    sign = 1 if estimate.mean > 0 else -1
    low, high = sorted((sign * estimate.low, sign * estimate.high))
    size = format_change(abs(estimate.mean), low, high, digits, sign="-")
    if effect.is_interaction:
        return f"{both} together give {size} {'more' if sign > 0 else 'less'} {title} than the sum of the two"
    return f"{both} {'raises' if sign > 0 else 'lowers'} {title} by {size} over the other components"
