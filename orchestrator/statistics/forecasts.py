"""What a sweep with looks is expected to find and to cost, by simulation, before it is run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from orchestrator.statistics.decisions import FUTILE_BELOW, Action, Seek, follow
from orchestrator.statistics.looks import LookDesign, simulate_looks

_ACTIONS = tuple(Action)


@dataclass(frozen=True)
class Forecast:
    """What a sweep with looks is expected to find and to cost.

    Attributes:
        shares: By action, ``(k,)`` how often it is what becomes of each arm, in [0, 1].
        mean_seeds: ``(k,)`` mean seeds of each arm.
        mean_trials: Mean trials of the sweep, the baseline's included, which runs as long as any arm does.
        most_trials: Trials if no arm stops early.
    """

    shares: dict[Action, tuple[float, ...]]
    mean_seeds: tuple[float, ...]
    mean_trials: float
    most_trials: int


def forecast_looks(
    design: LookDesign,
    differences: Sequence[float],
    *,
    sd_difference: float,
    smallest_effect: float | None = None,
    futile_below: float = FUTILE_BELOW,
    seek: Seek = "both",
    num_sweeps: int = 4000,
    seed: int = 0,
) -> Forecast:
    """Simulate what a sweep with looks finds and costs, where arms have some true differences.

    Args:
        design: The boundaries.
        differences: ``(k,)`` true differences to the baseline; above 0 is better.
        sd_difference: Standard deviation of a difference within a seed, in the same unit, above 0.
        smallest_effect: As in ``decide``.
        futile_below: As in ``decide``.
        seek: As in ``decide``.
        num_sweeps: Simulated sweeps: the standard error of a share is at most 0.8 points.
        seed: Of the random numbers.

    Raises:
        ValueError: If there are not as many differences as arms, or the standard deviation is not above 0.

    Source:
        Simulation of the design; the variance keeps the degrees of freedom of all arms, as if none stopped early.
    """
    if len(differences) != design.num_arms:
        raise ValueError(f"must be {design.num_arms} differences, one an arm, not {len(differences)}")
    if not sd_difference > 0:
        raise ValueError(f"sd_difference must be above 0, not {sd_difference}")
    sd = sd_difference / math.sqrt(2)
    rng = np.random.default_rng(seed)
    counts = np.zeros((len(_ACTIONS), design.num_arms))
    seeds, trials = np.zeros(design.num_arms), 0.0
    scaled = [difference / sd for difference in differences]
    effect = None if smallest_effect is None else smallest_effect / sd
    for estimates, variances in simulate_looks(
        design.looks, scaled, blocks=design.blocks, num_draws=num_sweeps, rng=rng
    ):
        ends, stops = follow(
            design, estimates, variances, smallest_effect=effect, futile_below=futile_below, seek=seek
        )
        for code in range(len(_ACTIONS)):
            counts[code] += (ends == code).sum(axis=0)
        seeds += stops.sum(axis=0)
        trials += float(stops.sum() + stops.max(axis=1).sum())
    return Forecast(
        shares={action: tuple((counts[code] / num_sweeps).tolist()) for code, action in enumerate(_ACTIONS)},
        mean_seeds=tuple((seeds / num_sweeps).tolist()),
        mean_trials=trials / num_sweeps,
        most_trials=(design.num_arms + 1) * design.looks[-1],
    )


def detectable_by_looks(
    design: LookDesign,
    *,
    sd: float,
    power: float = 0.8,
    seek: Seek = "both",
    num_sweeps: int = 4000,
    seed: int = 0,
) -> float:
    """Return the true difference of one arm that is called better with some probability, where no other arm differs.

    Args:
        design: The boundaries.
        sd: Standard deviation of an arm's value within a seed, above 0.
        power: The probability, in (0.05, 1).
        seek: As in ``decide``.
        num_sweeps: Simulated sweeps; with 4,000 the standard error of the probability is 0.6 points.
        seed: Of the random numbers.

    Returns:
        The difference, in the unit of ``sd``.

    Source:
        As ``forecast_looks``; one draw for all differences that are tried, by bisection.
    """
    rng = np.random.default_rng(seed)
    drawn = simulate_looks(design.looks, np.zeros(design.num_arms), blocks=design.blocks, num_draws=num_sweeps, rng=rng)
    chunks = [(estimates[:, :, :1], variances) for estimates, variances in drawn]
    found = _ACTIONS.index(Action.BETTER)

    def is_found(difference: float) -> float:
        ends = (follow(design, estimates + difference, variances, seek=seek)[0] for estimates, variances in chunks)
        return sum(float((of_chunk == found).sum()) for of_chunk in ends) / num_sweeps

    low, high = 0.0, 1.0
    while is_found(high) < power:
        low, high = high, 2 * high
    while high - low > 1e-3 * high:
        middle = (low + high) / 2
        low, high = (low, middle) if is_found(middle) >= power else (middle, high)
    return high * sd
