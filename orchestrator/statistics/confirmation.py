"""Screen, then confirm: the first seeds choose the arms, fresh seeds alone judge them."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from orchestrator.statistics.comparison import Comparison, compare_arms
from orchestrator.statistics.model import Values, fit_group
from orchestrator.statistics.simultaneous import against_baseline

SCREEN_LEVEL = 0.3


def screen(
    values: Values, *, baseline: str, most: int | None = None, level: float = SCREEN_LEVEL, blocks: bool = True
) -> tuple[str, ...]:
    """Choose the arms that are worth a confirmation, by their values on the first seeds.

    Any rule is allowed here, for what is found on fresh seeds owes nothing to how the arms were chosen. This one takes
    arms that differ from the baseline to either side at a generous level.

    Args:
        values: By arm, its values at the first seeds.
        baseline: The arm that the others are compared with.
        most: Arms at most, those with the largest |t|; None: all that pass.
        level: Two-sided p of the arm alone up to which it passes, in (0, 1]; 1: ``most`` alone decides.
        blocks: Whether seeds are blocks.

    Returns:
        The arms, the largest |t| first.

    Source:
        Two stages without combination of data: Thall, Simon and Ellenberg 1988, Biometrika 75, who choose one arm.
    """
    family = against_baseline(fit_group(values, baseline=baseline, blocks=blocks))
    passed = [arm for arm, contrast in family.contrasts.items() if contrast.p_single <= level]
    passed.sort(key=lambda arm: family.contrasts[arm].p_single)
    return tuple(passed[:most])


def confirm(
    values: Values, *, baseline: str, arms: Collection[str], screened_seeds: Collection[int], **options: Any
) -> Comparison:
    """Compare the chosen arms with the baseline on fresh seeds alone.

    Args:
        values: By arm, all its values.
        baseline: The arm that the others are compared with.
        arms: What ``screen`` has chosen. The error rate is that of these alone.
        screened_seeds: Seeds by which they were chosen; none of them counts.
        options: As of ``compare_arms``.

    Returns:
        The comparison.
    """
    used = set(screened_seeds)
    fresh = {
        arm: {seed: value for seed, value in of_arm.items() if seed not in used}
        for arm, of_arm in values.items()
        if arm == baseline or arm in arms
    }
    return compare_arms(fresh, baseline=baseline, **options)
