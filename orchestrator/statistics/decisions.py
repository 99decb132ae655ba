"""What becomes of each arm at a look: it is decided, stopped, or gets more seeds; and what that costs on average."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from orchestrator.statistics.dunnett import residual_df
from orchestrator.statistics.looks import LookDesign, simulate_looks
from orchestrator.statistics.model import Values, fit_group
from orchestrator.statistics.verdicts import LEAST_SEEDS

Array = NDArray[np.float64]
FUTILE_BELOW = 0.1
"""Chance of a decision at the last look below which an arm is stopped.

Of ten arms without an effect it saves half of the trials of looks at 4, 8 and 16 seeds, and costs an arm that 16 seeds
find in 80% ten points of it; at .01 it saves a third and costs four.
"""


class Action(StrEnum):
    """What becomes of an arm at a look. All but ``CONTINUE`` are final."""

    BETTER = "better"
    WORSE = "worse"
    EQUIVALENT = "equivalent"
    FUTILE = "futile"
    UNDECIDED = "undecided"
    CONTINUE = "continue"


_CODES = tuple(Action)


@dataclass(frozen=True)
class Decision:
    """What becomes of an arm at a look.

    Attributes:
        action: It.
        estimate: Difference to the baseline so far; None without an estimate.
        low: Lower end of its repeated interval, which holds for all arms at all looks together; None without one.
        high: Upper end of it.
        num_seeds: Seeds that it has in common with the baseline.
    """

    action: Action
    estimate: float | None
    low: float | None
    high: float | None
    num_seeds: int


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


def decide(
    design: LookDesign,
    look: int,
    values: Values,
    *,
    baseline: str,
    arms: Collection[str] | None = None,
    higher_is_better: bool = True,
    smallest_effect: float | None = None,
    futile_below: float = FUTILE_BELOW,
) -> dict[str, Decision]:
    """Decide what becomes of each arm at a look.

    An arm is ``better`` or ``worse`` if its |t| exceeds the look's critical value, ``equivalent`` if its repeated
    interval lies within the smallest effect, ``futile`` if the chance that the last look decides it is small: with a
    difference as estimated, or as large as the smallest effect where that is larger. Stopping for futility spends no
    error.

    Args:
        design: The boundaries.
        look: Seeds of the look, one of ``design.looks``.
        values: By arm, its values so far; also of arms that were stopped before: their noise counts.
        baseline: The arm that the others are compared with.
        arms: Arms that are still in question; None: all.
        higher_is_better: The direction of the metric.
        smallest_effect: Smallest difference of interest, above 0; None: none is declared.
        futile_below: Chance below which an arm is futile; 0: none ever is.

    Returns:
        By arm in question, in the order of ``values``. Arms without an estimate, or with fewer than 4 seeds in common
        with the baseline, continue, and are undecided at the last look.

    Raises:
        ValueError: If the look is not one of the design's.

    Source:
        Repeated intervals: Jennison and Turnbull 1989, Journal of the Royal Statistical Society B 51. Conditional
        power: Lan and Wittes 1988, Biometrics 44. Deviation: its t at the last look is taken for normal.
    """
    if look not in design.looks:
        raise ValueError(f"look must be one of {', '.join(map(str, design.looks))} seeds, not {look}")
    place = design.looks.index(look)
    model = fit_group(values, baseline=baseline, blocks=design.blocks)
    row = {arm: number for number, arm in enumerate(model.arms)}
    waiting = Action.UNDECIDED if look == design.looks[-1] else Action.CONTINUE
    decisions = {}
    for arm in values:
        if arm == baseline or (arms is not None and arm not in arms):
            continue
        num_seeds = model.num_seeds.get(arm, 0)
        number = row.get(arm)
        if number is None or model.df < 1:
            estimate = None if number is None else float(model.estimates[number])
            decisions[arm] = Decision(waiting, estimate, None, None, num_seeds)
            continue
        estimate = float(model.estimates[number])
        error = math.sqrt(model.variance * float(model.unscaled[number, number]))
        reach = design.critical_at(place, model.df) * error
        if num_seeds >= LEAST_SEEDS:
            codes = _actions(
                design, place, np.array([estimate]), np.array([error]), np.array([reach]),
                smallest_effect=smallest_effect, futile_below=futile_below,
            )
            action = _CODES[int(codes[0])]
            if action in (Action.BETTER, Action.WORSE) and not higher_is_better:
                action = Action.WORSE if action is Action.BETTER else Action.BETTER
        else:
            action = waiting
        decisions[arm] = Decision(action, estimate, estimate - reach, estimate + reach, num_seeds)
    return decisions


def forecast_looks(
    design: LookDesign,
    differences: Sequence[float],
    *,
    sd_difference: float,
    smallest_effect: float | None = None,
    futile_below: float = FUTILE_BELOW,
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
    counts = np.zeros((len(_CODES), design.num_arms))
    seeds, trials = np.zeros(design.num_arms), 0.0
    scaled = [difference / sd for difference in differences]
    effect = None if smallest_effect is None else smallest_effect / sd
    for estimates, variances in simulate_looks(
        design.looks, scaled, blocks=design.blocks, num_draws=num_sweeps, rng=rng
    ):
        ends, stops = follow(design, estimates, variances, smallest_effect=effect, futile_below=futile_below)
        for code in range(len(_CODES)):
            counts[code] += (ends == code).sum(axis=0)
        seeds += stops.sum(axis=0)
        trials += float(stops.sum() + stops.max(axis=1).sum())
    return Forecast(
        shares={action: tuple((counts[code] / num_sweeps).tolist()) for code, action in enumerate(_CODES)},
        mean_seeds=tuple((seeds / num_sweeps).tolist()),
        mean_trials=trials / num_sweeps,
        most_trials=(design.num_arms + 1) * design.looks[-1],
    )


def follow(
    design: LookDesign,
    estimates: Array,
    variances: Array,
    *,
    smallest_effect: float | None = None,
    futile_below: float = FUTILE_BELOW,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Follow many sweeps from look to look.

    Args:
        design: The boundaries.
        estimates: ``(J, B, k)`` differences to the baseline at each look.
        variances: ``(J, B)`` residual variances.
        smallest_effect: In the unit of the estimates.
        futile_below: As in ``decide``.

    Returns:
        ``(B, k)`` what becomes of each arm, as its place among the actions, and the seeds ``(B, k)`` at which it does.
    """
    shape = estimates.shape[1:]
    ends = np.full(shape, _CODES.index(Action.CONTINUE))
    stops = np.full(shape, design.looks[-1])
    is_open = np.ones(shape, dtype=bool)
    for place, look in enumerate(design.looks):
        errors = np.broadcast_to(np.sqrt(2 * variances[place] / look)[:, None], shape)
        reach = design.critical_at(place, residual_df(design.num_arms, look, design.blocks)) * errors
        codes = _actions(
            design, place, estimates[place], errors, reach, smallest_effect=smallest_effect, futile_below=futile_below
        )
        ends = np.where(is_open, codes, ends)
        closes = is_open & (codes != _CODES.index(Action.CONTINUE))
        stops = np.where(closes, look, stops)
        is_open &= ~closes
    return ends, stops


def _actions(
    design: LookDesign,
    place: int,
    estimates: Array,
    errors: Array,
    reach: Array,
    *,
    smallest_effect: float | None,
    futile_below: float,
) -> NDArray[np.int64]:
    """Return the place of each arm's action; estimates, standard errors and half-widths have one shape."""
    size = np.abs(estimates)
    is_last = place == len(design.looks) - 1
    codes = np.full(estimates.shape, _CODES.index(Action.UNDECIDED if is_last else Action.CONTINUE))
    if not is_last and futile_below > 0:
        chance = _chance_of_decision(design, place, size, errors, smallest_effect)
        codes[chance < futile_below] = _CODES.index(Action.FUTILE)
    codes[estimates > reach] = _CODES.index(Action.BETTER)
    codes[estimates < -reach] = _CODES.index(Action.WORSE)
    if smallest_effect is not None:
        codes[size + reach < smallest_effect] = _CODES.index(Action.EQUIVALENT)
    return codes


def _chance_of_decision(
    design: LookDesign, place: int, size: Array, errors: Array, smallest_effect: float | None
) -> Array:
    """Return the chance that an arm is decided at the last look, given what it is at this one."""
    from scipy.special import ndtr

    share = design.looks[place] / design.looks[-1]
    last = errors * math.sqrt(share)
    reach = design.critical[-1] * last
    moves = np.where(last > 0, last * math.sqrt(1 - share), 1e-300)
    drift = size if smallest_effect is None else np.maximum(size, smallest_effect)
    expected = share * size + (1 - share) * drift
    chance = ndtr((expected - reach) / moves) + ndtr((-expected - reach) / moves)
    if smallest_effect is None:
        return np.asarray(chance)
    room = smallest_effect - reach
    within = ndtr((room - size) / moves) - ndtr((-room - size) / moves)
    return np.asarray(np.maximum(chance, np.where(room > 0, within, 0.0)))
