"""Declared looks at a sweep that grows: at which level arms are judged at each, so that the error of all looks is kept.

What is simulated is the design itself: k arms and a baseline without any effect, seed by seed as the looks declare
them, judged by the group model with its pooled variance. Arms are compared with the baseline at once, so that the error
rate is that of any arm at any look.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from orchestrator.statistics.dunnett import LARGEST_DF, dunnett_critical, residual_df

Array = NDArray[np.float64]
Spending = Literal["even", "obrien_fleming", "pocock", "pocock_spending"]

_NUM_SWEEPS, _NUM_VALUES = 200_000, 2_200_000
"""Sweeps that are simulated, and the most means that are drawn for a look, sweeps times arms. Up to 10 arms the
family-wise error is within 0.1 points (two standard errors) of its target."""
_CHUNK = 2_000_000
"""Numbers that are drawn at once."""
_LEAST_SPENT = 1e-7
"""Error that is spent at least: of less, as at the first of many looks, no critical value can be computed."""
_SEED = 20_261


@dataclass(frozen=True)
class LookDesign:
    """Looks at a growing sweep, and what an arm must exceed at each.

    Attributes:
        looks: Seeds of each arm at each look, rising.
        num_arms: Arms beside the baseline at the first look, k.
        spending: How the error is spent over the looks.
        blocks: Whether seeds are blocks.
        confidence: 1 minus the family-wise error over all arms and looks.
        levels: By look, the two-sided level at which a single arm's t is judged.
        critical: By look, what its |t| must exceed where no cell is missing.
        spent: By look, the family-wise error spent until then.
    """

    looks: tuple[int, ...]
    num_arms: int
    spending: Spending
    blocks: bool
    confidence: float
    levels: tuple[float, ...]
    critical: tuple[float, ...]
    spent: tuple[float, ...]

    def critical_at(self, look: int, df: float) -> float:
        """Return what |t| must exceed at the look-th look, from 0 on, with the degrees of freedom that there are."""
        return _t_of_level(self.levels[look], df)


def design_looks(
    looks: Sequence[int],
    num_arms: int,
    *,
    spending: Spending = "even",
    blocks: bool = True,
    confidence: float = 0.95,
) -> LookDesign:
    """Compute boundaries for declared looks, by simulation under the joint hypothesis that no arm has an effect.

    The error of the first look is that of Dunnett's integral; what later ones add is counted in simulated sweeps,
    200,000 with up to ten arms. The same call gives the same numbers, from memory or not.

    Args:
        looks: Seeds of each arm at each look, rising, at least 2.
        num_arms: Arms beside the baseline, k >= 1. Arms that stop early only make it safer.
        spending: ``even`` spends alpha t by the share t of the seeds; ``obrien_fleming`` little at first, to either
            side 2 - 2 Phi(z / sqrt t), which serves small effects; ``pocock_spending`` more at first,
            alpha ln(1 + (e - 1) t), which serves large ones; ``pocock`` has one level for all looks.
        blocks: Whether seeds are blocks, as in ``fit_group``.
        confidence: 1 minus the family-wise error, in (0, 1).

    Raises:
        ValueError: If a number is out of its range.

    Source:
        Spending functions: Lan and DeMets 1983, Biometrika 70; alpha t: Kim and DeMets 1987, Biometrika 74. One level:
        Pocock 1977, Biometrika 64 (for one arm .0294, .0221, .0182 at 2, 3, 4 looks). Several arms against one control:
        Follmann, Proschan and Geller 1994, Biometrics 50. Small samples, by levels instead of critical values: Jennison
        and Turnbull 2000, Group Sequential Methods, section 4.4.
    """
    if not looks or looks[0] < 2 or any(later <= earlier for earlier, later in pairwise(looks)):
        raise ValueError(f"looks must rise from at least 2 seeds, not {list(looks)}")
    if num_arms < 1:
        raise ValueError(f"num_arms must be at least 1, not {num_arms}")
    if spending not in get_args(Spending):
        raise ValueError(f"spending must be one of {', '.join(get_args(Spending))}, not {spending!r}")
    if not 0.5 <= confidence < 1:
        raise ValueError(f"confidence must be in [0.5, 1), not {confidence}")
    return _boundaries(tuple(looks), num_arms, spending, blocks, confidence)


def simulate_looks(
    looks: Sequence[int],
    differences: Sequence[float] | Array,
    *,
    blocks: bool = True,
    num_draws: int,
    rng: np.random.Generator,
) -> Iterator[tuple[Array, Array]]:
    """Simulate sweeps of k arms and a baseline that grow from look to look, in chunks.

    Args:
        looks: Seeds at each of J looks.
        differences: ``(k,)`` true differences to the baseline, in standard deviations of the residual.
        blocks: Whether seeds are blocks.
        num_draws: Sweeps.
        rng: Source of random numbers.

    Yields:
        ``(J, B, k)`` estimated differences and ``(J, B)`` residual variances, of B sweeps.
    """
    truth = np.concatenate([[0.0], np.asarray(differences, dtype=np.float64)])
    num_arms = len(truth)
    free = num_arms - 1 if blocks else num_arms
    chunk = max(100, _CHUNK // (num_arms * len(looks)))
    for start in range(0, num_draws, chunk):
        size = min(chunk, num_draws - start)
        means, squares, have = np.zeros((size, num_arms)), np.zeros(size), 0
        estimates, variances = np.empty((len(looks), size, num_arms - 1)), np.empty((len(looks), size))
        for place, look in enumerate(looks):
            new = look - have
            fresh = truth + rng.standard_normal((size, num_arms)) / math.sqrt(new)
            if new > 1:
                squares += rng.chisquare(free * (new - 1), size)
            if have:  # the squares of two batches together: Chan, Golub and LeVeque 1983
                apart = fresh - means
                if blocks:
                    apart -= apart.mean(axis=1, keepdims=True)
                squares += have * new / look * (apart**2).sum(axis=1)
            means = (have * means + new * fresh) / look
            have = look
            estimates[place] = means[:, 1:] - means[:, :1]
            variances[place] = squares / (free * (look - 1))
        yield estimates, variances


@lru_cache(maxsize=64)
def _boundaries(
    looks: tuple[int, ...], num_arms: int, spending: Spending, blocks: bool, confidence: float
) -> LookDesign:
    alpha = 1 - confidence
    dfs = [residual_df(num_arms, look, blocks) for look in looks]
    num_draws = max(20_000, min(_NUM_SWEEPS, _NUM_VALUES // (num_arms + 1)))
    rng = np.random.Generator(np.random.PCG64(_SEED))
    largest = np.concatenate(
        [
            (np.abs(estimates).max(axis=2) / np.sqrt(2 * variances / np.array(looks)[:, None])).T
            for estimates, variances in simulate_looks(
                looks, np.zeros(num_arms), blocks=blocks, num_draws=num_draws, rng=rng
            )
        ]
    )
    if spending == "pocock":
        levels = _one_level(largest, dfs, alpha)
    else:
        shares = [look / looks[-1] for look in looks]
        levels = _spend(largest, dfs, num_arms, [_spent(spending, share, alpha) for share in shares])
    levels = [float(f"{level:.5g}") for level in levels]  # the last bits are the machine's
    critical = [_t_of_level(level, df) for level, df in zip(levels, dfs, strict=True)]
    crossed = np.maximum.accumulate(largest > critical, axis=1)
    return LookDesign(
        looks=looks,
        num_arms=num_arms,
        spending=spending,
        blocks=blocks,
        confidence=confidence,
        levels=tuple(levels),
        critical=tuple(critical),
        spent=tuple(crossed.mean(axis=0).tolist()),
    )


def _spent(spending: Spending, share: float, alpha: float) -> float:
    """Return the error that may have been spent when a share of the seeds is there."""
    from scipy.special import ndtr, ndtri

    if spending == "even":
        return alpha * share
    if spending == "obrien_fleming":
        return max(_LEAST_SPENT, float(4 * ndtr(ndtri(alpha / 4) / math.sqrt(share))))
    return alpha * math.log(1 + (math.e - 1) * share)


def _spend(largest: Array, dfs: Sequence[int], num_arms: int, targets: Sequence[float]) -> list[float]:
    """Return the levels that spend the error as it is due; ``largest`` is ``(B, J)``, the largest |t| of each sweep."""
    levels, is_left, before = [], np.ones(len(largest), dtype=bool), 0.0
    for place, (df, target) in enumerate(zip(dfs, targets, strict=True)):
        due = target - before
        if place == 0:
            critical = dunnett_critical(num_arms, df, confidence=1 - target)
        else:
            still = np.sort(largest[is_left, place])[::-1]
            critical = float(still[min(len(still) - 1, round(due * len(largest)))])
        levels.append(_level_of_t(critical, df))
        is_left &= largest[:, place] <= critical
        before = target
    return levels


def _one_level(largest: Array, dfs: Sequence[int], alpha: float) -> list[float]:
    """Return the one level at which the error is ``alpha`` after all looks."""
    from scipy.special import stdtr

    smallest_p = (2 * stdtr(np.array(dfs, dtype=np.float64), -largest)).min(axis=1)
    return [float(np.quantile(smallest_p, alpha))] * len(dfs)


def _level_of_t(t: float, df: float) -> float:
    from scipy.special import stdtr

    return 2 * float(stdtr(min(df, LARGEST_DF), -t))


def _t_of_level(level: float, df: float) -> float:
    from scipy.special import stdtrit

    return -float(stdtrit(min(df, LARGEST_DF), level / 2))
