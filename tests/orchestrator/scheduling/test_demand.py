"""What is asked of an autoscaler while a run goes on."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from orchestrator.scheduling.demand import PERIOD_S, Demand
from orchestrator.trials.events import Failed, Finished, Progressed
from orchestrator.trials.resources import ResourceRequest
from orchestrator.trials.trial import Trial

from ..conftest import Clock

SMALL, LARGE = ResourceRequest(1, 1), ResourceRequest(8, 8)


class Asked:
    """A run of the first three trials, of which those of seed 1 are large, and what it asks for."""

    def __init__(self, trials: tuple[Trial, ...], clock: Clock) -> None:
        self.trials, self.clock = trials, clock
        self.told: list[Mapping[ResourceRequest, int]] = []
        first = trials[0]
        self.demand = Demand(
            trials, lambda wanted: self.told.append(dict(wanted)), clock=clock,
            request_for=lambda trial: LARGE if trial.seed != first.seed else SMALL,
        )

    def after(self, seconds: float) -> Mapping[ResourceRequest, int]:
        self.clock.now_s += seconds
        self.demand.on_tick()
        return self.told[-1]


@pytest.fixture
def asked(trials: tuple[Trial, ...], clock: Clock) -> Asked:
    seed = trials[0].seed
    small, large = [t for t in trials if t.seed == seed][:2], [t for t in trials if t.seed != seed][:1]
    return Asked((*small, *large), clock)


def test_room_is_asked_for_all_that_is_left_and_for_none_at_the_end(asked: Asked) -> None:
    first, second, large = asked.trials
    with asked.demand as demand:
        assert asked.after(0.0) == {SMALL: 2, LARGE: 1}
        demand.on_submit(first)
        demand.on_event(Progressed(first.trial_id, 1, step=1, steps=9, images_per_s=1.0))
        demand.on_retry(Failed(first.trial_id, 1, error="x", traceback=""), "retry")
        asked.after(PERIOD_S)
        assert len(asked.told) == 1  # nothing has changed
        demand.on_event(Finished(first.trial_id, 2, metrics={}, seconds=1.0, core_seconds=1.0))
        assert asked.after(PERIOD_S) == {SMALL: 1, LARGE: 1}
        demand.on_skip([large], "the time budget of 1 h")
        asked.after(PERIOD_S / 2)
        assert len(asked.told) == 2  # not so often
        assert asked.after(PERIOD_S / 2) == {SMALL: 1}
        demand.on_give_up(Failed(second.trial_id, 1, error="x", traceback=""), "it failed 3 times")
        assert asked.after(PERIOD_S) == {}
        demand.on_submit(second)  # somebody wants it tried again
        assert asked.after(PERIOD_S) == {SMALL: 1}
    assert asked.told[-1] == {}


def test_a_run_that_asked_for_nothing_takes_nothing_back(clock: Clock) -> None:
    told: list[object] = []
    with Demand([], told.append, request_for=lambda _: SMALL, clock=clock) as demand:
        demand.on_tick()
    assert told == []
