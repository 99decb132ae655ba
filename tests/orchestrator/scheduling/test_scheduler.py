from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from orchestrator.execution.executor import Job, Place
from orchestrator.ledger.ledger import Ledger
from orchestrator.run import LEDGER_NAME
from orchestrator.scheduling.allocation import Allocator
from orchestrator.scheduling.protocols import SweepCallback
from orchestrator.scheduling.scheduler import Scheduler
from orchestrator.storage.checkpoint_store import CheckpointStore, StateFile
from orchestrator.sweep.resolved import Limits
from orchestrator.sweep.resource_settings import Resources
from orchestrator.trials.events import Event, Failed, Finished, Progressed, Pruned, Reported, Started
from orchestrator.trials.records import Report, State
from orchestrator.trials.resources import ResourceRequest
from orchestrator.trials.trial import Trial

from ..plain_slots import PlainSlots

KEPT_NOWHERE = CheckpointStore(Path("absent"), every_s=0)

Script = Sequence[Callable[[str, int], Event]]
"""The events of an attempt, each made from its trial id and attempt."""


def started(trial_id: str, attempt: int) -> Event:
    return Started(trial_id, attempt, worker="node:1")


def progressed(trial_id: str, attempt: int) -> Event:
    return Progressed(trial_id, attempt, step=1, steps=4, images_per_s=100.0)


def reported(step: int, **metrics: float) -> Callable[[str, int], Event]:
    return lambda trial_id, attempt: Reported(trial_id, attempt, step=step, metrics=metrics)


def finished(trial_id: str, attempt: int) -> Event:
    return Finished(trial_id, attempt, metrics={"knn_top1": 50.0}, seconds=2.0, core_seconds=1.0)


def failed(trial_id: str, attempt: int) -> Event:
    return Failed(trial_id, attempt, error="ValueError: no", traceback="Traceback ...", seconds=1.0)


WHOLE: Script = (started, progressed, reported(2, knn_top1=30.0, loss=9.0), finished)


class ScriptedExecutor(PlainSlots):
    """Play scripts: with each poll one event of every running job. Complains if it is given too much."""

    def __init__(self, num_slots: int, scripts: Mapping[str, Script] | None = None) -> None:
        self.num_slots = num_slots
        self.scripts = scripts or {}
        self.jobs: list[Job] = []
        self.pruned: list[str] = []
        self.timeouts: list[float] = []
        self.most_at_once = 0
        self._playing: dict[str, Iterator[Event]] = {}

    def has_room(self, share: ResourceRequest, avoid: frozenset[str] = frozenset()) -> bool:  # noqa: ARG002
        return len(self._playing) < self.num_slots

    def kill(self, trial_id: str) -> None:
        raise AssertionError(f"nothing stalls, but {trial_id} was killed")

    def submit(self, job: Job) -> Place:
        assert len(self._playing) < self.num_slots
        self.jobs.append(job)
        script = self.scripts.get(job.trial_id, WHOLE)
        self._playing[job.trial_id] = (make(job.trial_id, job.attempt) for make in script)
        self.most_at_once = max(self.most_at_once, len(self._playing))
        return Place()

    def prune(self, trial_id: str, why: str = "") -> None:  # noqa: ARG002
        self.pruned.append(trial_id)
        attempt = next(job.attempt for job in self.jobs if job.trial_id == trial_id)
        self._playing[trial_id] = iter([Pruned(trial_id, attempt, step=2, seconds=1.0)])

    def poll(self, timeout_s: float) -> Sequence[Event]:
        self.timeouts.append(timeout_s)
        events = [event for script in self._playing.values() for event in [next(script, None)] if event]
        for event in events:
            if isinstance(event, Finished | Pruned | Failed) and event.attempt == self._attempt(event.trial_id):
                del self._playing[event.trial_id]
        return events

    def close(self) -> None:
        pass

    def _attempt(self, trial_id: str) -> int:
        return next(job.attempt for job in self.jobs if job.trial_id == trial_id)


class Listener(SweepCallback):
    """Observer and judge: keep what was heard, and what a reader of the ledger saw at that moment."""

    def __init__(self, path: Path, hopeless: Sequence[str] = ()) -> None:
        self.path = path
        self.hopeless = hopeless
        self.verdicts: dict[str, Sequence[str]] = {}
        self.heard: list[Event] = []
        self.submissions: list[str] = []
        self.states_at_submission: list[State] = []
        self.verdicts_asked: list[tuple[str, int, float]] = []
        self.ends: list[tuple[str, State]] = []
        self.on_record: dict[type[Event], list[bool]] = defaultdict(list)
        self.num_ticks = 0

    def on_submit(self, trial: Trial) -> None:
        self.submissions.append(trial.trial_id)
        with Ledger.read(self.path) as reader:
            states = {record.trial.trial_id: record.state for record in reader.records()}
        self.states_at_submission.append(states[trial.trial_id])

    def on_event(self, event: Event) -> None:
        self.heard.append(event)
        with Ledger.read(self.path) as reader:
            record = next(r for r in reader.records() if r.trial.trial_id == event.trial_id)
        match event:
            case Reported(step=step, metrics=metrics):
                self.on_record[Reported].append(Report(step, metrics) in record.reports)
            case Finished():
                self.on_record[Finished].append(record.state is State.DONE)
            case Failed():
                self.on_record[Failed].append(record.state is State.FAILED)
            case Pruned():
                self.on_record[Pruned].append(record.state is State.PRUNED)

    def on_retry(self, event: Failed, why: str) -> None:
        raise AssertionError(f"nothing is tried again, but {event} was: {why}")

    def on_skip(self, trials: Sequence[Trial], reason: str) -> None:
        raise AssertionError(f"there is no budget, but {trials} were left out: {reason}")

    def on_tick(self) -> None:
        self.num_ticks += 1

    def report(self, trial_id: str, step: int, value: float) -> Sequence[str]:
        self.verdicts_asked.append((trial_id, step, value))
        with Ledger.read(self.path) as reader:
            record = next(r for r in reader.records() if r.trial.trial_id == trial_id)
        assert step in [report.step for report in record.reports]
        return self.verdicts.get(trial_id, [trial_id] if trial_id in self.hopeless else [])

    def why(self, trial_id: str) -> str:
        return f"{trial_id} is hopeless"

    def end(self, trial_id: str, state: State) -> None:
        self.ends.append((trial_id, state))

    def exempt(self, trial_id: str) -> None:
        pass


@pytest.fixture
def listener(ledger: Ledger, tmp_path: Path) -> Listener:
    return Listener(tmp_path / LEDGER_NAME)


def run(
    trials: Sequence[Trial],
    ledger: Ledger,
    listener: Listener,
    executor: ScriptedExecutor,
    should_stop: Callable[[], bool] = lambda: False,
    kept: CheckpointStore = KEPT_NOWHERE,
) -> bool:
    scheduler = Scheduler(
        ledger=ledger,
        judge=listener,
        judged_metric="knn_top1",
        executor=executor,
        callbacks=[listener],
        states=kept,
        allocator=Allocator(Resources()),
        limits=Limits(max_retries=0),
        should_stop=should_stop,
    )
    return scheduler.run(trials)


def states(ledger: Ledger) -> list[State]:
    return [record.state for record in ledger.records()]


@pytest.mark.parametrize("num_slots", [1, 3, 20])
def test_trials_are_submitted_in_their_order_and_never_more_than_there_are_slots(
    num_slots: int, trials: tuple[Trial, ...], ledger: Ledger, listener: Listener
) -> None:
    executor = ScriptedExecutor(num_slots)
    assert run(trials, ledger, listener, executor)
    wanted = [trial.trial_id for trial in trials]
    assert [job.trial_id for job in executor.jobs] == listener.submissions == wanted
    assert executor.most_at_once == min(num_slots, len(trials))
    assert states(ledger) == [State.DONE] * len(trials)


def test_a_job_carries_the_label_configuration_and_attempt_of_its_trial(
    trials: tuple[Trial, ...], ledger: Ledger, listener: Listener
) -> None:
    executor = ScriptedExecutor(1)
    run(trials[:1], ledger, listener, executor)
    assert executor.jobs == [Job(trials[0].trial_id, 1, trials[0].label, trials[0].config)]


def test_a_job_says_where_its_state_is_which_is_given_up_when_the_end_is_on_record_and_not_before(
    trials: tuple[Trial, ...], ledger: Ledger, listener: Listener, tmp_path: Path
) -> None:
    told: dict[str, State] = {}

    class Recording(CheckpointStore):
        def ended(self, event: Event) -> None:
            with Ledger.read(tmp_path / LEDGER_NAME) as reader:
                told[event.trial_id] = next(r.state for r in reader.records() if r.trial.trial_id == event.trial_id)

    hopeless, bad = trials[1].trial_id, trials[2].trial_id
    listener.hopeless = [hopeless]
    executor = ScriptedExecutor(1, {bad: (started, failed)})
    run(trials[:3], ledger, listener, executor, kept=Recording(tmp_path / "checkpoints", every_s=5.0))
    assert [job.state for job in executor.jobs] == [
        StateFile(tmp_path / "checkpoints" / f"{trial.trial_id}.safetensors", 5.0) for trial in trials[:3]
    ]
    assert told == {trials[0].trial_id: State.DONE, hopeless: State.PRUNED, bad: State.FAILED}


def test_a_freed_slot_is_filled_while_others_still_run(
    trials: tuple[Trial, ...], ledger: Ledger, listener: Listener
) -> None:
    long = (started, *[progressed] * 20, finished)
    executor = ScriptedExecutor(2, {trials[0].trial_id: long})
    run(trials[:4], ledger, listener, executor)
    ends = [trial_id for trial_id, _ in listener.ends]
    assert ends == [trials[i].trial_id for i in (1, 2, 3, 0)]


def test_everything_is_on_record_before_the_view_and_the_judge_hear_of_it(
    trials: tuple[Trial, ...], ledger: Ledger, listener: Listener
) -> None:
    bad, hopeless = trials[1].trial_id, trials[3].trial_id
    listener.hopeless = [hopeless]
    run(trials, ledger, listener, ScriptedExecutor(2, {bad: (started, failed)}))
    assert listener.states_at_submission == [State.PENDING] * len(trials)
    assert {kind: (len(seen), all(seen)) for kind, seen in listener.on_record.items()} == {
        Reported: (len(trials) - 1, True),
        Finished: (len(trials) - 2, True),
        Failed: (1, True),
        Pruned: (1, True),
    }


def test_the_judge_hears_the_judged_metric_of_every_rung_and_every_end(
    trials: tuple[Trial, ...], ledger: Ledger, listener: Listener
) -> None:
    first, second = trials[0].trial_id, trials[1].trial_id
    scripts = {
        first: (reported(2, loss=9.0, knn_top1=31.0), reported(4, knn_top1=32.0, loss=8.0), finished),
        second: (reported(2, loss=9.0), failed),
    }
    run(trials[:2], ledger, listener, ScriptedExecutor(1, scripts))
    assert listener.verdicts_asked == [(first, 2, 31.0), (first, 4, 32.0)]
    assert listener.ends == [(first, State.DONE), (second, State.FAILED)]


def test_a_verdict_against_a_trial_becomes_an_order_to_the_executor(
    trials: tuple[Trial, ...], ledger: Ledger, listener: Listener
) -> None:
    # Trial 2 had waited for what trial 3 reports; trial 0 has ended.
    listener.verdicts = {trials[3].trial_id: [trials[2].trial_id, trials[0].trial_id]}
    executor = ScriptedExecutor(2)
    assert run(trials[:4], ledger, listener, executor)
    assert executor.pruned == [trials[2].trial_id]
    assert (trials[2].trial_id, State.PRUNED) in listener.ends
    assert states(ledger)[:4] == [State.DONE, State.DONE, State.PRUNED, State.DONE]


def test_a_failed_trial_is_recorded_with_its_traceback_and_the_others_go_on(
    trials: tuple[Trial, ...], ledger: Ledger, listener: Listener
) -> None:
    assert run(trials, ledger, listener, ScriptedExecutor(2, {trials[0].trial_id: (started, failed)}))
    first, *others = ledger.records()
    assert (first.state, first.error, first.traceback) == (State.FAILED, "ValueError: no", "Traceback ...")
    assert [record.state for record in others] == [State.DONE] * (len(trials) - 1)


def test_an_event_of_an_older_attempt_changes_nothing_and_is_not_shown(
    trials: tuple[Trial, ...], ledger: Ledger, listener: Listener
) -> None:
    trial = trials[0]
    assert ledger.begin_attempt(trial.trial_id) == 1
    ledger.release_running()

    def stale(trial_id: str, attempt: int) -> Event:
        return Finished(trial_id, attempt - 1, metrics={"knn_top1": 99.0}, seconds=1.0, core_seconds=1.0)

    def stale_rung(trial_id: str, attempt: int) -> Event:
        return Reported(trial_id, attempt - 1, step=2, metrics={"knn_top1": 99.0})

    script = (started, stale_rung, stale, *WHOLE[1:])
    assert run([trial], ledger, listener, ScriptedExecutor(1, {trial.trial_id: script}))
    record = ledger.records()[0]
    assert (record.num_attempts, record.metrics) == (2, {"knn_top1": 50.0})
    assert {event.attempt for event in listener.heard} == {2}
    assert listener.verdicts_asked == [(trial.trial_id, 2, 30.0)]
    assert listener.ends == [(trial.trial_id, State.DONE)]


def test_a_wish_to_stop_ends_the_loop_and_leaves_the_rest_waiting(
    trials: tuple[Trial, ...], ledger: Ledger, listener: Listener
) -> None:
    def one_is_done() -> bool:
        return bool(listener.ends)

    executor = ScriptedExecutor(1)
    assert not run(trials[:3], ledger, listener, executor, should_stop=one_is_done)
    assert [job.trial_id for job in executor.jobs] == [trials[0].trial_id]
    assert states(ledger)[:3] == [State.DONE, State.WAITING, State.WAITING]


def test_what_runs_when_the_loop_is_stopped_waits_again_once_it_is_released(
    trials: tuple[Trial, ...], ledger: Ledger, listener: Listener
) -> None:
    def one_has_reported() -> bool:
        return bool(listener.verdicts_asked)

    assert not run(trials[:3], ledger, listener, ScriptedExecutor(2), should_stop=one_has_reported)
    assert states(ledger)[:3] == [State.RUNNING, State.RUNNING, State.WAITING]
    assert ledger.release_running() == 2
    assert states(ledger)[:3] == [State.WAITING] * 3


def test_an_executor_with_nothing_to_tell_is_waited_for_and_can_be_left(
    trials: tuple[Trial, ...], ledger: Ledger, listener: Listener
) -> None:
    executor = ScriptedExecutor(1, {trials[0].trial_id: ()})
    assert not run(trials[:1], ledger, listener, executor, should_stop=lambda: len(executor.timeouts) >= 5)
    assert len(executor.timeouts) == listener.num_ticks == 5
    # It is the executor that sleeps: long enough not to spin, short enough to hear of Ctrl-C.
    assert all(0.05 <= timeout_s <= 1 for timeout_s in executor.timeouts)


def test_without_trials_nothing_is_asked_of_the_executor(ledger: Ledger, listener: Listener) -> None:
    executor = ScriptedExecutor(2)
    assert run((), ledger, listener, executor)
    assert (executor.jobs, executor.timeouts) == ([], [])
