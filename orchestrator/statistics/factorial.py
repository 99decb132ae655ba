"""Arms that are all combinations of some components: what each adds on average, and what two do to each other."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import chain, combinations

from orchestrator.statistics.model import GroupModel
from orchestrator.statistics.simultaneous import Family, simultaneous

Subset = frozenset[str]


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
    all 2^k arms: in a 2^3 a main effect has a quarter of the variance of an arm against the baseline.

    Args:
        model: The fit of the group, with an estimate of each arm of the factorial.
        factorial: The factorial.
        confidence: 1 minus the family-wise error over all effects, in (0, 1).

    Returns:
        Contrasts named ``norm`` and ``norm x qkv``; none where an arm has no estimate.

    Source:
        Yates 1937, The Design and Analysis of Factorial Experiments. Deviation: interactions are not halved, as in Box,
        Hunter and Hunter 2005, Statistics for Experimenters, chapter 5, but on the scale of the effects themselves.
    """
    if any(arm not in model.arms for arm in factorial.arms.values()):
        return Family({}, None, confidence)
    half = len(factorial.arms) / 2
    weights = {}
    for factor in factorial.factors:
        weights[factor] = {arm: (1 if factor in parts else -1) / half for parts, arm in factorial.arms.items()}
    for one, other in combinations(factorial.factors, 2):
        weights[f"{one} x {other}"] = {
            arm: (1 if (one in parts) == (other in parts) else -1) * 2 / half for parts, arm in factorial.arms.items()
        }
    return simultaneous(model, weights, confidence=confidence)


def _factorial(factors: tuple[str, ...], names: Mapping[Subset, str]) -> Factorial:
    subsets = (frozenset(chosen) for size in range(len(factors) + 1) for chosen in combinations(factors, size))
    return Factorial(factors, {subset: names[subset] for subset in subsets})
