from __future__ import annotations

import logging

import pytest
import torch

from specvit.training.loop import StepReport
from specvit.training.step_log import StepLog, step_text


def test_a_step_is_told_with_its_loss_what_it_is_made_of_and_the_rate() -> None:
    terms = {"bce": torch.tensor(1.0), "dense": torch.tensor(0.25)}
    assert step_text(StepReport(20, 1.25, 310.4, terms), steps=200) == (
        "step 20/200: loss 1.25 = bce 1 + dense 0.25, 310 images/s"
    )
    assert step_text(StepReport(2, 0.5, 8.0, {"pixels": torch.tensor(0.5)}), steps=4) == (
        "step 2/4: loss 0.5, 8 images/s"
    )


@pytest.mark.parametrize(
    ("steps", "seconds_per_step", "told"),
    [
        (4, 1.0, [1, 4]),
        (30, 5.0, [1, *range(3, 31, 2), 30]),  # every 10 s
        (1000, 60.0, [1, *range(21, 1000, 20), 1000]),  # one in 50 of its steps, however long they take
    ],
)
def test_the_first_and_the_last_step_are_told_and_not_too_many_between(
    steps: int, seconds_per_step: float, told: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    now_s = 0.0
    log = StepLog(steps=steps, clock=lambda: now_s)
    with caplog.at_level(logging.INFO, logger="specvit"):
        for step in range(1, steps + 1):
            now_s += seconds_per_step
            log.step(StepReport(step, 1.0, 1.0))
    assert [int(line.split()[1].split("/")[0]) for line in caplog.messages] == list(dict.fromkeys(told))
