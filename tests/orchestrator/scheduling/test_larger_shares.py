"""What the scheduler does about attempts that run out of memory, and trials that lack room; played by script."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.execution.executor import Machine
from orchestrator.sweep.resolved import Limits
from orchestrator.trials.records import State
from orchestrator.trials.resources import ResourceFloor, ResourceRequest
from orchestrator.trials.trial import Trial

Trials = tuple[Trial, ...]


def gpu_memory(stage: Any, trials: Trials, scripts: list[str], **resources: Any) -> list[tuple[float, int | None]]:
    """Run one trial on 4 GPUs; return GPUs and micro-batch of its attempts."""
    stage.run({trials[0]: scripts}, trials=trials[:1], resources=resources, gpus=4.0, limits=Limits(max_retries=1))
    return [(job.share.gpus, job.config.objective.micro_batch) for job in stage.executor.jobs]


def test_a_trial_that_runs_out_of_gpu_memory_gets_twice_the_share_up_to_a_gpu_then_half_the_micro_batch_down_to_1(
    stage: Any, trials: Trials
) -> None:
    found = gpu_memory(stage, trials, ["sG"], gpus=0.3)
    # A batch of 8 images. When there is nothing more to add, an ordinary retry is all that is left.
    grown = [(0.3, None), (0.6, None), (1.0, None), (1.0, 4), (1.0, 2), (1.0, 1)]
    assert found == [*grown, (1.0, 1)]
    assert stage.states_of(trials[0]) == [State.FAILED]
    assert [why for _, why in stage.again] == [
        "with 0.6 GPUs in place of 0.3",
        "with 1 GPUs in place of 0.6",
        "with micro_batch 4",
        "with micro_batch 2",
        "with micro_batch 1",
        "retry 1 of 1",
    ]


def test_growing_is_no_retry(stage: Any, trials: Trials) -> None:
    assert gpu_memory(stage, trials, ["sG", "sX", "sG", "spF"], gpus=0.25) == [
        (0.25, None), (0.5, None), (0.5, None), (1.0, None),
    ]  # fmt: skip
    assert stage.states_of(trials[0]) == [State.DONE]


def test_siblings_get_the_larger_share_too_and_so_do_later_runs(stage: Any, trials: Trials) -> None:
    first, second, third = trials[:3]
    resources = {"gpus": 0.25}
    assert stage.run({first: ["sG", "spF"]}, trials=[first, second], resources=resources, gpus=1.0)
    assert [job.share.gpus for job in stage.executor.jobs] == [0.25, 0.5, 0.5]
    assert stage.ledger.resource_floors() == {"nano": ResourceFloor(gpus=0.5)}
    assert stage.run(trials=[third], resources=resources, gpus=1.0)
    assert [job.share.gpus for job in stage.executor.jobs] == [0.5]


def test_an_attempt_that_ran_with_the_old_share_does_not_grow_it_twice(stage: Any, trials: Trials) -> None:
    first, second = trials[:2]
    scripts = {first: ["sG", "sppF"], second: ["spG", "sF"]}
    assert stage.run(scripts, trials=trials[:2], resources={"gpus": 0.25}, num_slots=2, gpus=1.0)
    assert [(job.trial_id, job.share.gpus) for job in stage.executor.jobs] == [
        (first.trial_id, 0.25),
        (second.trial_id, 0.25),
        (first.trial_id, 0.5),
        (second.trial_id, 0.5),
    ]
    assert [why for _, why in stage.again] == ["with 0.5 GPUs in place of 0.25"] * 2
    assert stage.ledger.resource_floors() == {"nano": ResourceFloor(gpus=0.5)}


def test_a_trial_that_runs_out_of_host_memory_gets_twice_of_what_was_its_part_up_to_all_of_the_machine(
    stage: Any, trials: Trials
) -> None:
    machine = Machine(memory_gib=64.0, num_trials=4)
    assert stage.run({trials[0]: ["sH", "sH", "sH", "spF"]}, trials=trials[:1], machine=machine)
    assert [(job.share.memory_gib, job.config.objective.micro_batch) for job in stage.executor.jobs] == [
        (0.0, None), (32.0, None), (64.0, None), (64.0, 4),
    ]  # fmt: skip
    assert stage.attempts(trials[0])[0]["cause"] == "host_memory"
    assert stage.again[0][1] == "with 32.0 GiB of the machine's memory reserved"


def test_the_head_of_the_queue_that_has_no_room_is_not_overtaken(stage: Any, trials: Trials) -> None:
    first, second, third = trials[:3]
    # The first grows to a whole GPU while the second still has its part: the third would fit, but has to wait.
    scripts = {first: ["sG", "spF"], second: ["spppppF"]}
    resources = {"gpus": 0.5}
    assert stage.run(scripts, trials=trials[:3], resources=resources, num_slots=3, gpus=1.25)
    order = [(job.trial_id, job.share.gpus) for job in stage.executor.jobs]
    assert order == [
        (first.trial_id, 0.5),
        (second.trial_id, 0.5),
        (first.trial_id, 1.0),
        (third.trial_id, 1.0),
    ]
    assert stage.ends[0] == (second.trial_id, State.DONE)


def test_the_share_of_every_attempt_is_on_record(stage: Any, trials: Trials) -> None:
    stage.run({trials[0]: ["sG", "spF"]}, trials=trials[:1], resources={"gpus": 0.5, "custom": {"disk": 1}}, gpus=2.0)
    assert [row["gpus"] for row in stage.attempts(trials[0])] == [0.5, 1.0]
    assert '"custom": [["disk", 1.0]]' in stage.attempts(trials[0])[0]["share"]
    assert stage.executor.jobs[0].share == ResourceRequest(gpus=0.5, custom=(("disk", 1.0),))


def test_where_nothing_runs_for_lack_of_room_people_are_told_for_which_trial(
    stage: Any, trials: Trials, caplog: pytest.LogCaptureFixture
) -> None:
    first = trials[0]
    assert not stage.run({}, trials=trials[:1], resources={"gpus": 4}, gpus=2, seconds_at_most=100)
    (message,) = caplog.messages
    assert message.startswith(f"nothing runs: there is no room for {first.label}, which takes 1 core, 4 GPUs")
