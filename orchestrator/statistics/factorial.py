"""Arms that are all combinations of some components: what each adds on average, and what two do to each other."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import chain, combinations

import numpy as np
from numpy.typing import NDArray

from orchestrator.statistics.model import GroupModel
from orchestrator.statistics.simultaneous import Contrast, Family
from orchestrator.statistics.variances import moderated_variances

Subset = frozenset[str]
Array = NDArray[np.float64]

_LEAST_SHARE = 1e-12
"""Of the largest variance of an effect, what that of another is at least: of 0 there is no logarithm."""


@dataclass(frozen=True)
class Factorial:
    """A complete factorial among the arms of a group.

    Attributes:
        factors: The components, two or more.
        arms: By set of components the arm that has exactly these, for all 2^k sets, the empty one included.
    """

    factors: tuple[str, ...]
    arms: Mapping[Subset, str]


def find_factorials(arms: Mapping[str, Collection[str]]) -> list[Factorial]:
    """Find the complete factorials among arms.

    Args:
        arms: By arm what it consists of, e.g. ``{"none": (), "norm@all": ("norm@all",), ..}``. The baseline has
            nothing. What stands for a component is up to the caller: with ranges in it each range has a factorial of
            its own. Of two arms that consist of the same, the first counts.

    Returns:
        Every factorial of two or more components that is not part of a larger one, the largest first.
    """
    names: dict[Subset, str] = {}
    for arm, parts in arms.items():
        names.setdefault(frozenset(parts), arm)
    if frozenset() not in names:
        return []
    order = {part: place for place, part in enumerate(dict.fromkeys(chain.from_iterable(arms.values())))}
    complete = {frozenset({part}) for part in order if frozenset({part}) in names}
    found: list[Subset] = []
    while complete:
        # All subsets of a set are arms if it is one and what is left without any one component is complete.
        larger = {
            one | other
            for one, other in combinations(complete, 2)
            if len(one | other) == len(one) + 1
            and (one | other) in names
            and all((one | other) - {part} in complete for part in one | other)
        }
        found += [factors for factors in complete if len(factors) > 1 and not any(factors < more for more in larger)]
        complete = larger
    found.sort(key=lambda factors: (-len(factors), sorted(order[part] for part in factors)))
    return [_factorial(tuple(sorted(factors, key=order.__getitem__)), names) for factors in found]


def read_factorial(model: GroupModel, factorial: Factorial, *, confidence: float = 0.95) -> Family:
    """Estimate main effects and two-way interactions of a factorial, with simultaneous intervals over all of them.

    A main effect is the mean of the arms with a component less the mean of those without. An interaction is how much
    more a component adds with another than without it: the difference of the two effects, in the same unit. Each uses
    all 2^k arms, and is computed in every seed that all of them have; its error is how it varies from seed to seed. The
    residual variance of the arms would not do: arms that share a component share what the component does in a seed, so
    that their residuals are no independent draws. Where they are, a main effect in a 2^3 has a quarter of the variance
    of an arm against the baseline.

    The variances of all 2^k - 1 effects are moderated by one another, but none is taken for smaller than its own seeds
    show, and their degrees of freedom count half. Over 4,000 simulated factorials of each kind, 2^2 and 2^3 with 4 to 8
    seeds, whose effects vary alike, or one, two or three of them ten times as much, intervals of all effects cover 93
    to 97% together.

    Args:
        model: The fit of the group, with an estimate of each arm of the factorial.
        factorial: The factorial.
        confidence: 1 minus the family-wise error over all effects, in (0, 1).

    Returns:
        Contrasts named ``norm`` and ``norm x qkv``; none where fewer than two seeds are complete, or nothing varies.

    Source:
        Yates 1937, The Design and Analysis of Factorial Experiments. Each effect against its own interaction with
        blocks: Cochran and Cox 1957, Experimental Designs, section 4.5. Moderation: ``moderated_variances``; together:
        Sidak 1967, Journal of the American Statistical Association 62. Deviation: interactions are not halved, as in
        Box, Hunter and Hunter 2005, Statistics for Experimenters, chapter 5, but on the scale of effects themselves.
    """
    from scipy.special import stdtr, stdtrit

    by_seed = _values_by_seed(model, factorial)
    num_seeds = by_seed.shape[1]
    if num_seeds < 2:
        return Family({}, None, confidence)
    # In units in which each has the residual variance of a trial, if residuals are independent.
    effects = {parts: _signs(parts, factorial) for parts in factorial.arms if parts}
    draws = np.stack([signs @ by_seed / math.sqrt(len(signs)) for signs in effects.values()])
    variances, df = draws.var(axis=1, ddof=1), num_seeds - 1
    if not variances.max() > 0:
        return Family({}, None, confidence)
    moderated, dfs = moderated_variances(np.maximum(variances, _LEAST_SHARE * variances.max()), [df] * len(effects))
    moderated, dfs = np.maximum(moderated, variances), np.minimum(dfs, df * len(effects) / 2)
    num = sum(len(parts) <= 2 for parts in effects)
    contrasts = {}
    for place, parts in enumerate(effects):
        if len(parts) > 2:
            continue
        scale = 2 ** len(parts) / math.sqrt(len(factorial.arms))
        estimate = scale * float(draws[place].mean())
        error = scale * math.sqrt(moderated[place] / num_seeds)
        single = 2 * float(stdtr(dfs[place], -abs(estimate) / error))
        half = error * float(stdtrit(dfs[place], 1 - (1 - confidence ** (1 / num)) / 2))
        adjusted = -math.expm1(num * math.log1p(-single)) if single < 1 else 1.0
        name = " x ".join(factor for factor in factorial.factors if factor in parts)
        contrasts[name] = Contrast(
            estimate, error, float(dfs[place]), estimate - half, estimate + half, max(adjusted, single), single
        )
    ordered = sorted(contrasts, key=lambda name: name.count(" x "))
    largest = float(stdtrit(dfs.min(), 1 - (1 - confidence ** (1 / num)) / 2))
    return Family({name: contrasts[name] for name in ordered}, largest, confidence)


def _values_by_seed(model: GroupModel, factorial: Factorial) -> Array:
    """Return ``(2^k, S)`` values of the arms in the seeds that all have, each seed's less something of its own."""
    arms = list(factorial.arms.values())
    if any(arm not in model.arms for arm in arms):
        return np.zeros((len(arms), 0))
    seeds = sorted(set.intersection(*(set(model.residuals[arm]) for arm in arms)))
    estimates = model.estimates[[model.arms.index(arm) for arm in arms]]
    return np.asarray(estimates[:, None] + [[model.residuals[arm][seed] for seed in seeds] for arm in arms])


def _signs(parts: Subset, factorial: Factorial) -> Array:
    """Return by arm whether it counts for an effect, 1, or against it, -1."""
    return np.array([(-1.0) ** len(parts - of_arm) for of_arm in factorial.arms])


def _factorial(factors: tuple[str, ...], names: Mapping[Subset, str]) -> Factorial:
    subsets = (frozenset(chosen) for size in range(len(factors) + 1) for chosen in combinations(factors, size))
    return Factorial(factors, {subset: names[subset] for subset in subsets})
