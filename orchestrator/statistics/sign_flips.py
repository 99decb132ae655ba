"""A test of all arms together that asks for no normal distribution: joint flips of the signs of whole seeds."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from orchestrator.statistics.model import Values, can_be_compared
from orchestrator.statistics.paired import EXACT_UP_TO, sign_patterns


def max_t_sign_flips(values: Values, *, baseline: str, seed: int = 0) -> dict[str, float]:
    """Test every arm against the baseline, with one error rate for all, by flipping the signs of whole seeds.

    Under the hypothesis the differences of all arms at a seed are symmetric about 0 together: the signs of a seed are
    flipped in all arms at once, which keeps their correlation, whatever it is, and each arm's variance. An arm's
    statistic is |t| of its differences. The adjusted p of an arm is the share of patterns in which the largest
    statistic, of it and of all arms with a smaller one, is at least its own. With n seeds it cannot be below 2/2^n: 6
    seeds are the fewest for p < .05.

    Args:
        values: By arm, its value at each seed.
        baseline: The arm that the others are compared with.
        seed: Of the random patterns, from 13 seeds on.

    Returns:
        By arm its adjusted p in (0, 1]; arms that share no seed with the baseline or have a value that is not finite
        are left out.

    Source:
        Westfall and Young 1993, Resampling-Based Multiple Testing, algorithm 4.1 (step-down maxT). Signs: Fisher 1935,
        The Design of Experiments, section 21; the +1 of random patterns: Phipson and Smyth 2010, Statistical
        Applications in Genetics and Molecular Biology 9(1).
    """
    own = values[baseline]
    differences = {
        arm: {s: of_arm[s] - own[s] for s in sorted(of_arm.keys() & own.keys())}
        for arm, of_arm in values.items()
        if arm != baseline
    }
    tested = [arm for arm, pairs in differences.items() if pairs and can_be_compared(pairs.values())]
    seeds = sorted({s for arm in tested for s in differences[arm]})
    table = np.array([[differences[arm].get(s, 0.0) for s in seeds] for arm in tested])
    num_seeds = np.array([len(differences[arm]) for arm in tested])
    return dict(zip(tested, max_t_of_flips(table, num_seeds, seed=seed), strict=True)) if tested else {}


def max_t_of_flips(table: NDArray[np.float64], num_seeds: NDArray[np.int64], *, seed: int = 0) -> list[float]:
    """Return the adjusted p of each row.

    Args:
        table: ``(k, n)`` differences, 0 where there is none.
        num_seeds: ``(k,)`` differences of each row.
        seed: Of the random patterns.
    """
    num, length = table.shape
    patterns = sign_patterns(length, seed)
    order: NDArray[np.int64] = np.argsort(-_statistic(np.ones((1, length)), table, num_seeds)[0], kind="stable")
    observed = _statistic(np.ones((1, length)), table, num_seeds)[0, order]
    extreme = np.zeros(num)
    for start in range(0, len(patterns), 4096):
        flipped = _statistic(patterns[start : start + 4096], table, num_seeds)[:, order]
        largest = np.maximum.accumulate(flipped[:, ::-1], axis=1)[:, ::-1]
        # Sums that are equal on paper differ in the last bits.
        extreme += (largest >= observed * (1 - 1e-9) - 1e-12).sum(axis=0)
    is_exact = length <= EXACT_UP_TO
    shares = extreme / len(patterns) if is_exact else (extreme + 1) / (len(patterns) + 1)
    p_values = np.empty(num)
    p_values[order] = np.maximum.accumulate(shares)
    return [float(p) for p in p_values]


def _statistic(
    patterns: NDArray[np.float64], table: NDArray[np.float64], num_seeds: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return ``(P, k)`` mean squares over the mean square of the values, in [0, 1]: they rise with |t|.

    t^2 = (n - 1) q / (1 - q) with q = n mean^2 / sum of squares, which no flip changes. Rows with fewer seeds are put
    on the scale of the others by the normal score of their t, so that they do not decide alone.
    """
    from scipy.special import ndtri, stdtr

    squares = (table**2).sum(axis=1)
    share = np.divide((patterns @ table.T) ** 2, num_seeds * np.where(squares > 0, squares, 1.0))
    if (num_seeds == num_seeds[0]).all():
        return share
    df = np.maximum(num_seeds - 1, 1)
    t = np.sqrt(df * share / np.maximum(1 - share, 1e-12))
    return np.asarray(-ndtri(stdtr(df, -t)))
