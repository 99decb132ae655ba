"""What ``list`` shows: the sweeps of a results folder, each as it stands."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from orchestrator.ledger.errors import LedgerError
from orchestrator.ledger.ledger import LEDGER_NAME, Ledger
from orchestrator.storage.folder_lock import is_held
from orchestrator.storage.views import holder_of_view
from orchestrator.trials.records import State


class SweepState(StrEnum):
    """Where a sweep stands."""

    RUNNING = "running"
    COMPLETE = "complete"
    """Every trial has a result, or the budget has no room for it."""
    FAILED = "failed"
    """Nothing waits, but trials have failed."""
    STOPPED = "stopped"
    """Trials wait for the next run."""
    UNREADABLE = "unreadable"


@dataclass(frozen=True)
class ListedSweep:
    """A sweep of a results folder.

    Attributes:
        name: Of its folder.
        state: Where it stands.
        counts: Trials by state; those without any are left out.
        trials: All its trials.
        last_run: When the driver ran last, ISO time in UTC; empty if it cannot be read.
        question: What it asks.
        error: Why it cannot be read; empty if it can.
    """

    name: str
    state: SweepState
    counts: Mapping[str, int] = field(default_factory=dict)
    trials: int = 0
    last_run: str = ""
    question: str = ""
    error: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the sweep as JSON values."""
        return asdict(self)


def list_sweeps(folders: Iterable[Path]) -> list[ListedSweep]:
    """Return the sweeps that have their ledgers in these folders, the last run one first."""
    looks = (_look_at(folder / LEDGER_NAME) for folder in folders)
    return sorted(looks, key=lambda sweep: sweep.last_run, reverse=True)


def _look_at(path: Path) -> ListedSweep:
    folder = path.parent
    try:
        with Ledger.read(path) as ledger:
            info, runs = ledger.sweep(), ledger.provenance()
            records = ledger.records(with_reports=False)
    except LedgerError as error:
        return ListedSweep(folder.name, SweepState.UNREADABLE, error=str(error))
    counts = Counter(record.state for record in records)
    state = SweepState.COMPLETE
    if is_held(folder) or holder_of_view(folder):
        state = SweepState.RUNNING
    elif counts[State.WAITING] or counts[State.PENDING] or counts[State.RUNNING]:
        state = SweepState.STOPPED
    elif counts[State.FAILED]:
        state = SweepState.FAILED
    return ListedSweep(
        folder.name,
        state,
        counts={str(each): counts[each] for each in State if counts[each]},
        trials=len(records),
        last_run=runs[-1].started_at if runs else "",
        question=info.question,
    )
