"""What the scheduler does about attempts that fail, stall, or run out of memory; played by script, without waiting."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from orchestrator.execution.executor import Machine
from orchestrator.scheduling.breaker import Breaker, EverythingFailsError
from orchestrator.scheduling.retries import MAX_NODE_LOSSES
from orchestrator.storage.checkpoint_store import CheckpointStore
from orchestrator.sweep.resolved import Limits
from orchestrator.trials.events import Failed, Finished, Logged, Reported
from orchestrator.trials.records import Cause, State
from orchestrator.trials.resources import ResourceFloor, ResourceRequest
from orchestrator.trials.trial import Trial

Trials = tuple[Trial, ...]


@pytest.mark.parametrize("max_retries", [0, 1, 3])
@pytest.mark.parametrize("letter", ["X", "W"])
def test_a_trial_that_goes_on_failing_is_tried_again_as_often_as_allowed_and_every_traceback_is_kept(
    letter: str, max_retries: int, stage: Any, trials: Trials
) -> None:
    first, second = trials[:2]
    limits = Limits(max_retries=max_retries)
    assert stage.run({first: [f"sp{letter}"]}, trials=trials[:2], limits=limits)
    assert stage.states_of(first, second) == [State.FAILED, State.DONE]
    numbers = list(range(1, max_retries + 2))
    attempts = stage.attempts(first)
    assert [(row["attempt"], row["state"]) for row in attempts] == [(number, "failed") for number in numbers]
    assert [row["traceback"] for row in attempts] == [f"trace of {letter} {number}" for number in numbers]
    assert [why for _, why in stage.again] == [f"retry {number} of {max_retries}" for number in numbers[:-1]]
    # The view hears of the last failure alone as one, and the judge of one end.
    assert [event.attempt for event in stage.heard if isinstance(event, Failed)] == numbers[-1:]
    assert sorted(stage.ends) == sorted([(first.trial_id, State.FAILED), (second.trial_id, State.DONE)])
    assert all(stage.on_record)


def test_a_trial_that_fails_and_then_succeeds_is_done(stage: Any, trials: Trials) -> None:
    assert stage.run({trials[0]: ["sX", "sW", "spF"]}, trials=trials[:1], limits=Limits(max_retries=2))
    (record, *_) = stage.ledger.records()
    assert (record.state, record.num_attempts, record.error) == (State.DONE, 3, None)
    assert [row["cause"] for row in stage.attempts(trials[0])] == ["raised", "worker", None]
    assert stage.ends == [(trials[0].trial_id, State.DONE)]


def test_a_trial_that_failed_lets_one_pass_and_is_tried_again_before_those_that_wait(
    stage: Any, trials: Trials
) -> None:
    first, second, third = trials[:3]
    assert stage.run({first: ["sX", "spF"]}, trials=trials[:3])
    assert [job.trial_id for job in stage.executor.jobs] == [
        trial.trial_id for trial in (first, second, first, third)
    ]


def test_a_trial_waits_longer_every_time_before_it_is_tried_again(stage: Any, trials: Trials) -> None:
    begun_s: list[float] = []
    stage.on_submit = lambda _: begun_s.append(stage.clock.now_s)
    assert stage.run({trials[0]: ["X"]}, trials=trials[:1], limits=Limits(max_retries=3))
    # An attempt fails after a second; then come 1, 4 and 16 seconds.
    assert [later - earlier for earlier, later in pairwise(begun_s)] == [1 + 1, 1 + 4, 1 + 16]


def test_where_one_attempt_after_the_other_fails_the_run_is_stopped_and_says_why(stage: Any, trials: Trials) -> None:
    scripts = {trial: ["sX"] for trial in trials}
    begun_s = stage.clock.now_s
    text = r"the last \d+ attempts all failed: X 1 \(8 times\); X 2 \(8 times\); X 3 \(8 times\); 2 other errors"
    with pytest.raises(EverythingFailsError, match=text):
        stage.run(scripts, limits=Limits(max_retries=100), seconds_at_most=10_000)
    assert 300 <= stage.clock.now_s - begun_s < 310


def test_where_ten_trials_in_a_row_are_given_up_the_run_is_stopped_at_once(clock: Any) -> None:
    breaker = Breaker(clock)
    for number in range(10):
        breaker.check(oldest_s=math.inf)
        breaker.add_failure(Failed(f"{number}", 1, error="no such name", traceback=""), is_given_up=True)
    breaker.check(oldest_s=clock.now_s - 1)  # what was begun before may still end well
    with pytest.raises(EverythingFailsError, match=r"the last 10 attempts all failed: no such name \(10 times\)"):
        breaker.check(oldest_s=math.inf)
    breaker.add_success()
    breaker.check(oldest_s=math.inf)


def test_a_lost_node_is_no_retry_of_the_trial(stage: Any, trials: Trials) -> None:
    assert stage.run({trials[0]: ["sN", "sX", "sN", "spF"]}, trials=trials[:1], limits=Limits(max_retries=1))
    assert stage.states_of(trials[0]) == [State.DONE]
    assert [why for _, why in stage.again] == [
        f"retry 1 of {MAX_NODE_LOSSES}",
        "retry 1 of 1",
        f"retry 2 of {MAX_NODE_LOSSES}",
    ]


def test_a_trial_that_brings_every_node_down_is_given_up_in_the_end(stage: Any, trials: Trials) -> None:
    assert stage.run({trials[0]: ["sN"]}, trials=trials[:2], limits=Limits(max_retries=0))
    assert stage.states_of(trials[0], trials[1]) == [State.FAILED, State.DONE]
    assert len(stage.attempts(trials[0])) == MAX_NODE_LOSSES + 1


def test_the_state_of_a_trial_is_kept_until_its_numbers_are_on_record(
    stage: Any, trials: Trials, tmp_path: Path
) -> None:
    raises, loses = trials[:2]
    states = CheckpointStore(tmp_path / "checkpoints", every_s=1.0)
    (tmp_path / "checkpoints").mkdir()
    files = [states.file_of(trial.trial_id).location for trial in (raises, loses)]  # type: ignore[union-attr]
    for file in files:
        file.touch()
    kept: list[tuple[Cause, bool, bool]] = []

    def look(event: Failed, _: str) -> None:
        kept.append((event.cause, *(file.exists() for file in files)))  # type: ignore[arg-type]

    stage.on_retry = look
    scripts = {raises: ["sX", "spF"], loses: ["sW", "sN", "sG", "spF"]}
    assert stage.run(scripts, trials=[raises, loses], states=states)
    assert kept == [
        (Cause.RAISED, True, True),
        (Cause.WORKER, True, True),
        (Cause.NODE, False, True),  # the other trial is done by now
        (Cause.GPU_MEMORY, False, True),
    ]
    assert not any(file.exists() for file in files)


@pytest.mark.parametrize(("letter", "why"), [
    ("D", "it would diverge again"),
    ("I", "the configuration or the data have to change first"),
])
def test_what_would_fail_again_is_not_tried_again_and_the_reason_is_told(
    letter: str, why: str, stage: Any, trials: Trials
) -> None:
    told: list[str] = []
    stage.on_give_up = lambda _, why: told.append(why)
    assert stage.run({trials[0]: [f"sp{letter}"]}, trials=trials[:2])
    assert stage.states_of(*trials[:2]) == [State.FAILED, State.DONE]
    assert (len(stage.attempts(trials[0])), told, stage.again) == (1, [why], [])


def test_what_raises_the_same_in_another_process_is_not_tried_a_third_time(stage: Any, trials: Trials) -> None:
    told: list[str] = []
    stage.on_give_up = lambda _, why: told.append(why)
    assert stage.run({trials[0]: ["spE"]}, trials=trials[:2], limits=Limits(max_retries=5))
    assert (len(stage.attempts(trials[0])), told) == (2, ["it failed in the same way before"])
    assert stage.states_of(*trials[:2]) == [State.FAILED, State.DONE]


@pytest.mark.parametrize("letter", ["O", "C"])
def test_a_disk_or_a_device_may_fail_in_the_same_way_as_often_as_is_allowed(
    letter: str, stage: Any, trials: Trials
) -> None:
    assert stage.run({trials[0]: [*[f"sp{letter}"] * 3, "spF"]}, trials=trials[:1], limits=Limits(max_retries=3))
    assert stage.states_of(trials[0]) == [State.DONE]




def test_an_attempt_that_is_silent_for_too_long_is_killed_and_its_trial_tried_again(
    stage: Any, trials: Trials
) -> None:
    limits = Limits(stall_timeout_s=10.0)
    assert stage.run({trials[0]: ["sppp" + 30 * ".", "spF"]}, trials=trials[:2], limits=limits, num_slots=2)
    assert stage.executor.killed == [trials[0].trial_id]
    stalled, again = stage.attempts(trials[0])
    assert (stalled["state"], stalled["cause"], again["state"]) == ("failed", "stalled", "done")
    assert stalled["error"] == "no progress for 10 s at step 3; it was killed"
    # Started at the 1st second, heard of at the 4th, and killed when more than 10 have passed.
    assert stalled["held_s"] == 14.0
    assert [why for _, why in stage.again] == ["retry 1 of 2"]


@pytest.mark.parametrize("letter", ["p", "r", "l"])
def test_whatever_is_heard_of_an_attempt_is_a_sign_of_life(letter: str, stage: Any, trials: Trials) -> None:
    script = "s" + f"........{letter}" * (1 if letter == "r" else 4) + "F"
    assert stage.run({trials[0]: [script]}, trials=trials[:1], limits=Limits(stall_timeout_s=10.0))
    assert stage.executor.killed == []
    assert stage.states_of(trials[0]) == [State.DONE]


def test_an_attempt_whose_worker_has_not_begun_does_not_stall_and_costs_nothing(stage: Any, trials: Trials) -> None:
    limits, gpu = Limits(stall_timeout_s=10.0, max_gpu_hours=10 / 3600), {"gpus": 1.0}
    assert stage.run({trials[0]: [50 * "." + "spF"]}, trials=trials[:1], limits=limits, resources=gpu, gpus=1.0)
    assert stage.executor.killed == []
    # It is given its place at 0, starts at the 51st second, and ends at the 53rd.
    assert stage.ledger.gpu_hours() == pytest.approx(2 / 3600)


def test_a_trial_that_is_pending_for_too_long_waits_again_and_has_not_failed(stage: Any, trials: Trials) -> None:
    limits = Limits(start_timeout_s=20.0, max_retries=0)
    assert stage.run({trials[0]: [50 * ".", "spF"]}, trials=trials[:1], limits=limits)
    assert stage.executor.killed == [trials[0].trial_id]
    pending, again = stage.attempts(trials[0])
    assert (pending["cause"], pending["started_at"], pending["held_s"], again["state"]) == ("node", None, 0.0, "done")
    assert pending["error"] == "no worker has started within 20 s; others may hold what it takes"
    assert stage.states_of(trials[0]) == [State.DONE]


def test_a_run_in_which_nothing_but_pending_trials_is_says_what_it_waits_for_and_who_holds_it(
    stage: Any, trials: Trials, caplog: pytest.LogCaptureFixture
) -> None:
    others = {trials[0]: [70 * "." + "spF"], trials[1]: ["s" + 70 * "p" + "F"]}
    assert stage.run(others, trials=trials[:2], num_slots=2)
    assert caplog.messages == []  # the other one ran
    stage.held_by_others = "others hold 1 GPU"
    assert stage.run({trials[2]: [70 * "." + "spF"]}, trials=trials[2:3])
    (message,) = caplog.messages
    text = f"nothing runs: no worker has started for {trials[2].label}, which takes 1 core; others hold 1 GPU"
    assert message == text


def test_a_trial_that_always_stalls_is_given_up(stage: Any, trials: Trials) -> None:
    limits = Limits(stall_timeout_s=5.0, max_retries=1)
    assert stage.run({trials[0]: ["s" + 50 * "."]}, trials=trials[:2], limits=limits)
    assert stage.states_of(trials[0], trials[1]) == [State.FAILED, State.DONE]
    assert stage.executor.killed == [trials[0].trial_id] * 2


def test_late_events_of_a_replaced_attempt_change_nothing(stage: Any, trials: Trials) -> None:
    trial_id = trials[0].trial_id
    late = [
        Reported(trial_id, 1, step=7, metrics={"knn_top1": 99.0}),
        Logged(trial_id, 1, level="WARNING", text="late"),
        Finished(trial_id, 1, metrics={"knn_top1": 99.0}, seconds=1.0, core_seconds=1.0),
        Failed(trial_id, 1, error="late", traceback=""),
    ]
    stage.late = {5: late, 9: late}  # the first attempt is killed at 4
    limits = Limits(stall_timeout_s=2.5)
    assert stage.run({trials[0]: ["s" + 9 * ".", "sppprF"]}, trials=trials[:1], limits=limits)
    record = stage.ledger.records()[0]
    assert (record.state, record.num_attempts, record.metrics) == (State.DONE, 2, {"knn_top1": 50.0})
    assert [report.step for report in record.reports] == [2]
    assert [event.attempt for event in stage.heard if isinstance(event, Reported | Finished)] == [2, 2]
    assert len(stage.again) == 1


def test_an_end_and_what_came_with_it_are_recorded_in_one_transaction_before_anyone_hears_of_them(
    stage: Any, trials: Trials, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = trials[:2]
    rungs: list[int] = []

    def read(*_: object) -> bool:
        # What the other trial reported in the same moment is on record as well.
        rungs.append(sum(len(record.reports) for record in stage.ledger.records()))
        return False

    monkeypatch.setattr(stage, "report", read)
    assert stage.run({first: ["srF"], second: ["srF"]}, trials=trials[:2], num_slots=2)
    assert rungs == [2, 2]


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
