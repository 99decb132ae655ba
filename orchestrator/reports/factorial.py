"""The factorial reading of a group: what each component adds on average over the others, and what two do together.

Where the arms of a group are all combinations of some components, every arm says something of every one of them: in a
2^3 a main effect has a quarter of the variance of an arm against the baseline.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations, product

from orchestrator.reports.comparisons import BASELINE, GroupComparison
from orchestrator.statistics import Contrast, Factorial, Verdict, find_factorials, judge, read_factorial
from orchestrator.trials.records import TrialRecord
from orchestrator.trials.trial import Role, TrialInfo
from specvit.errors import ConfigError
from specvit.probes import METRICS
from specvit.specialization.components import ALIASES
from specvit.specialization.language import Term, read_terms
from specvit.specialization.modes import Mode

Terms = tuple[Term, ...]

_ARM = re.compile(r"(?P<places>\S+)(?: \((?P<remarks>.*)\))?")
_HALVES = ("first-half", "last-half")


@dataclass(frozen=True)
class Estimate:
    """An effect in one metric.

    Attributes:
        mean: Its estimate, in the unit of the metric.
        low: Lower end of its 95% interval, simultaneous over the effects of the factorial.
        high: Upper end, likewise.
        p_value: p of the hypothesis that there is none, adjusted for the effects of the factorial.
        verdict: What the interval says; of the primary metric alone.
    """

    mean: float
    low: float
    high: float
    p_value: float
    verdict: Verdict | None


@dataclass(frozen=True)
class Effect:
    """What one component does on average over the others, or how much more one adds with another than without it.

    Attributes:
        name: ``norm@all``, or ``norm@all x qkv@all``.
        factors: The one component or the two.
        metrics: Name of a metric to the effect in it; metrics that arms lack are absent.
    """

    name: str
    factors: tuple[str, ...]
    metrics: Mapping[str, Estimate]

    @property
    def is_interaction(self) -> bool:
        """Return whether it is of two components."""
        return len(self.factors) == 2


@dataclass(frozen=True)
class FactorialReading:
    """A complete factorial among the arms of a group.

    Attributes:
        factors: Its components with their places, e.g. ``norm@all``, two or more.
        shared: What its arms have in common beside, e.g. ``placebo``; empty = nothing.
        arms: Texts of its 2^k arms, the baseline among them.
        num_seeds: Seeds that they have, in the metric and arm with the fewest.
        effects: The main effects, then the interactions.
    """

    factors: tuple[str, ...]
    shared: str
    arms: tuple[str, ...]
    num_seeds: int
    effects: tuple[Effect, ...]


def read_factorials(
    arms: Mapping[str, Sequence[TrialRecord]], compared: GroupComparison
) -> tuple[FactorialReading, ...]:
    """Read the factorials that the arms of a group hold.

    Pruned arms are left out, for their survivors flatter them, and so are arms that change nothing: their values are
    the baseline's own, which would count twice as if they had been drawn twice. Neither is in the group's model.

    Args:
        arms: Arm id to its trials, all of one group, as in ``compare_group``.
        compared: What the comparison of these arms has found; its models are read.

    Returns:
        The factorials of two or more components that are no part of a larger one, with an effect in some metric.
    """
    first = compared.by_metric.get(compared.primary) or next(iter(compared.by_metric.values()), None)
    if first is None or len(first.model.arms) < 4:
        return ()
    baseline = next(records[0].trial for records in arms.values() if records[0].trial.role is Role.BASELINE)
    trials = {BASELINE: baseline} | {arm: arms[arm][0].trial for arm in first.model.arms if arm != BASELINE}
    readings = (_read(found, shared, trials, compared) for found, shared in _factorials(trials))
    return tuple(reading for reading in readings if any(effect.metrics for effect in reading.effects))


def _read(
    factorial: Factorial, shared: str, trials: Mapping[str, TrialInfo], compared: GroupComparison
) -> FactorialReading:
    names = [(factor,) for factor in factorial.factors] + list(combinations(factorial.factors, 2))
    metrics: dict[str, dict[str, Estimate]] = {" x ".join(factors): {} for factors in names}
    counts = []
    for metric, comparison in compared.by_metric.items():
        contrasts = read_factorial(comparison.model, factorial).contrasts
        if not contrasts:
            continue
        counts.append(min(comparison.model.num_seeds[arm] for arm in factorial.arms.values()))
        effect = compared.smallest_effect if metric == compared.primary else None
        for name, contrast in contrasts.items():
            estimate = _estimate(contrast, metric, counts[-1], effect, is_primary=metric == compared.primary)
            metrics[name][metric] = estimate
    return FactorialReading(
        factors=factorial.factors,
        shared=shared,
        arms=tuple(trials[arm].arm for arm in factorial.arms.values()),
        num_seeds=min(counts, default=0),
        effects=tuple(Effect(" x ".join(factors), factors, metrics[" x ".join(factors)]) for factors in names),
    )


def _estimate(
    contrast: Contrast, metric: str, num_seeds: int, smallest_effect: float | None, *, is_primary: bool
) -> Estimate:
    higher = METRICS[metric].higher_is_better if metric in METRICS else True
    found = judge(
        contrast.low, contrast.high, num_seeds=num_seeds, higher_is_better=higher, smallest_effect=smallest_effect
    )
    verdict = found if is_primary else None
    return Estimate(contrast.estimate, contrast.low, contrast.high, contrast.p_value, verdict)


def _factorials(trials: Mapping[str, TrialInfo]) -> list[tuple[Factorial, str]]:
    """Find the factorials among arms, each with what its arms share beside; of each family the largest first."""
    found: list[tuple[Factorial, str]] = []
    # Texts leave open whether ``paper`` owns layer scales, and whether the halves of a range are all of it: each way
    # is tried, and parameters tell which one is right.
    for layer_scale, splits in product((False, True), (False, True)):
        for shared, family in _families(trials, layer_scale=layer_scale):
            parts = _split(family) if splits else family
            names = {BASELINE: ()} | {arm: tuple(term.text for term in terms) for arm, terms in parts.items()}
            found += [(each, shared) for each in find_factorials(names) if _adds_up(each, trials)]
    arms = [frozenset(each.arms.values()) for each, _ in found]
    return [
        pair for place, pair in enumerate(found)
        if arms[place] not in arms[:place] and not any(arms[place] < other for other in arms)
    ]


def _families(trials: Mapping[str, TrialInfo], *, layer_scale: bool) -> list[tuple[str, dict[str, Terms]]]:
    """Return the terms of arms, those together that share one mode and the remarks of their texts, and the remarks."""
    families: dict[tuple[str, Mode], dict[str, Terms]] = {}
    for arm, trial in trials.items():
        terms, remarks = _terms_of(trial.arm, layer_scale=layer_scale)
        if trial.role is Role.ARM and len({term.mode for term in terms}) == 1:
            families.setdefault((remarks, terms[0].mode), {})[arm] = terms
    return [(remarks, family) for (remarks, _), family in families.items()]


@lru_cache(maxsize=4096)
def _terms_of(text: str, *, layer_scale: bool) -> tuple[Terms, str]:
    """Return the terms of an arm's text and its remarks; no terms where it is no specialization."""
    match = _ARM.fullmatch(text)
    if match is None:
        return (), ""
    try:
        return read_terms(match["places"], layer_scale=layer_scale), match["remarks"] or ""
    except ConfigError:
        return (), ""


def _split(family: Mapping[str, Terms]) -> dict[str, Terms]:
    """Write as its parts what other arms have a part of: ``norm`` as ``norm1`` and ``norm2``, ``all`` as its halves."""
    known = {term for terms in family.values() for term in terms}
    return {arm: tuple(part for term in terms for part in _parts(term, known)) for arm, terms in family.items()}


def _parts(term: Term, known: set[Term]) -> Iterator[Term]:
    members = [Term(member, term.mode, term.blocks) for member in ALIASES.get(term.name, ())]
    halves = [Term(term.name, term.mode, half) for half in _HALVES] if term.blocks == "all" else []
    if any(member in known for member in members):
        for member in members:
            yield from _parts(member, known)
    elif halves and all(half in known for half in halves):
        yield from halves
    else:
        yield term


def _adds_up(factorial: Factorial, trials: Mapping[str, TrialInfo]) -> bool:
    """Return whether every arm has the parameters of its components, and so no place that its text does not say."""
    own = {parts: trials[arm].num_parameters - trials[BASELINE].num_parameters for parts, arm in factorial.arms.items()}
    return all(own[parts] == sum(own[frozenset({part})] for part in parts) for parts in own)
