from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from io import StringIO
from typing import Any, Self

import pytest
from rich.console import Console

from orchestrator.ledger.registration import SweepInfo
from orchestrator.monitoring.forming_verdicts import FormingVerdicts, Standing
from orchestrator.monitoring.live_view import LiveView
from orchestrator.monitoring.sweep_progress import SweepProgress
from orchestrator.statistics import Verdict
from orchestrator.trials.events import Failed, Finished, Progressed, Pruned, Reported, Started
from orchestrator.trials.records import State, TrialRecord
from orchestrator.trials.trial import Trial


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


class Screen:
    """A view of a sweep of two trials, its progress, and what it has written."""

    def __init__(
        self, trials: tuple[Trial, ...], record_of: Callable[..., TrialRecord], *, is_terminal: bool
    ) -> None:
        self.first, self.second = trials[0], replace(trials[1], label="nano [red]odd[/red] [/x] seed 1")
        self.clock = Clock()
        self._file = StringIO()
        records = [record_of(self.first), record_of(self.second)]
        self.progress = SweepProgress(records, num_slots=lambda: 2, shown_metric="knn_top1", clock=self.clock)
        console = Console(
            file=self._file, force_terminal=is_terminal, color_system=None, width=120, highlight=False
        )
        self.view = LiveView(console, self.progress, title="components", clock=self.clock)

    def __enter__(self) -> Self:
        self.view.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self.view.__exit__(*error)

    def __getattr__(self, name: str) -> Callable[..., None]:
        """Return what calls both callbacks in their order, as the scheduler does."""

        def call(*arguments: object) -> None:
            for callback in (self.progress, self.view):
                getattr(callback, name)(*arguments)

        return call

    @property
    def text(self) -> str:
        return self._file.getvalue()

    def draw(self) -> str:
        """Return what is newly written when time passes."""
        before = len(self.text)
        self.clock.now_s += 1.0
        self.view.on_tick()
        return self.text[before:]


@pytest.fixture
def plain(trials: tuple[Trial, ...], record_of: Callable[..., TrialRecord]) -> Screen:
    return Screen(trials, record_of, is_terminal=False)


@pytest.fixture
def live(
    trials: tuple[Trial, ...], record_of: Callable[..., TrialRecord], monkeypatch: pytest.MonkeyPatch
) -> Screen:
    monkeypatch.setenv("TERM", "xterm")
    return Screen(trials, record_of, is_terminal=True)


def test_without_a_terminal_every_step_of_a_trial_is_a_plain_line(plain: Screen) -> None:
    key = (plain.first.trial_id, 1)
    with plain as view:
        view.on_submit(plain.first)
        view.on_event(Started(*key, worker="node:1"))
        view.on_event(Progressed(*key, step=1, steps=4, images_per_s=50.0))
        view.on_event(Reported(*key, step=2, metrics={"knn_top1": 33.333, "loss": 9.876}))
        view.on_tick()
        view.on_event(
            Finished(*key, metrics={"knn_top1": 50.04, "loss": 3.21}, seconds=61.2, core_seconds=1.0)
        )
    assert plain.text.splitlines() == [
        "started  nano none seed 0",
        "rung     nano none seed 0 step 2: knn_top1 33.33, loss 9.88",
        "done     nano none seed 0: knn_top1 50.0, loss 3.2 (61 s)",
    ]


def test_a_metric_in_metres_is_shown_to_the_millimetre(plain: Screen) -> None:
    key = (plain.first.trial_id, 1)
    metrics = {"depth_rmse": 0.98765, "depth_abs_rel": 12.345}
    with plain as view:
        view.on_submit(plain.first)
        view.on_event(Reported(*key, step=2, metrics=metrics))
        view.on_event(Finished(*key, metrics=metrics, seconds=61.2, core_seconds=1.0))
    assert plain.text.splitlines()[-2:] == [
        "rung     nano none seed 0 step 2: depth_rmse 0.988, depth_abs_rel 12.35",
        "done     nano none seed 0: depth_rmse 0.988, depth_abs_rel 12.3 (61 s)",
    ]


def test_ends_other_than_success_say_what_happened(plain: Screen) -> None:
    with plain as view:
        view.on_submit(plain.first)
        view.on_submit(plain.second)
        view.on_event(Pruned(plain.first.trial_id, 1, step=2, seconds=1.0))
        view.on_event(Failed(plain.second.trial_id, 1, error="DataError: [bold]no[/bold] file", traceback=""))
    assert plain.text.splitlines()[2:] == [
        "pruned   nano none seed 0 at step 2",
        "failed   nano [red]odd[/red] [/x] seed 1: DataError: [bold]no[/bold] file",
    ]


def test_without_a_terminal_a_summary_comes_every_half_minute(plain: Screen) -> None:
    with plain as view:
        view.on_submit(plain.first)
        plain.clock.now_s += 29.9
        view.on_tick()
        assert "sweep" not in plain.text
        plain.clock.now_s += 0.2
        view.on_event(Progressed(plain.first.trial_id, 1, step=1, steps=4, images_per_s=50.0))
        view.on_tick()
        view.on_tick()
    assert plain.text.splitlines()[1:] == ["sweep    1 waiting, 1 running, time left not known yet"]


def test_without_a_terminal_no_control_characters_are_written(plain: Screen) -> None:
    with plain as view:
        view.on_submit(plain.first)
        view.on_event(Failed(plain.first.trial_id, 1, error="x", traceback=""))
        plain.clock.now_s += 60
        view.on_tick()
    assert "\x1b" not in plain.text
    assert "\r" not in plain.text


def test_a_long_line_is_not_broken(plain: Screen) -> None:
    with plain as view:
        view.on_submit(plain.first)
        view.on_event(Failed(plain.first.trial_id, 1, error="word " * 100, traceback=""))
    assert len(plain.text.splitlines()) == 2


def test_on_a_terminal_counts_and_a_line_for_every_running_trial_are_drawn(live: Screen) -> None:
    with live as view:
        view.on_submit(live.first)
        drawn = live.draw()
        assert "components" in drawn
        assert "0/2" in drawn
        assert "1 waiting, 1 pending, time left not known yet" in drawn
        view.on_event(Started(live.first.trial_id, 1, worker="node:1"))
        drawn = live.draw()
        assert "1 waiting, 1 running, time left not known yet" in drawn
        assert "starting" in drawn
        view.on_event(Progressed(live.first.trial_id, 1, step=1, steps=4, images_per_s=64.4))
        view.on_event(Reported(live.first.trial_id, 1, step=2, metrics={"knn_top1": 12.5}))
        row = next(line for line in live.draw().splitlines() if "nano none seed 0" in line)
        assert row.split()[-4:] == ["2/4", "64", "knn_top1", "12.5"]
        view.on_event(Progressed(live.first.trial_id, 1, step=4, steps=4, images_per_s=64.4))
        assert "probing" in live.draw()


def test_on_a_terminal_what_ends_a_trial_leaves_a_line_and_a_rung_does_not(live: Screen) -> None:
    key = (live.first.trial_id, 1)
    with live as view:
        view.on_submit(live.first)
        view.on_event(Reported(*key, step=2, metrics={"knn_top1": 12.5}))
        view.on_event(Finished(*key, metrics={"knn_top1": 50.0}, seconds=10.0, core_seconds=1.0))
        drawn = live.draw()
    assert "done     nano none seed 0: knn_top1 50.0 (10 s)" in live.text
    assert "rung  " not in live.text
    assert "1/2" in drawn
    assert "1 waiting, 1 done, " in drawn


def test_on_a_terminal_the_block_is_drawn_a_few_times_a_second_only(live: Screen) -> None:
    with live as view:
        live.draw()
        before = len(live.text)
        for _ in range(100):
            view.on_tick()
        assert len(live.text) == before


@pytest.mark.parametrize("is_terminal", [False, True])
def test_labels_with_markup_are_shown_as_they_are(
    is_terminal: bool,
    trials: tuple[Trial, ...],
    record_of: Callable[..., TrialRecord],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    screen = Screen(trials, record_of, is_terminal=is_terminal)
    with screen as view:
        view.on_submit(screen.second)
        screen.draw()
    assert "nano [red]odd[/red] [/x] seed 1" in screen.text


def test_a_terminal_that_cannot_redraw_gets_plain_lines(
    trials: tuple[Trial, ...], record_of: Callable[..., TrialRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "dumb")
    screen = Screen(trials, record_of, is_terminal=True)
    with screen as view:
        view.on_submit(screen.first)
    assert screen.text == "started  nano none seed 0\n"


@pytest.mark.parametrize("is_terminal", [False, True])
def test_control_characters_in_labels_and_errors_are_shown_as_text(
    is_terminal: bool,
    trials: tuple[Trial, ...],
    record_of: Callable[..., TrialRecord],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    file = StringIO()
    odd = replace(trials[0], label="nano \x1b[2Jodd\x9b")
    board = SweepProgress([record_of(odd)], num_slots=lambda: 1, shown_metric="knn_top1")
    console = Console(file=file, force_terminal=is_terminal, color_system=None, width=120, highlight=False)
    with LiveView(console, board, title="\x07title", clock=Clock()) as view:
        view.on_submit(odd)
        view.on_event(Failed(odd.trial_id, 1, error="no\n\x1b]0;x\x07 file", traceback=""))
    assert r"failed   nano \x1b[2Jodd\x9b: no \x1b]0;x\x07 file" in file.getvalue()
    assert not any(sequence in file.getvalue() for sequence in ("\x1b[2J", "\x1b]", "\x07", "\x9b"))


def test_a_trial_that_is_tried_again_leaves_a_line_with_the_reason(plain: Screen) -> None:
    failed = Failed(plain.second.trial_id, 1, error="DataError: [bold]no[/bold] file", traceback="")
    with plain as view:
        view.on_submit(plain.second)
        view.on_retry(failed, "retry 1 of 2")
        view.on_submit(plain.second)
    assert plain.text.splitlines()[1:] == [
        "again    nano [red]odd[/red] [/x] seed 1: DataError: [bold]no[/bold] file (retry 1 of 2)",
        "started  nano [red]odd[/red] [/x] seed 1",
    ]


def test_trials_that_are_left_out_leave_a_line_with_their_seeds_and_the_bound(plain: Screen) -> None:
    with plain as view:
        view.on_skip([plain.first, plain.second], "the time budget of 2 h")
        plain.clock.now_s += 60
        view.on_tick()
    assert plain.text.splitlines() == [
        f"left out 2 trials of seeds {plain.first.seed}: no room in the time budget of 2 h",
        "sweep    2 left out, about 0 s left",
    ]


def test_on_a_terminal_what_is_tried_again_or_left_out_leaves_a_line(live: Screen) -> None:
    with live as view:
        view.on_submit(live.first)
        view.on_retry(Failed(live.first.trial_id, 1, error="x", traceback=""), "retry 1 of 2")
        view.on_skip([live.first], "the time budget of 2 h")
        drawn = live.draw()
    assert "again    nano none seed 0: x (retry 1 of 2)" in live.text
    assert "left out 1 trials of seeds 0" in live.text
    assert "1 waiting, 1 left out" in drawn


@pytest.mark.parametrize("is_terminal", [False, True])
def test_a_complete_first_seed_leaves_a_sentence_and_a_table(
    is_terminal: bool,
    trials: tuple[Trial, ...],
    record_of: Callable[..., TrialRecord],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    clock, file = Clock(), StringIO()
    records = {trial.trial_id: record_of(trial) for trial in trials}
    progress = SweepProgress(tuple(records.values()), num_slots=lambda: 1, shown_metric="knn_top1", clock=clock)
    verdicts = FormingVerdicts(
        lambda: tuple(records.values()), SweepInfo("tiny", "", "", ("knn_top1",), (0, 1)), clock=clock
    )
    console = Console(file=file, force_terminal=is_terminal, color_system=None, width=80, highlight=False)
    with LiveView(console, progress, title="tiny", verdicts=verdicts, clock=clock) as view:
        for value, trial in enumerate(each for each in trials if each.seed == 0 and each.role.is_trained):
            progress.on_submit(trial)
            metrics = {"knn_top1": 40.0 + value}
            records[trial.trial_id] = record_of(trial, State.DONE, metrics=metrics)
            event = Finished(trial.trial_id, 1, metrics=metrics, seconds=1.0, core_seconds=1.0)
            for callback in (progress, verdicts, view):
                callback.on_event(event)
        clock.now_s += 6.0
        view.on_tick()
        clock.now_s += 1.0
        view.on_tick()
    sentence = "first seed complete (seed 0), one of 2: no verdict, nor with the 2 seeds planned: it takes 4."
    lines, words = file.getvalue().splitlines(), " ".join(file.getvalue().split())
    assert words.count(f"verdict {sentence}") == 1
    assert (words.count(sentence) > 1) is is_terminal  # the block goes on to say it
    assert len([line for line in lines if line.split() == ["norm@all", "41.0", "+1.0"]]) == 1


@pytest.mark.parametrize(("encoding", "marks"), [("utf-8", "▲ 2  · 1  "), ("ascii", "^ 2  . 1  ")])
def test_verdicts_so_far_have_their_marks(
    encoding: str, marks: str, plain: Screen, monkeypatch: pytest.MonkeyPatch
) -> None:
    verdicts = (Verdict.BETTER, Verdict.UNDECIDED, Verdict.BETTER)
    news = [Standing("g", 4, 6, ("4 of 6 seeds complete.", "more"), verdicts), Standing("", 2, 6, ("2 of 6.",))]
    monkeypatch.setattr(type(plain.view._console), "encoding", encoding)
    monkeypatch.setattr(FormingVerdicts, "news", lambda _self: news)
    plain.view._verdicts = FormingVerdicts(lambda: (), SweepInfo("tiny", "", "", ("miou",), (0,)))
    plain.view.on_tick()
    first = f"verdict  {marks}g: 4 of 6 seeds complete."
    assert plain.text.splitlines() == [first, "verdict  g: more", "verdict  2 of 6."]
