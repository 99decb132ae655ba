"""The view of a running sweep: a live one on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from orchestrator.monitoring.forming_verdicts import FormingVerdicts, Standing
from orchestrator.monitoring.running_table import RunningTable
from orchestrator.monitoring.sweep_progress import SweepProgress
from orchestrator.reports.rendering.formatting import format_metric, format_seconds
from orchestrator.reports.rendering.terminal_group import GroupView
from orchestrator.reports.rendering.verdict_marks import ASCII_MARKS, MARKS, STYLES
from orchestrator.scheduling.protocols import SweepCallback
from orchestrator.statistics import Verdict
from orchestrator.trials.events import Event, Failed, Finished, Pruned, Reported
from orchestrator.trials.records import State
from orchestrator.trials.trial import Trial
from specvit.messages import one_line
from specvit.training.learnt import is_learning_metric

PLAIN_INTERVAL_S = 30.0
"""Least time between two summary lines of the plain view."""

LIVE_INTERVAL_S = 0.2
"""Least time between two drawings of the live view."""

_MOST_GROUPS = 3
"""Groups of which the live block shows what they say; each has its line above it when a seed is complete."""

_STYLES = {
    State.WAITING: "dim",
    State.PENDING: "dim",
    State.RUNNING: "cyan",
    State.DONE: "green",
    State.PRUNED: "yellow",
    State.FAILED: "red",
    State.SKIPPED: "yellow",
}


class LiveView(SweepCallback):
    """The view of a running sweep on a console.

    On a terminal, a live block: trials by state, a line per running trial with its step, rate and last
    metric, the time that is left, and what groups say so far. Elsewhere (a file, a pipe, a job's log) a line whenever a
    trial ends or reports, and a summary every half minute. In both, what a group says after each complete seed.
    """

    def __init__(
        self,
        console: Console,
        progress: SweepProgress,
        *,
        title: str,
        verdicts: FormingVerdicts | None = None,
        redraws: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take what to show and where.

        Args:
            console: Where to.
            progress: What is known of the sweep; the scheduler keeps it up to date.
            title: Name of the sweep.
            verdicts: What its groups say so far, likewise; None = it is not shown.
            redraws: Whether a block may be drawn over and over on a terminal.
            clock: Seconds, monotonic.
        """
        self._clock = clock
        self._console = console
        self._progress = progress
        self._title = title
        self._verdicts = verdicts
        self._last_print_s = clock()
        self._live: Live | None = None
        if redraws and console.is_terminal and not console.is_dumb_terminal:
            # Drawn from ``on_tick``: a thread that redraws would read the progress while it changes.
            self._live = Live(
                console=console, get_renderable=self._render, auto_refresh=False, transient=True
            )

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def on_submit(self, trial: Trial) -> None:
        """Print a line for a trial that was given to a slot, unless the block shows it."""
        if self._live is None:
            self._print(Text(f"started  {one_line(trial.label)}"))

    def on_event(self, event: Event) -> None:
        """Print a line for what ends a trial, and for a rung unless the block shows it."""
        line = self._line(event)
        if line is not None:
            self._print(line)

    def on_retry(self, event: Failed, why: str) -> None:
        """Print a line for an attempt that failed and whose trial will be tried again."""
        label = one_line(self._progress.label(event.trial_id))
        self._print(Text.assemble(("again    ", "yellow"), f"{label}: {one_line(event.error)} ({why})"))

    def on_give_up(self, event: Failed, why: str) -> None:
        """Print a line for a trial that failed, and why it is not tried again."""
        label = one_line(self._progress.label(event.trial_id))
        self._print(Text.assemble(("failed   ", "red"), f"{label}: {one_line(event.error)} (not tried again: {why})"))

    def on_skip(self, trials: Sequence[Trial], reason: str) -> None:
        """Print a line for trials that the budget has no room for."""
        seeds = sorted({trial.seed for trial in trials})
        text = f"{len(trials)} trials of seeds {', '.join(map(str, seeds))}: no room in {reason}"
        self._print(Text.assemble(("left out ", "yellow"), text))

    def on_tick(self) -> None:
        """Print what groups say once a seed is complete; draw the block again, or print a summary, if it is time."""
        for standing in () if self._verdicts is None else self._verdicts.news():
            self._tell(standing)
        now = self._clock()
        if now - self._last_print_s < (PLAIN_INTERVAL_S if self._live is None else LIVE_INTERVAL_S):
            return
        self._last_print_s = now
        if self._live is None:
            self._print(Text.assemble(("sweep    ", "bold"), self._summary()))
        else:
            self._live.refresh()

    def _print(self, line: Text) -> None:
        self._console.print(line, soft_wrap=True)

    def _tell(self, standing: Standing) -> None:
        """Print what a group says, which stays: a sentence each, and after its first seed a table."""
        for line in self._standing_lines(standing):
            # In a log a sentence is a line; on a terminal it is broken between words.
            self._console.print(Text.assemble(("verdict  ", "bold"), line), soft_wrap=self._live is None)
        if standing.table is not None:
            self._console.print(Padding(GroupView(standing.table, is_brief=True), (0, 0, 0, 9)))

    def _standing_lines(self, standing: Standing) -> list[Text]:
        """Return what a group says, a line each; before the first how many arms have which verdict, by its mark."""
        start = f"{one_line(standing.group)}: " if standing.group else ""
        marks = MARKS if self._console.encoding.startswith("utf") else ASCII_MARKS
        counts = Counter(standing.verdicts)
        counted = [(f"{marks[each]} {counts[each]}  ", STYLES.get(each, "")) for each in Verdict if counts[each]]
        texts = [Text(start + sentence) for sentence in standing.sentences]
        return [Text.assemble(*counted, texts[0]), *texts[1:]]

    def _line(self, event: Event) -> Text | None:
        label = one_line(self._progress.label(event.trial_id))
        match event:
            case Finished():
                metrics = _metrics_text(event.metrics, digits=1)
                return Text.assemble(("done     ", "green"), f"{label}: {metrics} ({event.seconds:.0f} s)")
            case Pruned():
                return Text.assemble(("pruned   ", "yellow"), f"{label} at step {event.step}")
            case Failed():
                return Text.assemble(("failed   ", "red"), f"{label}: {one_line(event.error)}")
            case Reported() if self._live is None:
                metrics = _metrics_text(event.metrics, digits=2)
                return Text(f"rung     {label} step {event.step}: {metrics}")
        return None

    def _summary(self) -> Text:
        counts = self._progress.counts
        parts = [Text(f"{counts[state]} {state}", style=_STYLES[state]) for state in State if counts.get(state)]
        left = self._progress.time_left()
        text = "time left not known yet" if left is None else f"about {format_seconds(left.seconds)} left"
        parts.append(Text(f"{text}, a guess until a trial ends" if left is not None and left.is_guess else text))
        return Text(", ").join(parts)

    def _render(self) -> RenderableType:
        counts = self._progress.counts
        total = sum(counts.values())
        ended = total - sum(counts.get(state, 0) for state in (State.WAITING, State.PENDING, State.RUNNING))
        head = Table.grid(padding=(0, 1))
        head.add_row(
            Text(one_line(self._title), style="bold"),
            ProgressBar(total=max(1, total), completed=ended, width=30),
            Text(f"{ended}/{total}"),
        )
        running = list(self._progress.running.values())
        parts: list[RenderableType] = [head, self._summary(), *([RunningTable(running)] if running else [])]
        standings = [] if self._verdicts is None else list(self._verdicts.standings.values())
        parts += [line for each in standings[:_MOST_GROUPS] for line in self._standing_lines(each)]
        if len(standings) > _MOST_GROUPS:
            parts.append(Text(f"and {len(standings) - _MOST_GROUPS} more groups", style="dim"))
        return Group(*parts)


def _metrics_text(metrics: Mapping[str, float], *, digits: int) -> str:
    """Return metrics for a line, without those that say what was learnt: they would fill it."""
    shown = {name: value for name, value in metrics.items() if not is_learning_metric(name)}
    return ", ".join(format_metric(name, value, digits=digits) for name, value in shown.items())
