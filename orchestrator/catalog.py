"""What ``list`` shows: the sweeps of a results folder, each as it stands."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from orchestrator.ledger.ledger import LEDGER_NAME, Ledger
from orchestrator.storage.folder_lock import is_held
from orchestrator.storage.views import driver_of_view, folder_names, sweep_view
from orchestrator.trials.records import State
from specvit.errors import SpecsweepError
from specvit.messages import one_line


class SweepState(StrEnum):
    """Where a sweep stands."""

    RUNNING = "running"
    COMPLETE = "complete"
    """Every trial has a result, or the budget has no room for it."""
    FAILED = "failed"
    """Nothing waits, but trials have failed."""
    STOPPED = "stopped"
    """Trials wait for the next run."""
    SILENT = "silent"
    """The same, or the driver of their run, on another machine, does not reach these results any more."""
    UNREADABLE = "unreadable"


@dataclass(frozen=True)
class ListedSweep:
    """A sweep of a results folder.

    Attributes:
        name: Of its folder.
        state: Where it stands.
        counts: Trials by state; those without any are left out.
        trials: All its trials.
        silent_s: Seconds since the driver was last heard of that is named as holding the results, from another machine;
            None = none is, or that is not known.
        last_run: When the driver ran last, ISO time in UTC; empty if it cannot be read.
        question: What it asks.
        error: Why it cannot be read; empty if it can.
    """

    name: str
    state: SweepState
    counts: Mapping[str, int] = field(default_factory=dict)
    trials: int = 0
    silent_s: float | None = None
    last_run: str = ""
    question: str = ""
    error: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the sweep as JSON values."""
        return asdict(self)


def list_sweeps(results_root: str | Path) -> list[ListedSweep]:
    """Return the sweeps of a folder that holds a folder per sweep, the last run one first.

    One that cannot be read, whatever the reason, keeps no other from being listed.

    Args:
        results_root: The folder, a path or a URL.

    Raises:
        RemoteError: If the store cannot be used.
        OSError: If the folder cannot be read.
    """
    return sorted(_look_at_all(results_root), key=lambda sweep: sweep.last_run, reverse=True)


def _look_at_all(results_root: str | Path) -> Iterator[ListedSweep]:
    for name in folder_names(results_root):
        try:
            if (view := sweep_view(results_root, name)) is not None:
                yield _look_at(view)
        except (SpecsweepError, OSError) as error:
            yield ListedSweep(name, SweepState.UNREADABLE, error=one_line(str(error)))


def _look_at(folder: Path) -> ListedSweep:
    with Ledger.read(folder / LEDGER_NAME) as ledger:
        info, runs = ledger.sweep(), ledger.provenance()
        records = ledger.records(with_reports=False)
    counts = Counter(record.state for record in records)
    driver = driver_of_view(folder)
    state = SweepState.COMPLETE
    if is_held(folder) or (driver is not None and driver.is_running):
        state = SweepState.RUNNING
    elif counts[State.WAITING] or counts[State.PENDING] or counts[State.RUNNING]:
        state = SweepState.STOPPED if driver is None or driver.is_certain else SweepState.SILENT
    elif counts[State.FAILED]:
        state = SweepState.FAILED
    return ListedSweep(
        folder.name,
        state,
        counts={str(each): counts[each] for each in State if counts[each]},
        trials=len(records),
        silent_s=None if driver is None or driver.is_certain else driver.silent_s,
        last_run=runs[-1].started_at if runs else "",
        question=info.question,
    )
