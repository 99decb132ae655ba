"""Across groups: whether an arm does in one group what it does in another, and what it does over all of them.

Of the primary metric alone. Arms are the same where their text is; each group is compared with the first one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.reports.ablation_table import AblationTable
from orchestrator.reports.comparisons import BASELINE
from orchestrator.statistics import (
    LEAST_SEEDS,
    CombinedEffect,
    Contrast,
    Variances,
    by_own_variances,
    combine_effects,
    difference_of_differences,
    differences_of_means,
    fit_group,
)
from orchestrator.trials.trial import Role

ERROR = 0.05
"""Chance that some of the intervals that hold together misses what it estimates."""

Values = Mapping[str, Mapping[int, float]]


@dataclass(frozen=True)
class Change:
    """How much larger something is in a group than in the first one.

    Attributes:
        n: Seeds that it rests on: of the group that has fewer.
        mean: Its estimate; None if there is none.
        low: Lower end of its 95% interval; None if there is none.
        high: Upper end of it.
        p_value: p of the hypothesis that there is none, adjusted like the interval; None likewise.
    """

    n: int
    mean: float | None = None
    low: float | None = None
    high: float | None = None
    p_value: float | None = None

    @property
    def is_found(self) -> bool:
        """Return whether the interval excludes 0, and rests on as many seeds as a verdict takes."""
        if self.n < LEAST_SEEDS or self.low is None or self.high is None:
            return False
        return not self.low <= 0 <= self.high


@dataclass(frozen=True)
class ArmAcross:
    """An arm that several groups have.

    Attributes:
        arm: Its text; of the baseline that of the first group's.
        role: Baseline or arm.
        changes: Group to the change of its difference to the baseline, simultaneous over arms and groups; of the
            baseline to that of its mean, each by itself.
        combined: Its difference to the baseline over all groups that have it; None of the baseline, and where there is
            none.
    """

    arm: str
    role: Role
    changes: Mapping[str, Change]
    combined: CombinedEffect | None = None


@dataclass(frozen=True)
class Interactions:
    """What is found across the groups of a sweep.

    Attributes:
        metric: Name of the primary metric.
        first: The group that the others are compared with.
        others: These, in the order of the sweep.
        rows: The baseline, then the arms in the order of the tables.
        detectable: Other group to the change of an arm's difference that would have been found in it with 80%
            probability; only those of which it is known.
        is_grown: Whether seeds grew by looks, which these intervals take no account of.
        shown: Texts of the arms that the tables show; None = all.
    """

    metric: str
    first: str
    others: tuple[str, ...]
    rows: tuple[ArmAcross, ...]
    detectable: Mapping[str, float]
    is_grown: bool = False
    shown: frozenset[str] | None = None

    @property
    def shown_rows(self) -> tuple[ArmAcross, ...]:
        """Return the rows of arms that the tables show."""
        return tuple(row for row in self.rows if self.shown is None or row.arm in self.shown)


def compare_groups(tables: Mapping[str, AblationTable]) -> Interactions | None:
    """Compare the groups of a sweep.

    Args:
        tables: Group to its table, from ``build_tables``.

    Returns:
        What is found; None where nothing can be told: with one group, or with one seed.
    """
    groups = {group: table.compared for group, table in tables.items() if table.compared.get(BASELINE)}
    if len(groups) < 2:
        return None
    first, *others = groups
    variances = tables[first].declared.variance
    texts = dict.fromkeys(arm for values in groups.values() for arm in values if arm != BASELINE)
    shared = [arm for arm in texts if sum(arm in values for values in groups.values()) > 1]
    baselines, families, detectable = {}, {}, {}
    for group in others:
        baselines[group] = _change_of_baseline(groups[group], groups[first])
        same_seeds = _has_same_seeds(groups[group], groups[first])
        families[group], seen = changes_of_effects(
            groups[group], groups[first], same_seeds, variances, num_families=len(others)
        )
        if seen is not None:
            detectable[group] = seen
    name = next(row.arm for row in tables[first].rows if row.role is Role.BASELINE)
    rows = [ArmAcross(name, Role.BASELINE, baselines)]
    effects = [_effects(values, variances) for values in groups.values()]
    for arm in shared:
        changes = {group: families[group][arm] for group in others if arm in families[group]}
        rows.append(ArmAcross(arm, Role.ARM, changes, _combined([each[arm] for each in effects if arm in each])))
    if not any(change.mean is not None for row in rows for change in row.changes.values()):
        return None
    is_grown = any(tables[group].growth is not None for group in groups)
    has_view = any(table.family for table in tables.values())
    shown = frozenset(row.arm for table in tables.values() for row in table.rows) if has_view else None
    return Interactions(tables[first].primary, first, tuple(others), tuple(rows), detectable, is_grown, shown)


def changes_of_effects(
    group: Values, first: Values, same_seeds: bool, variances: Variances, *, num_families: int
) -> tuple[dict[str, Change], float | None]:
    """Return by arm how its difference to the baseline changes from the first group, and what could have been seen.

    Args:
        group: By arm, and of the baseline as ``BASELINE``, its value at each seed.
        first: The same of the first group.
        same_seeds: Whether a seed means the same in both.
        variances: Whose they are, as in ``difference_of_differences``.
        num_families: Groups that share the error evenly (Bonferroni).
    """
    confidence = 1 - ERROR / num_families
    family = difference_of_differences(
        group, first, baseline=BASELINE, same_seeds=same_seeds, variances=variances, confidence=confidence
    )
    counts = {arm: _num_seeds(group, first, arm, same_seeds) for arm in group if arm in first and arm != BASELINE}
    changes = {arm: change_of(num, family.contrasts.get(arm), num_families) for arm, num in counts.items()}
    return changes, family.detectable


def _change_of_baseline(group: Values, first: Values) -> Change:
    paired = _has_same_seeds(group, first)
    own, other = ({BASELINE: values[BASELINE]} for values in (group, first))
    contrasts = differences_of_means(own, other, paired=paired).contrasts
    return change_of(_num_seeds(group, first, BASELINE, paired), contrasts.get(BASELINE))


def _has_same_seeds(group: Values, first: Values) -> bool:
    """Return whether two groups have more seeds in common than not: one failed trial does not make them independent."""
    own, other = group[BASELINE].keys(), first[BASELINE].keys()
    return 2 * len(own & other) > len(own | other)


def _num_seeds(group: Values, first: Values, arm: str, same_seeds: bool) -> int:
    own, other = (values[arm].keys() & values[BASELINE].keys() for values in (group, first))
    return len(own & other) if same_seeds else min(len(own), len(other))


def change_of(num_seeds: int, contrast: Contrast | None, num_families: int = 1) -> Change:
    """Return a contrast as a change, its p adjusted for as many families as there are (Bonferroni)."""
    if contrast is None:
        return Change(num_seeds)
    p_value = min(1.0, contrast.p_value * num_families)
    return Change(num_seeds, contrast.estimate, contrast.low, contrast.high, p_value)


def _effects(values: Values, variances: Variances) -> dict[str, tuple[float, float]]:
    """Return by arm its difference to the baseline and the standard error; only of arms that have both."""
    if variances != "pooled":
        found = by_own_variances(values, baseline=BASELINE, moderate=variances == "moderated").contrasts
        return {arm: (contrast.estimate, contrast.standard_error) for arm, contrast in found.items()}
    model = fit_group(values, baseline=BASELINE)
    if not model.variance > 0:
        return {}
    errors = (model.unscaled.diagonal() * model.variance) ** 0.5
    pairs = zip(model.estimates.tolist(), errors.tolist(), strict=True)
    return {arm: pair for arm, pair in zip(model.arms, pairs, strict=True) if arm != BASELINE}


def _combined(effects: list[tuple[float, float]]) -> CombinedEffect | None:
    return combine_effects([estimate for estimate, _ in effects], [error for _, error in effects])
