"""The log lines of a training: now and then a step, with its loss, what the loss is made of, and the rate."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from specvit.training.loop import StepReport

LOG_INTERVAL_S = 10.0
"""Least time between two lines."""

MOST_LINES = 50
"""Lines of a training at most, but for the first and the last one: hours of it must not swell the record."""

_LOG = logging.getLogger(__name__)


class StepLog:
    """The writer of a training's lines."""

    def __init__(self, *, steps: int, clock: Callable[[], float] = time.monotonic) -> None:
        """Start before the first step.

        Args:
            steps: Steps of the training.
            clock: Seconds, monotonic.
        """
        self._steps = steps
        self._clock = clock
        self._last_s: float | None = None
        self._last_step = 0

    def step(self, report: StepReport) -> None:
        """Log a step: the first one of this process, the last one, and some between."""
        now_s = self._clock()
        is_due = (
            self._last_s is None
            or report.step == self._steps
            or (
                now_s - self._last_s >= LOG_INTERVAL_S
                and (report.step - self._last_step) * MOST_LINES >= self._steps
            )
        )
        if is_due:
            self._last_s, self._last_step = now_s, report.step
            _LOG.info("%s", step_text(report, steps=self._steps))


def step_text(report: StepReport, *, steps: int) -> str:
    """Return a step in a line: ``step 20/200: loss 1.25 = bce 1.05 + dense 0.2, 310 images/s``.

    Args:
        report: The step.
        steps: Steps of the training.
    """
    terms = {name: float(term) for name, term in report.terms.items()}
    parts = " + ".join(f"{name} {value:.4g}" for name, value in terms.items())
    made_of = f" = {parts}" if len(terms) > 1 else ""
    return f"step {report.step}/{steps}: loss {report.loss:.4g}{made_of}, {report.images_per_s:.0f} images/s"
