from __future__ import annotations

import dataclasses
import math
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.ledger.errors import LedgerError
from orchestrator.ledger.ledger import Ledger
from orchestrator.ledger.provenance import Provenance
from orchestrator.ledger.registration import SweepInfo
from orchestrator.trials.events import Event, Failed, Finished, Logged, Progressed, Pruned, Reported, Started
from orchestrator.trials.records import Cause, Report, State, TrialRecord
from orchestrator.trials.resources import ResourceFloor, ResourceRequest
from orchestrator.trials.trial import Role, Trial
from specvit.config import ModelSettings, RungSettings, Treatment, TrialConfig
from specvit.data import DATA_SOURCES
from specvit.recipes import RECIPES

from .record_contract import EVENTS, A, B, RecordContract, make_event

INFO = SweepInfo(
    name="components",
    question="Which?",
    text="name: components\n",
    metrics=("knn_top1", "miou"),
    seeds=(0, 1),
    data_fingerprints={"group": "f00d"},
)
PROVENANCE = Provenance(
    started_at="2026-01-01T00:00:00+00:00",
    argv=("specsweep", "run"),
    host="node",
    git_sha="abc",
    git_dirty=True,
    versions={"python": "3.11"},
    platform="Linux",
    cpu="cpu",
    num_cores=2,
    memory_gib=None,
    gpus=("H100",),
)


def make_trial(name: str, seed: int = 0, *, group: str = "", label: str = "") -> Trial:
    return Trial(
        trial_id=f"{name}-{seed}",
        group_id="group",
        arm_id=name,
        group=group,
        arm=name,
        role=Role.BASELINE if name == "none" else Role.ARM,
        label=label or f"{name} seed {seed}",
        seed=seed,
        num_parameters=1000,
        extra_parameters_percent=2.5,
        config=TrialConfig(
            treatment=Treatment(specialize=name),
            model=ModelSettings(),
            data=DATA_SOURCES["scenes"](),
            objective=RECIPES["dinov2"](),
            probes=(),
            rungs=RungSettings(),
            seed=seed,
        ),
    )


TRIALS = tuple(make_trial(name, seed) for name in ("none", "norm@all") for seed in (0, 1))


class TestLedgerAsRecord(RecordContract):
    @contextmanager
    def make(self, folder: Path) -> Iterator[Ledger]:
        with Ledger.open(folder / "ledger.sqlite") as ledger:
            ledger.register(INFO, TRIALS, PROVENANCE)
            yield ledger

    def everything(self, record: Ledger) -> object:
        return record.records()

    def state(self, record: Ledger, trial_id: str) -> State:
        return record_of(record, trial_id).state


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite"


@pytest.fixture
def ledger(path: Path) -> Iterator[Ledger]:
    with Ledger.open(path) as ledger:
        ledger.register(INFO, TRIALS, PROVENANCE)
        yield ledger


def record_of(ledger: Ledger, trial_id: str) -> TrialRecord:
    (record,) = (record for record in ledger.records() if record.trial.trial_id == trial_id)
    return record


def test_registered_trials_wait_in_their_order_with_all_that_is_known_of_them(ledger: Ledger) -> None:
    for record, trial in zip(ledger.records(), TRIALS, strict=True):
        assert asdict(record.trial).items() <= vars(trial).items()
        assert (record.state, record.num_attempts, record.reports) == (State.WAITING, 0, ())
        assert record.trial.extra_parameters_percent == 2.5


def test_sweep_and_provenance_come_back_as_given(ledger: Ledger, path: Path) -> None:
    ledger.register(INFO, TRIALS, PROVENANCE)
    with Ledger.read(path) as reader:
        assert reader.sweep() == INFO
        assert reader.provenance() == (PROVENANCE, PROVENANCE)


def test_newest_provenance_is_that_of_the_run_which_began_the_newest_attempt(ledger: Ledger) -> None:
    assert ledger.newest_provenance() is None
    computing = replace(PROVENANCE, argv=("specsweep", "run", "computing.yaml"))
    ledger.register(INFO, TRIALS, computing)
    ledger.begin_attempt(A)
    ledger.register(INFO, TRIALS, PROVENANCE)  # a run that finds nothing to do
    assert ledger.newest_provenance() == computing


def test_finished_trial_is_done_with_its_rungs_and_metrics(ledger: Ledger) -> None:
    attempt = ledger.begin_attempt(A)
    events = [
        Started(A, attempt, "worker-1"),
        Progressed(A, attempt, 5, 20, 100.0),
        Reported(A, attempt, 10, {"knn_top1": 40.0}),
        Reported(A, attempt, 5, {"knn_top1": 0.1 + 0.2}),
        Finished(A, attempt, {"miou": 30.0, "knn_top1": 50.0}, 12.5, 11.0),
    ]
    assert [ledger.record(event) for event in events] == [True] * 5
    record = record_of(ledger, A)
    assert (record.state, record.num_attempts, record.step, record.steps) == (State.DONE, 1, 20, 20)
    assert record.reports == (Report(5, {"knn_top1": 0.1 + 0.2}), Report(10, {"knn_top1": 40.0}))
    assert record.metrics == {"miou": 30.0, "knn_top1": 50.0}
    assert (record.seconds, record.core_seconds, record.error) == (12.5, 11.0, None)


def test_pruned_trial_keeps_its_rungs_and_the_step_at_which_it_stopped(ledger: Ledger) -> None:
    attempt = ledger.begin_attempt(A)
    ledger.record(Reported(A, attempt, 10, {"knn_top1": 40.0}))
    assert ledger.record(Pruned(A, attempt, 11, 3.0))
    record = record_of(ledger, A)
    assert (record.state, record.step, record.seconds, record.metrics) == (State.PRUNED, 11, 3.0, {})
    assert len(record.reports) == 1


def test_failed_trial_keeps_error_and_traceback_also_with_text_that_is_not_unicode(ledger: Ledger) -> None:
    attempt = ledger.begin_attempt(A)
    assert ledger.record(Failed(A, attempt, "OSError: \udcff.png", "Traceback ...\n", 1.0))
    record = record_of(ledger, A)
    assert (record.state, record.error, record.traceback) == (State.FAILED, "OSError: ?.png", "Traceback ...\n")


def test_failed_trial_can_be_attempted_again_and_shows_the_newest_attempt(ledger: Ledger) -> None:
    first = ledger.begin_attempt(A)
    ledger.record(Reported(A, first, 10, {"knn_top1": 40.0}))
    ledger.record(Failed(A, first, "boom", "Traceback"))
    assert ledger.begin_attempt(A) == first + 1
    record = record_of(ledger, A)
    assert (record.state, record.num_attempts, record.error, record.reports) == (State.PENDING, 2, None, ())


def test_failure_rate_is_the_share_of_ended_attempts_that_failed_whatever_was_lost_with_its_run(ledger: Ledger) -> None:
    assert ledger.failure_rate() == 0.0
    ledger.begin_attempt(A)
    assert ledger.failure_rate() == 0.0
    ledger.record(Failed(A, ledger.begin_attempt(A), "boom", "Traceback"))  # the attempt before is lost by it
    ledger.record(Finished(A, ledger.begin_attempt(A), {}, 1.0, 1.0))
    ledger.record(Pruned(B, ledger.begin_attempt(B), 2, 1.0))
    assert ledger.failure_rate() == 1 / 3


def test_unknown_trial_cannot_be_attempted(ledger: Ledger, path: Path) -> None:
    with pytest.raises(LedgerError, match="'nobody' is not registered") as caught:
        ledger.begin_attempt("nobody")
    assert str(path) in str(caught.value)


def test_rung_reported_twice_keeps_its_first_values(ledger: Ledger) -> None:
    attempt = ledger.begin_attempt(A)
    assert ledger.record(Reported(A, attempt, 5, {"knn_top1": 1.0}))
    assert not ledger.record(Reported(A, attempt, 5, {"knn_top1": 2.0}))
    assert record_of(ledger, A).reports == (Report(5, {"knn_top1": 1.0}),)


def test_progress_reaches_readers_within_a_second(
    ledger: Ledger, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempt = ledger.begin_attempt(A)
    with Ledger.read(path) as reader:
        ledger.record(Progressed(A, attempt, 3, 20, 1.0))
        assert record_of(reader, A).step == 0
        monkeypatch.setattr("orchestrator.ledger.progress_buffer.PERIOD_S", 0.0)
        ledger.record(Progressed(A, attempt, 4, 20, 1.0))
        assert (record_of(reader, A).step, record_of(reader, A).steps) == (4, 20)


def test_released_trials_wait_again_and_their_attempts_can_no_longer_write(ledger: Ledger) -> None:
    first = ledger.begin_attempt(A)
    ledger.record(Reported(A, first, 5, {"knn_top1": 1.0}))
    ledger.record(Finished(B, ledger.begin_attempt(B), {}, 1.0, 1.0))
    assert ledger.release_running() == 1
    assert ledger.release_running() == 0
    record = record_of(ledger, A)
    assert (record.state, record.num_attempts, record.reports) == (State.WAITING, 1, ())
    assert not ledger.record(Finished(A, first, {}, 1.0, 1.0))
    assert record_of(ledger, B).state is State.DONE
    assert ledger.begin_attempt(A) == 2


def test_metrics_that_are_not_finite_survive(ledger: Ledger) -> None:
    attempt = ledger.begin_attempt(A)
    ledger.record(Reported(A, attempt, 5, {"knn_top1": math.nan}))
    ledger.record(Finished(A, attempt, {"knn_top1": -math.inf, "miou": math.nan}, 1.0, 1.0))
    record = record_of(ledger, A)
    assert math.isnan(record.reports[0].metrics["knn_top1"])
    assert record.metrics["knn_top1"] == -math.inf
    assert math.isnan(record.metrics["miou"])


def test_trials_no_longer_in_the_file_leave_the_records_and_come_back_with_their_results(ledger: Ledger) -> None:
    ledger.record(Finished(A, ledger.begin_attempt(A), {"miou": 3.0}, 1.0, 1.0))
    new = make_trial("mlp@all")
    ledger.register(INFO, (new, TRIALS[1]), PROVENANCE)
    assert [record.trial.trial_id for record in ledger.records()] == [new.trial_id, B]
    ledger.register(INFO, (TRIALS[1], TRIALS[0]), PROVENANCE)
    assert [record.trial.trial_id for record in ledger.records()] == [B, A]
    assert record_of(ledger, A).metrics == {"miou": 3.0}


def test_registering_again_renames_what_a_new_axis_renamed(ledger: Ledger) -> None:
    renamed = dataclasses.replace(TRIALS[0], group="model.scale=nano", label="nano none seed 0")
    ledger.register(INFO, (renamed,), PROVENANCE)
    assert [(record.trial.group, record.trial.label) for record in ledger.records()] == [(renamed.group, renamed.label)]


def test_another_sweep_is_refused_and_nothing_is_changed(ledger: Ledger, path: Path) -> None:
    before = ledger.records()
    with pytest.raises(LedgerError, match="'components', not of 'scales'") as caught:
        ledger.register(dataclasses.replace(INFO, name="scales"), TRIALS[:1], PROVENANCE)
    assert str(path) in str(caught.value)
    assert (ledger.records(), ledger.sweep(), len(ledger.provenance())) == (before, INFO, 1)


def test_changed_data_are_refused_naming_both_fingerprints(ledger: Ledger) -> None:
    changed = dataclasses.replace(INFO, data_fingerprints={"group": "beef"})
    with pytest.raises(LedgerError, match=r"f00d.*beef"):
        ledger.register(changed, TRIALS, PROVENANCE)
    assert ledger.sweep() == INFO


def test_changed_data_of_a_group_that_left_the_file_are_not_refused(ledger: Ledger) -> None:
    other = dataclasses.replace(make_trial("none"), trial_id="other", group_id="other")
    changed = dataclasses.replace(INFO, data_fingerprints={"other": "beef"})
    ledger.register(changed, (other,), PROVENANCE)
    assert ledger.sweep().data_fingerprints == {"group": "f00d", "other": "beef"}


def test_ledger_without_a_sweep_says_so(path: Path) -> None:
    with Ledger.open(path) as ledger, pytest.raises(LedgerError, match="no sweep"):
        ledger.sweep()


def test_reader_sees_what_was_committed_while_the_writer_goes_on(ledger: Ledger, path: Path) -> None:
    with Ledger.read(path) as reader:
        for number, trial in enumerate(TRIALS, start=1):
            ledger.record(Finished(trial.trial_id, ledger.begin_attempt(trial.trial_id), {}, 1.0, 1.0))
            assert [record.state for record in reader.records()].count(State.DONE) == number


def test_records_without_reports_have_everything_else(ledger: Ledger) -> None:
    ledger.record(Reported(A, ledger.begin_attempt(A), 5, {"knn_top1": 1.0}))
    whole, bare = ledger.records(), ledger.records(with_reports=False)
    assert whole[0].reports
    assert bare == tuple(dataclasses.replace(record, reports=()) for record in whole)


def test_reader_sees_by_the_version_whether_the_writer_has_written(ledger: Ledger, path: Path) -> None:
    with Ledger.read(path) as reader:
        before = reader.version()
        reader.records()
        assert reader.version() == before
        ledger.begin_attempt(A)
        assert reader.version() != before
        assert reader.version() == reader.version()


def test_what_is_read_in_a_moment_is_of_one_moment(ledger: Ledger, path: Path) -> None:
    count = "SELECT COUNT(*) FROM attempts"
    with Ledger.read(path) as reader:
        with reader.snapshot() as connection:
            assert connection.execute(count).fetchone()[0] == 0
            ledger.begin_attempt(A)
            assert connection.execute(count).fetchone()[0] == 0
        with reader.snapshot() as connection:
            assert connection.execute(count).fetchone()[0] == 1


def test_reader_can_ask_for_gpu_hours_which_writes_nothing(
    ledger: Ledger, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger._progress, "held_s", lambda _: 1800.0)
    ledger.record(Finished(A, ledger.begin_attempt(A, ResourceRequest(gpus=2.0, processes=2)), {}, 1.0, 1.0))
    with Ledger.read(path) as reader:
        # Two processes with two GPUs each, for half an hour.
        assert reader.gpu_hours() == 2.0


def test_reader_that_writes_is_refused_naming_the_file(ledger: Ledger, path: Path) -> None:
    with Ledger.read(path) as reader, pytest.raises(LedgerError, match=r"ledger\.sqlite"):
        reader.begin_attempt(A)


def test_ledger_can_be_closed_twice(path: Path) -> None:
    ledger = Ledger.open(path)
    ledger.close()
    ledger.close()
    assert path.exists()


def test_metrics_can_be_queried_with_plain_sql(ledger: Ledger, path: Path) -> None:
    ledger.record(Finished(A, ledger.begin_attempt(A), {"miou": 3.0}, 1.0, 1.0))
    with sqlite3.connect(path) as connection:
        rows = connection.execute("SELECT arm, seed, name, value FROM final_metrics").fetchall()
    assert rows == [("none", 0, "miou", 3.0)]


KILLED = """
import os, signal, sys
from pathlib import Path
from orchestrator.trials.events import Finished, Reported
from orchestrator.ledger.ledger import Ledger
ledger = Ledger.open(Path(sys.argv[1]))
attempt = ledger.begin_attempt(sys.argv[2])
ledger.record(Finished(sys.argv[2], attempt, {"miou": 3.0}, 1.0, 1.0))
attempt = ledger.begin_attempt(sys.argv[3])
ledger.record(Reported(sys.argv[3], attempt, 5, {"miou": 1.0}))
ledger._connection.execute("BEGIN IMMEDIATE")
ledger._connection.execute("DELETE FROM attempts WHERE 0")
ledger._connection.execute("UPDATE attempts SET metrics = '{}'")
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_ledger_of_a_killed_writer_has_all_that_was_recorded_and_no_half_transaction(path: Path) -> None:
    with Ledger.open(path) as ledger:
        ledger.register(INFO, TRIALS, PROVENANCE)
    done = subprocess.run([sys.executable, "-c", KILLED, str(path), A, B], check=False)
    assert done.returncode == -signal.SIGKILL
    with Ledger.read(path) as reader:
        assert record_of(reader, A).metrics == {"miou": 3.0}
        assert record_of(reader, B).reports == (Report(5, {"miou": 1.0}),)
    with Ledger.open(path) as ledger:
        assert ledger.release_running() == 1
        assert [record.state for record in ledger.records()[:2]] == [State.DONE, State.WAITING]


steps = st.tuples(
    st.sampled_from(["begin", "release", *EVENTS]), st.sampled_from([A, B]), st.integers(1, 3)
)


@settings(max_examples=40, deadline=None)
@given(st.lists(steps, max_size=25))
def test_any_order_of_events_leaves_each_trial_as_its_newest_attempt_says(
    tmp_path_factory: pytest.TempPathFactory, history: list[tuple[str | type[Event], str, int]]
) -> None:
    expected = {A: (State.WAITING, 0), B: (State.WAITING, 0)}
    states = {Started: State.RUNNING, Finished: State.DONE, Pruned: State.PRUNED, Failed: State.FAILED}
    is_open = (State.PENDING, State.RUNNING)
    with Ledger.open(tmp_path_factory.mktemp("ledger") / "ledger.sqlite") as ledger:
        ledger.register(INFO, TRIALS, PROVENANCE)
        for action, trial_id, number in history:
            state, attempt = expected[trial_id]
            if action == "release":
                running = [name for name, (value, _) in expected.items() if value in is_open]
                assert ledger.release_running() == len(running)
                expected |= {name: (State.WAITING, expected[name][1]) for name in running}
            elif action != "begin":
                accepted = ledger.record(make_event(action, trial_id, number))  # type: ignore[arg-type]
                assert not accepted or (state in is_open and number == attempt)
                if accepted:
                    expected[trial_id] = (states.get(action, state), attempt)  # type: ignore[call-overload]
            elif state is not State.DONE:
                assert ledger.begin_attempt(trial_id) == attempt + 1
                expected[trial_id] = (State.PENDING, attempt + 1)
        found = {record.trial.trial_id: (record.state, record.num_attempts) for record in ledger.records()[:2]}
    assert found == expected


def rows(path: Path, query: str) -> list[tuple[object, ...]]:
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as connection:
        return connection.execute(query).fetchall()


def test_what_an_attempt_logs_is_kept_in_its_order(ledger: Ledger, path: Path) -> None:
    first = ledger.begin_attempt(A)
    assert ledger.record(Logged(A, first, "WARNING", "careful \udcff"))
    assert ledger.record(Logged(A, first, "ERROR", "more\nlines"))
    assert ledger.record(Logged(B, ledger.begin_attempt(B), "INFO", "of another"))
    second = ledger.begin_attempt(A)
    assert not ledger.record(Logged(A, first, "WARNING", "late"))
    assert ledger.record(Logged(A, second, "WARNING", "anew"))
    assert rows(path, "SELECT trial_id, attempt, position, level, text FROM logs ORDER BY 1, 2, 3") == [
        (A, 1, 1, "WARNING", "careful ?"),
        (A, 1, 2, "ERROR", "more\nlines"),
        (A, 2, 1, "WARNING", "anew"),
        (B, 1, 1, "INFO", "of another"),
    ]


@pytest.mark.parametrize("cause", list(Cause))
def test_the_cause_of_a_failure_comes_back(ledger: Ledger, cause: Cause) -> None:
    ledger.record(Failed(A, ledger.begin_attempt(A), "boom", "Traceback", cause=cause))
    assert record_of(ledger, A).cause is cause
    ledger.begin_attempt(A)
    assert record_of(ledger, A).cause is None


def test_events_that_are_recorded_together_are_seen_together_and_those_that_count_are_returned(
    ledger: Ledger, path: Path
) -> None:
    attempt = ledger.begin_attempt(A)
    events = [
        Started(A, attempt, "worker-1"),
        Progressed(A, attempt, 3, 20, 1.0),
        Reported(A, attempt, 5, {"knn_top1": 1.0}),
        Reported(A, attempt, 5, {"knn_top1": 2.0}),
        Finished(A, attempt - 1, {}, 1.0, 1.0),
        Finished(A, attempt, {"miou": 3.0}, 1.0, 1.0),
        Logged(A, attempt, "WARNING", "late"),
    ]
    counted = ledger.record_all(events)
    assert [events.index(event) for event in counted] == [0, 1, 2, 5]
    with Ledger.read(path) as reader:
        record = record_of(reader, A)
    assert (record.state, record.metrics, len(record.reports)) == (State.DONE, {"miou": 3.0}, 1)
    assert (record.step, record.steps) == (20, 20)
    assert ledger.record_all([]) == []


def test_events_of_which_one_cannot_be_recorded_are_not_recorded_at_all(ledger: Ledger, path: Path) -> None:
    attempt = ledger.begin_attempt(A)
    too_large = Reported(A, attempt, 2**70, {})
    with pytest.raises(LedgerError, match=r"ledger\.sqlite"):
        ledger.record_all([Reported(A, attempt, 5, {"miou": 1.0}), Logged(A, attempt, "INFO", "x"), too_large])
    with pytest.raises(TypeError, match="does not know events"):
        ledger.record_all([Reported(A, attempt, 5, {"miou": 1.0}), Event(A, attempt)])
    assert rows(path, "SELECT step FROM reports") == rows(path, "SELECT text FROM logs") == []
    # The ledger goes on, and nothing of the lost transaction hinders what comes.
    assert ledger.record_all([Reported(A, attempt, 5, {"miou": 1.0})]) != []
    assert record_of(ledger, A).reports == (Report(5, {"miou": 1.0}),)


def test_a_reader_sees_nothing_of_what_is_being_recorded_together(ledger: Ledger, path: Path) -> None:
    attempt = ledger.begin_attempt(A)
    with Ledger.read(path) as reader:
        with ledger.transaction():
            ledger.record(Started(A, attempt, worker="node:1"))
            ledger.record(Reported(A, attempt, 5, {"miou": 1.0}))
            ledger.record(Finished(A, attempt, {"miou": 1.0}, 1.0, 1.0))
            assert record_of(reader, A).state is State.PENDING
            assert record_of(reader, A).reports == ()
        assert record_of(reader, A).state is State.DONE


def test_trials_that_are_left_out_say_why_until_they_are_taken_in_or_run(ledger: Ledger) -> None:
    ledger.skip([A, B], "the time budget of 1 h")
    ledger.skip([B], "the budget of 2 GPU hours")
    assert [(r.state, r.skip_reason) for r in ledger.records()[:3]] == [
        (State.SKIPPED, "the time budget of 1 h"),
        (State.SKIPPED, "the budget of 2 GPU hours"),
        (State.WAITING, None),
    ]
    attempt = ledger.begin_attempt(A)
    assert (record_of(ledger, A).state, record_of(ledger, A).skip_reason) == (State.PENDING, None)
    ledger.record(Failed(A, attempt, "boom", "Traceback"))
    assert record_of(ledger, A).state is State.FAILED
    ledger.clear_skipped()
    assert record_of(ledger, B).state is State.WAITING
    assert ledger.with_result() == frozenset()


def test_larger_shares_are_known_to_later_runs_the_newest_of_each_scale(ledger: Ledger, path: Path) -> None:
    assert ledger.resource_floors() == {}
    ledger.write_resource_floor("nano", ResourceFloor(0.5))
    ledger.write_resource_floor("micro", ResourceFloor(1.0, 32.5, 4))
    ledger.write_resource_floor("nano", ResourceFloor(1.0))
    with Ledger.read(path) as reader:
        assert reader.resource_floors() == {"nano": ResourceFloor(1.0), "micro": ResourceFloor(1.0, 32.5, 4)}


def test_gpu_hours_are_those_of_all_attempts_by_the_gpus_of_each(
    ledger: Ledger, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = 100.0
    monkeypatch.setattr("orchestrator.ledger.progress_buffer.time", SimpleNamespace(monotonic=lambda: now_s))
    assert ledger.gpu_hours() == 0.0
    failed = ledger.begin_attempt(A, ResourceRequest(gpus=0.5))
    pair = ledger.begin_attempt(B, ResourceRequest(gpus=2.0, processes=2))
    now_s += 7200.0
    ledger.record_all([Started(A, failed, worker="node:1"), Started(B, pair, worker="node:2")])
    assert ledger.gpu_hours() == 0.0  # they were pending
    now_s += 1800.0
    ledger.record(Failed(A, failed, "boom", "Traceback"))
    assert ledger.gpu_hours() == pytest.approx(0.25)
    # Of what runs, as far as has been heard of it.
    ledger.record(Progressed(B, pair, 1, 20, 1.0))
    assert ledger.gpu_hours() == pytest.approx(0.25 + 2.0)
    lost = ledger.begin_attempt(A, ResourceRequest(gpus=1.0))
    ledger.record(Started(A, lost, worker="node:1"))
    now_s += 3600.0
    ledger.record(Finished(B, pair, {}, 1.0, 1.0))
    assert ledger.gpu_hours() == pytest.approx(0.25 + 6.0)
    assert ledger.release_running() == lost - 1 == 1
    assert ledger.gpu_hours() == pytest.approx(0.25 + 6.0 + 1.0)
    with Ledger.read(path) as reader:
        assert reader.gpu_hours() == ledger.gpu_hours()


def test_the_gpu_hours_of_an_attempt_whose_driver_died_are_those_up_to_its_last_progress(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = 100.0
    monkeypatch.setattr("orchestrator.ledger.progress_buffer.time", SimpleNamespace(monotonic=lambda: now_s))
    with Ledger.open(path) as ledger:
        ledger.register(INFO, TRIALS, PROVENANCE)
        attempt = ledger.begin_attempt(A, ResourceRequest(gpus=1.0))
        ledger.record(Started(A, attempt, worker="node:1"))
        now_s += 3600.0
        ledger.record(Progressed(A, attempt, 1, 20, 1.0))
    now_s = 5.0
    with Ledger.open(path) as ledger:
        assert ledger.release_running() == 1
        assert ledger.gpu_hours() == pytest.approx(1.0)
