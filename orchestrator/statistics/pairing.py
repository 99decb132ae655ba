"""What arms have in common over seeds, and how many seeds it saves that they share them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from orchestrator.statistics.max_t import max_t
from orchestrator.statistics.model import GroupModel, Values, fit_group


@dataclass(frozen=True)
class Pairing:
    """What pairing by seed is worth.

    Attributes:
        correlation: Of two arms over their common seeds, estimated over all arms, at most 1. Below 0 by chance where
            there is none.
        worth: How many times the seeds a design without blocks would need for intervals of the same width, above 0:
            1.02 says that pairing is worth 2% more seeds, .97 that its blocks cost more than they give.
    """

    correlation: float
    worth: float


def pairing(values: Values, *, baseline: str) -> Pairing | None:
    """Estimate what pairing by seed is worth in a group.

    The residual variance with seeds as blocks is sigma^2 (1 - r), that without is sigma^2: r follows from their ratio.
    The worth is the ratio of the squared mean half-widths of the simultaneous intervals of the two models; blocks also
    cost degrees of freedom.

    Args:
        values: By arm, its value at each seed.
        baseline: The arm that the others are compared with.

    Returns:
        It, or None where one of the models has no variance.

    Source:
        Of a complete table r is the intraclass correlation ICC(3, 1) of Shrout and Fleiss 1979, Psychological Bulletin
        86; relative efficiency of blocks: Cochran and Cox 1957, Experimental Designs, section 4.37. Deviation: the
        degrees of freedom count through the critical values.
    """
    if baseline not in values or not values[baseline]:
        return None
    with_blocks = fit_group(values, baseline=baseline)
    if len(with_blocks.arms) < 2 or not with_blocks.variance > 0:
        return None
    # The same arms in both: one that shares no seed has no place in the comparison.
    without = fit_group({arm: values[arm] for arm in with_blocks.arms}, baseline=baseline, blocks=False)
    if not without.variance > 0:
        return None
    return Pairing(
        correlation=1 - with_blocks.variance / without.variance, worth=(_width(without) / _width(with_blocks)) ** 2
    )


def _width(model: GroupModel) -> float:
    """Return the mean half-width of the simultaneous intervals."""
    covariance = model.unscaled[1:, 1:] * model.variance
    errors = np.sqrt(np.diag(covariance))
    return max_t(covariance / np.outer(errors, errors), model.df).critical() * float(errors.mean())
