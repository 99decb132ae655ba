"""The largest of several |t| statistics, whatever their correlation: critical values and adjusted p-values.

The statistics are T_i = Z_i / S: the Z are standard normal with a correlation matrix R, S^2 is chi-squared over its
degrees of freedom and shared by all. With R = D + L L', D a diagonal, the T are independent given the r factors w of L
and S, so that P(max |T_i| <= c) is the mean over w and S of

    prod_i Phi((c S - l_i w) / sqrt d_i) - Phi((-c S - l_i w) / sqrt d_i).

With one factor, as in every comparison with one baseline where no cell is missing, that is a quadrature in two
dimensions. A few missing cells leave the correlation close to that of one factor, which then stands for it; where they
give every arm a loading of its own, the quadrature is another, with few nodes. Where no factor is close, as between the
effects of a factorial, the mean is one over the points of a lattice.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from orchestrator.statistics.dunnett import (
    LARGEST_DF,
    deviation_nodes,
    even_normal_nodes,
    log_deviation_nodes,
    normal_nodes,
)

Array = NDArray[np.float64]

NUM_FACTOR_NODES = 96
NUM_DEVIATION_NODES = 40
"""Gauss-Legendre nodes of the two integrals with few loadings: an error below 1e-3 up to a correlation of .95."""
FEW_LOADINGS = 3
FACTOR_STEP = 0.35
DEVIATION_STEP = 0.7
"""Steps of the trapezoidal rule in the same integrals with more loadings, in standard deviations: as exact, with an
eighth of the nodes."""
NUM_LOADINGS = 10
"""Different loadings that stand for any number of them."""
NUM_POINTS = 4096
"""Points of the lattice: the critical value moves by less than .005 from 10 degrees of freedom on."""
NEAR = 0.1
"""Distance of correlations up to which those of one factor stand for them: the critical value rises by less than .002.
"""
_SAME = 1e-7
"""Correlations that differ by less are equal: the critical value does not feel it."""
_LARGEST_LOADING = 0.9999
_LEAST_STEP = 0.05
_WIDEST = 1.2
"""Range of the inverse hyperbolic tangent of loadings up to which few stand for all: the coverage moves by 1e-8."""
_LEAST = 1e-300
_GRID = 128
"""Statistics from which on p-values are interpolated between as many values of the distribution."""


class MaxT:
    """The distribution of the largest of k |t| statistics where nothing works.

    Attributes:
        num_statistics: k.
        df: Degrees of freedom of the common standard deviation; infinity = it is known.
        is_one_factor: Whether the correlations are those of one common factor, l_i l_j, or close to them.
    """

    def __init__(self, correlation: ArrayLike, df: float) -> None:
        """Prepare the integral.

        Args:
            correlation: ``(k, k)`` of the statistics, k >= 1.
            df: At least 1.

        Raises:
            ValueError: If it is no correlation matrix, or ``df`` is below 1.
        """
        matrix = np.asarray(correlation, dtype=np.float64)
        if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not matrix.size:
            raise ValueError(f"correlation must be a square matrix, not of shape {matrix.shape}")
        is_sound = np.abs(matrix).max() < 1 + _SAME and np.abs(np.diag(matrix) - 1).max() < _SAME
        if not is_sound or np.abs(matrix - matrix.T).max() > _SAME:
            raise ValueError("correlation must be symmetric with 1 on the diagonal and nothing outside of [-1, 1]")
        if not df >= 1:
            raise ValueError(f"df must be at least 1, not {df}")
        self.num_statistics, self.df = len(matrix), min(df, LARGEST_DF)
        self._criticals: dict[float, float] = {}
        loadings, worst = _nearest_factor(matrix)
        self.is_one_factor = worst <= NEAR
        if self.is_one_factor:
            self._prepare_quadrature(loadings)
        else:
            self._prepare_lattice(matrix)

    def coverage(self, critical: float) -> float:
        """Return P(max |T_i| <= critical), in [0, 1]."""
        from scipy.special import ndtr

        reach = critical * self._scale
        inside = ndtr(reach - self._center) - ndtr(-reach - self._center)
        if inside.shape[1] <= FEW_LOADINGS:
            together = np.prod(inside**self._counts, axis=1)
        else:
            together = np.exp(np.log(np.maximum(inside, _LEAST)) @ self._counts)
        return float(np.clip(self._weights @ together, 0.0, 1.0))

    def critical(self, confidence: float = 0.95) -> float:
        """Return the c with P(max |T_i| <= c) = ``confidence``, which is 1 minus the family-wise error."""
        if not 0 < confidence < 1:
            raise ValueError(f"confidence must be in (0, 1), not {confidence}")
        if confidence not in self._criticals:
            self._criticals[confidence] = self._solve(confidence)
        return self._criticals[confidence]

    def p_values(self, statistics: Sequence[float] | Array) -> list[float]:
        """Return the adjusted p of each of some t statistics: P(max |T_i| >= |t|) where nothing works."""
        from scipy.special import stdtr

        sizes = np.abs(np.asarray(statistics, dtype=np.float64))
        if self.num_statistics == 1:
            return [float(p) for p in np.minimum(1.0, 2 * stdtr(self.df, -sizes))]
        if len(sizes) <= _GRID:
            return [1 - self.coverage(size) if math.isfinite(size) else 0.0 for size in sizes]
        grid = np.linspace(0, max(4.0, 1.5 * self.critical(0.999)), _GRID)
        return [float(p) for p in 1 - np.interp(sizes, grid, [self.coverage(size) for size in grid])]

    def _solve(self, confidence: float) -> float:
        from scipy.optimize import brentq
        from scipy.special import stdtrit

        # Student's t for one statistic from below, Bonferroni's from above.
        low, high = (float(stdtrit(self.df, 1 - (1 - confidence) / (2 * n))) for n in (1, self.num_statistics))
        if self.num_statistics == 1:
            return low
        return cast("float", brentq(lambda c: self.coverage(c) - confidence, 0.97 * low, 1.03 * high, xtol=1e-6))

    def _prepare_quadrature(self, loadings: Array) -> None:
        # Signs do not matter, and arms with equally many values have the same loading: one of them stands for all.
        found, counts = np.unique(np.round(np.abs(loadings), 9), return_counts=True)
        different = np.asarray(found, dtype=np.float64)
        if len(different) <= FEW_LOADINGS:
            factor, factor_weights = normal_nodes(NUM_FACTOR_NODES)
            deviation, deviation_weights = deviation_nodes(self.df, NUM_DEVIATION_NODES)
        else:
            steepest = math.sqrt(1 - different[-1] ** 2) / max(different[-1], 0.5)
            factor, factor_weights = even_normal_nodes(max(FACTOR_STEP * min(steepest, 1.0), _LEAST_STEP))
            deviation, deviation_weights = log_deviation_nodes(self.df, DEVIATION_STEP)
        different, self._counts = _fewer(different, counts.astype(np.float64))
        own = np.sqrt(1 - different**2)
        both = np.repeat(factor, len(deviation)), np.tile(deviation, len(factor))
        self._center = both[0][:, None] * (different / own)
        self._scale = both[1][:, None] / own
        self._weights = np.outer(factor_weights, deviation_weights).ravel()

    def _prepare_lattice(self, matrix: Array) -> None:
        from scipy.special import chdtri, ndtri

        values, vectors = np.linalg.eigh(matrix)
        own = math.sqrt(max(float(values[0]), 1 - _LARGEST_LOADING))
        kept = np.flatnonzero(values - values[0] > _SAME)[::-1]
        loadings = vectors[:, kept] * np.sqrt(values[kept] - values[0])
        points = _lattice(len(kept) + 1)
        self._center = ndtri(points[:, 1:]) @ loadings.T / own
        is_known = self.df >= LARGEST_DF
        deviation = np.ones(len(points)) if is_known else np.sqrt(chdtri(self.df, points[:, 0]) / self.df)
        self._scale = deviation[:, None] / own
        self._weights = np.full(len(points), 1 / len(points))
        self._counts = np.ones(len(matrix))


def max_t(correlation: ArrayLike, df: float) -> MaxT:
    """Return the distribution of the largest |t|, from memory where it was asked for before.

    Args:
        correlation: ``(k, k)`` of the statistics.
        df: Degrees of freedom of the common standard deviation, at least 1; infinity = it is known.

    Raises:
        ValueError: If it is no correlation matrix, or ``df`` is below 1.

    Source:
        One factor: Dunnett 1964, New Tables for Multiple Comparisons with a Control, Biometrics 20; unequal samples:
        Dunnett 1955, Journal of the American Statistical Association 50. The nearest correlation with one factor: Hsu
        1992, The Factor Analytic Approach to Simultaneous Inference in the General Linear Model, Journal of
        Computational and Graphical Statistics 1, which found the third decimal of the critical value at stake. Lattice:
        Richtmyer's with the baker's transformation, as in Genz and Bretz 2009, Computation of Multivariate Normal and t
        Probabilities, section 4.2; they integrate the statistics one after the other, here it is their factors. R's
        multcomp and emmeans compute the same by Genz and Bretz.
    """
    # Rounded, so that equal designs are equal.
    matrix = np.ascontiguousarray(np.round(np.asarray(correlation, dtype=np.float64), 9))
    return _cached(matrix.tobytes(), matrix.shape, float(df)) if matrix.size <= _MOST_KEPT else MaxT(matrix, df)


_MOST_KEPT = 10_000
"""Correlations, k^2, of a distribution up to which it is kept in memory."""


@lru_cache(maxsize=64)
def _cached(matrix: bytes, shape: tuple[int, ...], df: float) -> MaxT:
    return MaxT(np.frombuffer(matrix).reshape(shape), df)


def max_t_coverage(critical: float, correlation: ArrayLike, df: float) -> float:
    """Return P(max |T_i| <= critical) where nothing works; see ``max_t``."""
    return max_t(correlation, df).coverage(critical)


def max_t_critical(correlation: ArrayLike, df: float, *, confidence: float = 0.95) -> float:
    """Return the critical value of the largest |t| at a family-wise error of 1 - ``confidence``; see ``max_t``."""
    return max_t(correlation, df).critical(confidence)


def _fewer(loadings: Array, counts: Array) -> tuple[Array, Array]:
    """Return few loadings that stand for many, and how often each counts; it need be neither whole nor above 0.

    The logarithm of what a statistic contributes is so smooth a function of its loading that a polynomial through
    ``NUM_LOADINGS`` of them gives it at all others, and the sum over these is a weighted sum over those.
    """
    places = np.arctanh(loadings)
    low, high = places[0], places[-1]
    if len(loadings) <= NUM_LOADINGS or high - low > _WIDEST:
        return loadings, counts
    angles = np.pi * (2 * np.arange(NUM_LOADINGS) + 1) / (2 * NUM_LOADINGS)
    nodes = (low + high) / 2 + (high - low) / 2 * np.cos(angles)
    apart = nodes[:, None] - nodes + np.eye(NUM_LOADINGS)
    shares = [
        np.prod(np.delete(places[:, None] - nodes, node, axis=1), axis=1) / np.prod(apart[node])
        for node in range(NUM_LOADINGS)
    ]
    return np.tanh(nodes), np.array(shares) @ counts


def _nearest_factor(matrix: Array) -> tuple[Array, float]:
    """Return ``(k,)`` loadings whose products are nearest to the correlations, and the largest distance."""
    num = len(matrix)
    apart = matrix.copy()
    np.fill_diagonal(apart, 0.0)
    if num == 1 or np.abs(apart).max() < _SAME:
        return np.zeros(num), 0.0
    if num == 2:  # |T| knows no sign
        return np.full(2, math.sqrt(min(abs(apart[0, 1]), _LARGEST_LOADING**2))), 0.0
    loadings = np.full(num, math.sqrt(max(1e-3, float(apart.sum()) / (num * (num - 1)))))
    for _ in range(200):
        # The least-squares loading of each given the others, half the way, so that it cannot swing.
        new: Array = apart @ loadings / (loadings @ loadings - loadings**2)
        np.clip(new, -_LARGEST_LOADING, _LARGEST_LOADING, out=new)
        loadings, before = (loadings + new) / 2, loadings
        if np.abs(loadings - before).max() < 1e-10:
            break
    distance = apart - np.outer(loadings, loadings)
    np.fill_diagonal(distance, 0.0)
    return loadings, float(np.abs(distance).max())


@lru_cache(maxsize=64)
def _lattice(num_dimensions: int) -> Array:
    """Return ``(NUM_POINTS, D)`` points that fill (0, 1)^D evenly."""
    steps = np.sqrt(_primes(num_dimensions).astype(np.float64))
    points = (np.arange(1, NUM_POINTS + 1)[:, None] * steps + 0.5 / NUM_POINTS) % 1.0
    return np.asarray(np.clip(np.abs(2 * points - 1), 0.5 / NUM_POINTS, 1 - 0.5 / NUM_POINTS))


def _primes(num: int) -> NDArray[np.int64]:
    limit = max(15, int(num * (math.log(num + 1) + math.log(math.log(num + 2)) + 2)))
    is_prime = np.ones(limit, dtype=bool)
    is_prime[:2] = False
    for number in range(2, math.isqrt(limit) + 1):
        is_prime[number * number :: number] = False
    return np.flatnonzero(is_prime)[:num]
