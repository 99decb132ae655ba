from __future__ import annotations

import logging

import pytest

from orchestrator.execution.trial_log import event_text, forward_logs
from orchestrator.trials.events import Event, Failed, Finished, Logged, Progressed, Pruned, Reported, Started
from orchestrator.trials.records import Cause

KEY = ("a", 2)


@pytest.mark.parametrize(
    ("event", "text"),
    [
        (Started(*KEY, worker="node:17"), "attempt 2 started on node:17"),
        (Progressed(*KEY, step=1, steps=2, images_per_s=3.0), None),
        (Logged(*KEY, "INFO", "step 1/2: loss 1\x1b[2J"), r"step 1/2: loss 1\x1b[2J"),
        (Logged(*KEY, "WARNING", "the disk is full"), "WARNING: the disk is full"),
        (Reported(*KEY, step=1, metrics={"miou": 12.3456, "loss": 0.5}), "rung at step 1: miou 12.35, loss 0.5"),
        (Finished(*KEY, metrics={"miou": 50.0}, seconds=1.25, core_seconds=1.0), "done after 1.2 s: miou 50"),
        (Pruned(*KEY, step=3, seconds=1.0, why="by hand"), "pruned at step 3: by hand"),
        (Pruned(*KEY, step=3, seconds=1.0), "pruned at step 3"),
        (
            Failed(*KEY, error="E: x", traceback="Traceback\n  E: x\n", cause=Cause.GPU_MEMORY),
            "failed (gpu memory): E: x\nTraceback\n  E: x",
        ),
    ],
)
def test_events_are_lines_for_people(event: Event, text: str | None) -> None:
    assert event_text(event) == text


def test_how_a_training_goes_is_told_while_a_trial_runs_and_not_before_or_after() -> None:
    told: list[tuple[str, str]] = []
    logger = logging.getLogger("specvit.trial")
    before = logging.getLogger("specvit").level
    logger.info("before")
    with forward_logs(lambda level, text: told.append((level, text))):
        logger.info("step 1")
        logger.debug("not for people")
    logger.info("after")
    assert told == [("INFO", "step 1")]
    assert logging.getLogger("specvit").level == before
