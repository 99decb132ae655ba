"""What trackers are told: the contract, against one in memory."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest

from orchestrator.ledger.event_stream import EventReader
from orchestrator.ledger.ledger import Ledger
from orchestrator.trackers.feed import Feed, SentRuns
from orchestrator.trials.events import Failed, Finished, Progressed, Pruned, Reported, Started
from orchestrator.trials.trial import Trial
from specvit.training.cost import TrainingCost

from .in_memory import InMemoryClient, Store

Tell = Callable[..., InMemoryClient]


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def tell(ledger: Ledger, store: Store, tmp_path: Path) -> Tell:
    """Return a function that tells a new client of the store all of the ledger, as a new process would."""

    def all_of_it(*, calls_left: int = 1_000_000, closes: bool = True, fresh: bool = False) -> InMemoryClient:
        client = InMemoryClient(store, calls_left)
        sent = SentRuns(tmp_path / "sent.txt", fresh=fresh)
        feed = Feed(lambda: client, sweep="tiny", namespace="here", settings={}, sent=sent)
        with ledger.snapshot() as connection:
            feed.take(EventReader().poll(connection))
        if closes:
            feed.close()
        return client

    return all_of_it


def run_to_end(ledger: Ledger, trial: Trial, *, steps: tuple[int, ...] = (1, 3), value: float = 5.0) -> None:
    """Have a trial of four steps report its rungs and its end."""
    key = trial.trial_id
    attempt = ledger.begin_attempt(key)
    ledger.record(Started(key, attempt, "w"))
    ledger.record(Progressed(key, attempt, 4, 4, 1.0))
    for step in steps:
        ledger.record(Reported(key, attempt, step, {"knn_top1": value + step}))
    ledger.record(Finished(key, attempt, {"knn_top1": value}, 2.0, 2.0, cost=TrainingCost(1.5, 80.0, 0.5)))


WHOLE = [
    (1, {"rung/knn_top1": 6.0}),
    (3, {"rung/knn_top1": 8.0}),
    (4, {"final/knn_top1": 5.0, "final/seconds": 2.0, "final/training_s": 1.5,
         "final/training_images_per_s": 80.0, "final/peak_memory_gib": 0.5}),
]
"""What ``run_to_end`` leaves by default."""


def test_a_trial_is_a_run_of_its_arm_and_seed(
    ledger: Ledger, trials: tuple[Trial, ...], tell: Tell, store: Store
) -> None:
    before = datetime.now(UTC).timestamp()
    run_to_end(ledger, trials[0])
    client = tell()
    assert client.is_closed
    assert list(store.named()) == ["none seed 0"]
    shown = store.named()["none seed 0"]
    assert (shown.points, shown.state) == (WHOLE, "done")
    assert before - 1 <= shown.times[0] <= shown.times[2] <= datetime.now(UTC).timestamp() + 1
    run = shown.run
    assert (run.sweep, run.arm, run.role, run.seed, run.trial_id) == ("tiny", "none", "baseline", 0, trials[0].trial_id)


def test_ends_are_told_apart_and_what_goes_on_stays_one_run(
    ledger: Ledger, trials: tuple[Trial, ...], tell: Tell, store: Store
) -> None:
    pruned, failed, retried, lost, waiting = trials[:5]
    ledger.record(Pruned(pruned.trial_id, ledger.begin_attempt(pruned.trial_id), 1, 1.0))
    for trial in (failed, retried):
        attempt = ledger.begin_attempt(trial.trial_id)
        ledger.record(Reported(trial.trial_id, attempt, 1, {"knn_top1": 6.0}))
        ledger.record(Failed(trial.trial_id, attempt, "boom", ""))
    run_to_end(ledger, retried)  # which reports its first rung again, as a trial does that goes on from a state
    ledger.record(Started(lost.trial_id, ledger.begin_attempt(lost.trial_id), "w"))
    ledger.begin_attempt(waiting.trial_id)
    tell()
    states = {shown.run.trial_id: shown.state for shown in store.runs.values()}
    assert states == {
        pruned.trial_id: "pruned",
        failed.trial_id: "failed",
        retried.trial_id: "done",
        lost.trial_id: "interrupted",
    }
    points = {shown.run.trial_id: shown.points for shown in store.runs.values()}
    assert points[retried.trial_id] == WHOLE
    assert points[failed.trial_id] == WHOLE[:1]


def test_a_run_is_continued_where_its_trial_is(
    ledger: Ledger, trials: tuple[Trial, ...], tell: Tell, store: Store
) -> None:
    key = trials[0].trial_id
    attempt = ledger.begin_attempt(key)
    ledger.record(Reported(key, attempt, 1, {"knn_top1": 6.0}))
    tell()
    assert store.named()["none seed 0"].state == "interrupted"
    ledger.release_running()
    run_to_end(ledger, trials[0])
    tell()
    assert (store.named()["none seed 0"].points, store.named()["none seed 0"].state) == (WHOLE, "done")


def test_what_was_told_whole_is_not_told_again_unless_all_is(
    ledger: Ledger, trials: tuple[Trial, ...], tell: Tell, store: Store
) -> None:
    run_to_end(ledger, trials[0])
    ledger.record(Pruned(trials[1].trial_id, ledger.begin_attempt(trials[1].trial_id), 1, 1.0))
    tell()
    assert store.num_begun == 2
    tell(calls_left=0)
    run_to_end(ledger, trials[1])  # as after ``retry --pruned``
    tell()
    assert store.num_begun == 3
    tell(fresh=True)
    assert store.num_begun == 6  # the second trial is begun, pruned, and resumed
    assert [shown.points for shown in store.runs.values()] == [WHOLE, WHOLE]


def test_a_trial_that_is_done_again_is_a_run_of_its_own(
    ledger: Ledger, trials: tuple[Trial, ...], tell: Tell, store: Store
) -> None:
    run_to_end(ledger, trials[0])
    tell()
    ledger.supersede([trials[0].trial_id])
    run_to_end(ledger, trials[0], value=7.0)
    tell()
    tell(fresh=True)
    named = store.named()
    assert list(named) == ["none seed 0", "none seed 0 (2)"]
    assert [shown.points[-1][1]["final/knn_top1"] for shown in named.values()] == [5.0, 7.0]


def test_wherever_a_process_is_killed_the_next_one_loses_and_doubles_nothing(
    ledger: Ledger, trials: tuple[Trial, ...], tell: Tell, store: Store
) -> None:
    for trial in trials[:2]:
        run_to_end(ledger, trial)
    for calls in range(10):  # two runs are begun, get three points each, and end
        store.runs.clear()
        (ledger.path.parent / "sent.txt").unlink(missing_ok=True)
        with pytest.raises(ConnectionError):
            tell(calls_left=calls)
        with suppress(ConnectionError):
            tell(calls_left=3)
        tell()
        assert [(shown.points, shown.state) for shown in store.runs.values()] == [(WHOLE, "done")] * 2, calls


def test_a_result_without_steps_and_numbers_that_are_not_finite_are_told(
    ledger: Ledger, trials: tuple[Trial, ...], tell: Tell, store: Store
) -> None:
    key = trials[0].trial_id
    ledger.record(Finished(key, ledger.begin_attempt(key), {"a": math.nan, "b": math.inf, "c": -math.inf}, 1.0, 1.0))
    tell()
    [(step, metrics)] = store.named()["none seed 0"].points
    assert (step, metrics["final/b"], metrics["final/c"]) == (0, math.inf, -math.inf)
    assert math.isnan(metrics["final/a"])


def test_the_last_rung_and_the_end_are_two_points_also_at_one_step(
    ledger: Ledger, trials: tuple[Trial, ...], tell: Tell, store: Store
) -> None:
    key = trials[0].trial_id
    attempt = ledger.begin_attempt(key)
    ledger.record(Reported(key, attempt, 7, {"knn_top1": 1.0}))  # whose steps were never told
    ledger.record(Finished(key, attempt, {"knn_top1": 2.0}, 1.0, 1.0))
    tell()
    assert [step for step, _ in store.named()["none seed 0"].points] == [7, 8]


def test_nothing_connects_where_nothing_is_to_be_told(
    ledger: Ledger, trials: tuple[Trial, ...], tmp_path: Path
) -> None:
    def refuse() -> InMemoryClient:
        raise AssertionError

    feed = Feed(refuse, sweep="tiny", namespace="", settings={}, sent=SentRuns(tmp_path / "sent.txt"))
    ledger.begin_attempt(trials[0].trial_id)
    with ledger.snapshot() as connection:
        feed.take(EventReader(reads_logs=False).poll(connection))
    feed.close()


def test_what_was_sent_is_read_up_to_where_its_file_was_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "sent.txt"
    SentRuns(path).add("a", 1)
    SentRuns(path).add("a", 12)
    SentRuns(path).add("b", 3)
    path.write_text(path.read_text()[: -len("3\n")])
    sent = SentRuns(path)
    assert (sent["a"], sent["b"], sent["c"]) == (12, 0, 0)
    assert SentRuns(path, fresh=True)["a"] == 0


def test_equal_trials_of_two_ledgers_are_two_runs(
    ledger: Ledger, trials: tuple[Trial, ...], store: Store, tmp_path: Path
) -> None:
    run_to_end(ledger, trials[0])
    for place in ("here", "there"):
        client = InMemoryClient(store)
        sent = SentRuns(tmp_path / place)
        feed = Feed(lambda client=client: client, sweep="tiny", namespace=place, settings={}, sent=sent)  # type: ignore[misc]
        with ledger.snapshot() as connection:
            feed.take(EventReader().poll(connection))
        feed.close()
    assert [shown.points for shown in store.runs.values()] == [WHOLE, WHOLE]
