"""What becomes of each arm at a look: it is decided, stopped, or gets more seeds."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from orchestrator.statistics.dunnett import residual_df
from orchestrator.statistics.looks import LookDesign
from orchestrator.statistics.model import Values, fit_group
from orchestrator.statistics.verdicts import LEAST_SEEDS

Array = NDArray[np.float64]
Seek = Literal["both", "better"]
"""What more seeds are for: arms that may turn out better or worse, or better alone."""

FUTILE_BELOW = 0.1
"""Chance of a decision at the last look below which an arm is stopped.

With ten arms and the default looks from 4 to 16 seeds, the trials over those of the fixed design of the same power are
fewest from .05 to .15, whether two or five of them differ by 1.5, 2 or 3 standard deviations.
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
    seek: Seek = "both",
) -> dict[str, Decision]:
    """Decide what becomes of each arm at a look.

    An arm is ``better`` or ``worse`` if its |t| exceeds the look's critical value, ``equivalent`` if its repeated
    interval lies within the smallest effect, ``futile`` if it is not probable that the last look decides it, given its
    estimate and how uncertain that is. Stopping for futility spends no error: the boundaries are those without it.

    Args:
        design: The boundaries.
        look: Seeds of the look, one of ``design.looks``.
        values: By arm, its values so far; also of arms that were stopped before: their noise counts.
        baseline: The arm that the others are compared with.
        arms: Arms that are still in question; None: all.
        higher_is_better: The direction of the metric.
        smallest_effect: Smallest difference of interest, above 0; None: none is declared.
        futile_below: Chance below which an arm is futile; 0: none ever is.
        seek: ``better``: that an arm may turn out worse does not keep it from being futile.

    Returns:
        By arm in question, in the order of ``values``. Arms without an estimate, or with fewer than 4 seeds in common
        with the baseline, continue, and are undecided at the last look.

    Raises:
        ValueError: If the look is not one of the design's.

    Source:
        Repeated intervals: Jennison and Turnbull 1989, Journal of the Royal Statistical Society B 51. Arms that leave
        early, judged by boundaries that ignore it: Magirr, Jaki and Whitehead 2012, Biometrika 99. Predictive power
        under a flat prior: Spiegelhalter, Freedman and Blackburn 1986, Controlled Clinical Trials 7. Deviation: the t
        of the last look is taken for normal.
    """
    if look not in design.looks:
        raise ValueError(f"look must be one of {', '.join(map(str, design.looks))} seeds, not {look}")
    place = design.looks.index(look)
    model = fit_group(values, baseline=baseline, blocks=design.blocks)
    row = {arm: number for number, arm in enumerate(model.arms)}
    waiting = Action.UNDECIDED if look == design.looks[-1] else Action.CONTINUE
    sign = 1.0 if higher_is_better else -1.0
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
                design, place, np.array([sign * estimate]), np.array([error]), np.array([reach]),
                smallest_effect=smallest_effect, futile_below=futile_below, seek=seek,
            )
            action = _CODES[int(codes[0])]
        else:
            action = waiting
        decisions[arm] = Decision(action, estimate, estimate - reach, estimate + reach, num_seeds)
    return decisions


def follow(
    design: LookDesign,
    estimates: Array,
    variances: Array,
    *,
    smallest_effect: float | None = None,
    futile_below: float = FUTILE_BELOW,
    seek: Seek = "both",
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Follow many sweeps from look to look.

    Args:
        design: The boundaries.
        estimates: ``(J, B, k)`` differences to the baseline at each look; above 0 is better.
        variances: ``(J, B)`` residual variances.
        smallest_effect: In the unit of the estimates.
        futile_below: As in ``decide``.
        seek: As in ``decide``.

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
            design, place, estimates[place], errors, reach,
            smallest_effect=smallest_effect, futile_below=futile_below, seek=seek,
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
    seek: Seek,
) -> NDArray[np.int64]:
    """Return the place of each arm's action; estimates, standard errors and half-widths have one shape."""
    size = np.abs(estimates)
    is_last = place == len(design.looks) - 1
    codes = np.full(estimates.shape, _CODES.index(Action.UNDECIDED if is_last else Action.CONTINUE))
    if not is_last and futile_below > 0:
        chance = _chance_of_decision(design, place, estimates, errors, smallest_effect, seek)
        codes[chance < futile_below] = _CODES.index(Action.FUTILE)
    codes[estimates > reach] = _CODES.index(Action.BETTER)
    codes[estimates < -reach] = _CODES.index(Action.WORSE)
    if smallest_effect is not None:
        codes[size + reach < smallest_effect] = _CODES.index(Action.EQUIVALENT)
    return codes


def _chance_of_decision(
    design: LookDesign, place: int, estimates: Array, errors: Array, smallest_effect: float | None, seek: Seek
) -> Array:
    """Return the chance that an arm is decided at the last look, where any difference was as likely before the first.

    By the estimate alone the true difference is normal about it, and what the further seeds will say about that.
    """
    from scipy.special import ndtr

    share = design.looks[place] / design.looks[-1]
    last = errors * math.sqrt(share)
    reach = design.critical[-1] * last
    moves = np.where(last > 0, last * math.sqrt(1 / share - 1), 1e-300)
    chance = ndtr((estimates - reach) / moves)
    if seek == "both":
        chance += ndtr((-estimates - reach) / moves)
    if smallest_effect is not None:
        room = smallest_effect - reach
        within = ndtr((room - estimates) / moves) - ndtr((-room - estimates) / moves)
        chance += np.where(room > 0, within, 0.0)
    return np.asarray(chance)
