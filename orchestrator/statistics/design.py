"""What a sweep could see before it is run: power, detectable difference and seeds of a design with one baseline."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from orchestrator.statistics.dunnett import dunnett_critical
from orchestrator.statistics.power import detectable_shift, noncentral_t_power

MOST_SEEDS = 10_000
"""Seeds up to which a design is sought."""


@dataclass(frozen=True)
class Design:
    """A number of arms against one baseline, each with the same number of seeds.

    Attributes:
        num_arms: Arms beside the baseline, k >= 1.
        num_seeds: Seeds of an arm, n >= 2.
        sd: Standard deviation of an arm's values over seeds, above 0, in the unit of the metric.
        correlation: Of two arms over their common seeds, in [-1, 1). It counts where seeds are blocks alone.
        blocks: Whether seeds are blocks, the baseline has the arms' seeds, and the model is value ~ arm + seed.
        num_baseline_seeds: Seeds of the baseline, >= 2; without blocks alone. None: as many as an arm. About sqrt(k)
            times as many as an arm make the differences most precise for the number of trials (Dunnett 1955).
        confidence: 1 minus the family-wise error, in (0, 1).
    """

    num_arms: int
    num_seeds: int
    sd: float
    correlation: float = 0.0
    blocks: bool = True
    num_baseline_seeds: int | None = None
    confidence: float = 0.95

    def __post_init__(self) -> None:
        """Raise ValueError if a number is out of its range."""
        for name, least in (("num_arms", 1), ("num_seeds", 2), ("num_baseline_seeds", 2)):
            number = getattr(self, name)
            if number is not None and number < least:
                raise ValueError(f"{name} must be at least {least}, not {number}")
        if not 0 < self.sd < math.inf:
            raise ValueError(f"sd must be above 0 and finite, not {self.sd}")
        if not -1 <= self.correlation < 1:
            raise ValueError(f"correlation must be in [-1, 1), not {self.correlation}")
        if self.blocks and self.num_baseline_seeds not in (None, self.num_seeds):
            raise ValueError(
                f"num_baseline_seeds must be num_seeds = {self.num_seeds} where seeds are blocks, not "
                f"{self.num_baseline_seeds}: seeds of the baseline alone would add nothing"
            )
        if not 0 < self.confidence < 1:
            raise ValueError(f"confidence must be in (0, 1), not {self.confidence}")

    @property
    def num_trials(self) -> int:
        """Return the trials that it takes, the baseline's included."""
        return self.num_arms * self.num_seeds + (self.num_baseline_seeds or self.num_seeds)

    @property
    def sd_difference(self) -> float:
        """Return the standard deviation of an arm's difference to the baseline, of one value each."""
        return self.sd * math.sqrt(2 * (1 - self.correlation if self.blocks else 1.0))

    @property
    def standard_error(self) -> float:
        """Return the standard error of an arm's difference to the baseline."""
        parts = 1 / self.num_seeds + 1 / (self.num_baseline_seeds or self.num_seeds)
        return self.sd_difference * math.sqrt(parts / 2)

    @property
    def df(self) -> int:
        """Return the degrees of freedom of the pooled residual variance."""
        if self.blocks:
            return self.num_arms * (self.num_seeds - 1)
        return self.num_trials - self.num_arms - 1

    @property
    def critical(self) -> float:
        """Return Dunnett's critical value: what intervals reach to either side, in standard errors."""
        base = self.num_baseline_seeds or self.num_seeds
        shared = self.num_seeds / (self.num_seeds + base)
        return dunnett_critical(self.num_arms, self.df, correlation=shared, confidence=self.confidence)

    def power(self, difference: float) -> float:
        """Return the probability that an arm with this true difference is found, on either side, in [0, 1].

        Source:
            Noncentral t at Dunnett's critical value ("per-pair power"): Hayter and Liu 1992, Communications in
            Statistics, Simulation and Computation 21. R for one arm: ``power.t.test``.
        """
        return noncentral_t_power(abs(difference) / self.standard_error, self.df, self.critical)

    def detectable(self, power: float = 0.8) -> float:
        """Return the true difference that is found with this probability: the minimum detectable difference.

        Args:
            power: Above the error rate of one arm and below 1.

        Raises:
            ValueError: If it is not.
        """
        return detectable_shift(self.df, self.critical, power) * self.standard_error


def seeds_to_find(difference: float, design: Design, *, power: float = 0.8) -> int | None:
    """Return the fewest seeds with which an arm of a true difference is found with some probability.

    Args:
        difference: True difference, in the unit of the design's standard deviation, not 0.
        design: Its number of seeds is varied, and that of the baseline in proportion; at least 2.
        power: Above 1 - confidence and below 1.

    Returns:
        The seeds of an arm; None if 10,000 do not suffice.

    Raises:
        ValueError: If a number is out of its range.

    Source:
        As ``Design.power``.
    """
    if difference == 0 or not math.isfinite(difference):
        raise ValueError(f"difference must be a finite number other than 0, not {difference}")
    if not 1 - design.confidence < power < 1:
        raise ValueError(f"power must be above {1 - design.confidence:g} and below 1, not {power}")
    return fewest(lambda n: with_seeds(design, n).power(difference) >= power, 2)


def fewest(suffices: Callable[[int], bool], least: int, most: int = MOST_SEEDS) -> int | None:
    """Return the fewest seeds in [least, most] that suffice, where any number above it suffices as well; else None."""
    step, high = 1, least
    while high < most and not suffices(high):
        high, step = min(most, high + step), 2 * step
    if not suffices(high):
        return None
    low = max(least - 1, high - step // 2)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if suffices(middle) else (middle, high)
    return high


def with_seeds(design: Design, num_seeds: int) -> Design:
    """Return a design with another number of seeds, and of the baseline's in proportion."""
    base = design.num_baseline_seeds
    scaled = None if base is None or design.blocks else max(2, round(base * num_seeds / design.num_seeds))
    return replace(design, num_seeds=num_seeds, num_baseline_seeds=scaled)
