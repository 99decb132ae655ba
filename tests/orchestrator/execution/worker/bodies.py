"""Functions that stand in for the training of a trial, and the events of an attempt at it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from orchestrator.execution.worker import RunningJob
from orchestrator.trials.events import Event
from specvit.config import TrialConfig
from specvit.data import Dataset, Split
from specvit.trial import Observer, TrialResult

NO_DATA = Dataset(
    train=Split(images=np.zeros((0, 3, 4, 4), np.uint8)),
    val=Split(images=np.zeros((0, 3, 4, 4), np.uint8)),
    class_names=(),
    mask_names=(),
    fingerprint="",
)
Body = Callable[[TrialConfig, Dataset, Observer], TrialResult]


def trial_of(body: Body) -> Callable[..., TrialResult]:
    """Make a body stand in for ``run_trial``, with no images for its probes."""
    return lambda config, dataset, observer, **_: body(config, dataset, observer)


def until(attempt: RunningJob, kind: type[Event]) -> list[Event]:
    """Return the events of an attempt up to one of a kind."""
    events: list[Event] = []
    while not (events and type(events[-1]) is kind):
        more = attempt.next_events(10.0)
        assert more, f"no event after {events}"
        events += more
    return events
