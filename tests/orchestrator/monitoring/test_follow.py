from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from orchestrator.ledger.event_stream import EventRow
from orchestrator.ledger.ledger import Ledger
from orchestrator.monitoring.follow import follow_events, follow_status, poll_status
from orchestrator.monitoring.status import SweepStatus
from orchestrator.storage.folder_lock import hold_lock
from orchestrator.trials.events import Failed, Finished, Progressed, Started
from orchestrator.trials.trial import Trial


class Elsewhere:
    """Be the run that is watched: each time the watcher sleeps, the next thing happens."""

    def __init__(self, ledger: Ledger, trials: tuple[Trial, ...], folder: Path) -> None:
        self.ledger = ledger
        self.ids = [trial.trial_id for trial in trials]
        self.script: Iterator[Callable[[], object]] = iter(())
        self.num_sleeps = 0
        self._lock = ExitStack()
        self._lock.enter_context(hold_lock(folder))

    def sleep(self, _seconds: float) -> None:
        self.num_sleeps += 1
        next(self.script)()

    def finish(self, index: int) -> None:
        key = self.ids[index]
        self.ledger.record(Finished(key, self.ledger.begin_attempt(key), {"knn_top1": 1.0}, 1.0, 1.0))

    def fail(self, index: int) -> None:
        key = self.ids[index]
        self.ledger.record(Failed(key, self.ledger.begin_attempt(key), "boom", ""))

    def leave(self) -> None:
        self._lock.close()

    def nothing(self) -> None:
        pass


@pytest.fixture
def elsewhere(ledger: Ledger, trials: tuple[Trial, ...], tmp_path: Path) -> Iterator[Elsewhere]:
    run = Elsewhere(ledger, trials, tmp_path)
    yield run
    run.leave()


@pytest.fixture
def reader(ledger: Ledger) -> Iterator[Ledger]:
    with Ledger.read(ledger.path) as opened:
        yield opened


def watch(
    run: Elsewhere, reader: Ledger, script: list[Callable[[], object]], *, is_terminal: bool = False
) -> tuple[SweepStatus, str]:
    run.script = iter(script)
    file = StringIO()
    console = Console(file=file, width=120, highlight=False, force_terminal=is_terminal, color_system=None)
    standing = follow_status(console, poll_status(reader, interval_s=1.0, sleep=run.sleep))
    return standing, file.getvalue()


def test_a_block_is_printed_when_something_changed_and_not_otherwise(elsewhere: Elsewhere, reader: Ledger) -> None:
    run = elsewhere
    standing, text = watch(
        run, reader, [run.nothing, run.nothing, lambda: run.finish(0), run.nothing, lambda: run.fail(1), run.leave]
    )
    # As it is found, after the result, after the failure, and when the run has gone.
    assert text.count("tiny\n") == 4
    assert run.num_sleeps == 6
    assert not standing.is_held
    assert not standing.all_done
    assert f"{run.ledger.records()[1].trial.label} (attempt 1): boom" in text.rpartition("tiny\n")[2]
    assert "\x1b" not in text


def test_progress_alone_prints_no_new_block(
    elsewhere: Elsewhere, reader: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.ledger.progress_buffer.PERIOD_S", 0.0)
    run = elsewhere
    attempt = run.ledger.begin_attempt(run.ids[0])
    run.ledger.record(Started(run.ids[0], attempt, worker="node:1"))
    progress = [
        lambda step=step: run.ledger.record(Progressed(run.ids[0], attempt, step, 9, 1.0)) for step in range(5)
    ]
    _, text = watch(run, reader, [*progress, run.leave])
    assert text.count("tiny\n") == 2
    assert "step 0/?" in text
    assert "interrupted: no run holds the results folder" in text


def test_it_ends_when_every_trial_has_a_result_though_the_run_is_still_there(
    elsewhere: Elsewhere, reader: Ledger
) -> None:
    run = elsewhere
    standing, text = watch(run, reader, [lambda index=index: run.finish(index) for index in range(len(run.ids))])
    assert standing.is_held
    assert standing.all_done
    assert text.count("tiny\n") == 1 + len(run.ids)


def test_a_sweep_that_no_run_holds_is_shown_once(elsewhere: Elsewhere, reader: Ledger) -> None:
    elsewhere.leave()
    _, text = watch(elsewhere, reader, [])
    assert text.count("tiny\n") == 1


def test_the_ledger_is_not_read_again_while_nothing_is_written(
    elsewhere: Elsewhere, reader: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = elsewhere
    reads: list[int] = []
    read = SweepStatus.read
    monkeypatch.setattr(SweepStatus, "read", lambda ledger: (reads.append(run.num_sleeps), read(ledger))[1])
    watch(run, reader, [*[run.nothing] * 5, lambda: run.finish(0), *[run.nothing] * 5, run.leave])
    assert reads == [0, 6, 12]


def test_on_a_terminal_the_block_is_redrawn_and_a_last_status_stays(
    elsewhere: Elsewhere, reader: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    run = elsewhere
    _, text = watch(run, reader, [lambda: run.finish(0), run.leave], is_terminal=True)
    drawn, _, last = text.rpartition("\x1b[2K")
    assert drawn.count("tiny\n") >= 3
    assert last.count("tiny\n") == 1


def test_the_cursor_comes_back_where_a_person_interrupts(
    elsewhere: Elsewhere, reader: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    file = StringIO()

    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    console = Console(file=file, width=120, force_terminal=True)
    with pytest.raises(KeyboardInterrupt):
        follow_status(console, poll_status(reader, interval_s=1.0, sleep=interrupt))
    assert file.getvalue().rindex("\x1b[?25h") > file.getvalue().rindex("\x1b[?25l")


def test_events_are_followed_until_the_run_has_let_go_and_none_is_missed(
    elsewhere: Elsewhere, reader: Ledger
) -> None:
    run = elsewhere

    def last_words() -> None:
        run.finish(1)
        run.leave()

    run.script = iter([run.nothing, lambda: run.finish(0), run.nothing, last_words])
    events: list[EventRow] = list(follow_events(reader, interval_s=1.0, sleep=run.sleep))
    told = [(event["kind"], event["trial_id"]) for event in events]
    assert told == [
        ("registered", None),
        ("begun", run.ids[0]),
        ("done", run.ids[0]),
        ("begun", run.ids[1]),
        ("done", run.ids[1]),
    ]
