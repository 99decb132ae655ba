"""The running trials of a live view, in the width there is: numbers and seeds whole, the arm shortened first."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console, ConsoleOptions, RenderResult
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from orchestrator.monitoring.sweep_progress import RunningTrial
from specvit.messages import one_line

_BAR_WIDTH = 16
_LEAST_LABEL = 30
"""Characters that a label keeps, if it has them, before the bar goes."""

_HEADINGS = ("step", "images/s", "last rung")


class RunningTable:
    """A line for every running trial: label, bar, step, rate, last rung."""

    def __init__(self, trials: Sequence[RunningTrial]) -> None:
        """Take the trials, at least one."""
        self._labels = [one_line(trial.label) for trial in trials]
        self._trials = trials
        self._cells = [
            (where_text(trial), f"{trial.images_per_s:.0f}" if trial.images_per_s else "", one_line(trial.last_metric))
            for trial in trials
        ]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the table."""
        numbers = sum(
            2 + max(len(heading), *(len(cells[column]) for cells in self._cells))
            for column, heading in enumerate(_HEADINGS)
        )
        longest = max(map(len, self._labels))
        room = options.max_width - numbers - 2
        has_bar = room - _BAR_WIDTH - 2 >= min(longest, _LEAST_LABEL)
        room -= (_BAR_WIDTH + 2) * has_bar
        table = Table(box=None, padding=(0, 1), header_style="dim")
        table.add_column("trial", no_wrap=True)
        if has_bar:
            table.add_column("", no_wrap=True)
        for heading in _HEADINGS:
            table.add_column(heading, no_wrap=True, justify="left" if heading == "last rung" else "right")
        for trial, label, cells in zip(self._trials, self._labels, self._cells, strict=True):
            bar = [ProgressBar(total=trial.steps or 1, completed=trial.step, width=_BAR_WIDTH)] * has_bar
            table.add_row(Text(shortened(label, room)), *bar, *map(Text, cells))
        yield table


def where_text(trial: RunningTrial) -> str:
    """Return how far a trial is; at the end of its steps, and without any, it probes."""
    if trial.steps is None:
        return "pending" if trial.started is None else "starting"
    return f"{trial.step}/{trial.steps}" if trial.step < trial.steps else "probing"


def shortened(label: str, width: int) -> str:
    """Return a label of ``width`` characters at most, with its seed whole: ``nano norm@all+q… seed 1``."""
    if len(label) <= width:
        return label
    name, word, seed = label.rpartition(" seed ")
    end = f"…{word}{seed}"
    return f"{name[: max(0, width - len(end))]}{end}"
