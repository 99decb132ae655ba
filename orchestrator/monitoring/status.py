"""Where a sweep stands, human-readable."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from orchestrator.ledger.attempts import FailedTrial, select_failed, select_running
from orchestrator.ledger.provenance import Provenance
from orchestrator.ledger.registration import SweepInfo
from orchestrator.monitoring.attempt_view import cause_text
from orchestrator.monitoring.status_parts import (
    Progress,
    driver_text,
    estimate_left,
    left_text,
    progress_of,
    progress_text,
    pruned_text,
    result_lines,
    status_json,
)
from orchestrator.storage.driver import Driver
from orchestrator.storage.folder_lock import is_held
from orchestrator.storage.views import driver_of_view
from orchestrator.trials.records import WHY_NOT_AGAIN, Cause, State, TrialRecord
from orchestrator.trials.resources import ResourceFloor
from specvit.messages import one_line

if TYPE_CHECKING:
    from orchestrator.ledger.ledger import Ledger


@dataclass(frozen=True)
class SweepStatus:
    """All that ``status`` shows of a sweep at one time.

    Attributes:
        info: The sweep.
        records: Its trials; their rungs need not be there.
        provenance: The runs of its driver, the oldest first.
        is_held: Whether a run holds the results folder; if not, what was running was interrupted.
        failures: The last failure of each trial that failed in some attempt.
        larger_shares: What trials get since one of their scale ran out of memory, by scale.
        gpu_hours: GPU hours that the attempts have taken.
        progress: How far the running trials are, by id.
        seconds_left: Wall time that is left by estimate, or None.
        driver: What is known of the driver of results that are mirrored; None = they are not, or none is named.
    """

    info: SweepInfo
    records: Sequence[TrialRecord]
    provenance: Sequence[Provenance] = ()
    is_held: bool = True
    failures: Sequence[FailedTrial] = ()
    resource_floors: Mapping[str, ResourceFloor] = field(default_factory=dict)
    gpu_hours: float = 0.0
    progress: Mapping[str, Progress] = field(default_factory=dict)
    seconds_left: float | None = None
    driver: Driver | None = None

    @classmethod
    def read(cls, ledger: Ledger) -> Self:
        """Read the standing of a ledger's sweep, which may be running."""
        # First: whatever a run that has let go of the folder wrote is then in what is read.
        held = is_running(ledger.path.parent)
        with ledger.snapshot(reads_logs=False) as connection:
            failures, progress = select_failed(connection), progress_of(select_running(connection))
        records = ledger.records(with_reports=False)
        return cls(
            info=ledger.sweep(),
            records=records,
            provenance=ledger.provenance(),
            is_held=held,
            failures=failures,
            resource_floors=ledger.resource_floors(),
            gpu_hours=ledger.gpu_hours(),
            progress=progress,
            seconds_left=estimate_left(records, progress),
            driver=driver_of_view(ledger.path.parent),
        )

    @property
    def has_ended(self) -> bool:
        """Return whether nothing more will happen by itself: no run is there, or none has anything left to do.

        While a run is there, what has failed may be tried again.
        """
        ended = (State.DONE, State.PRUNED, State.SKIPPED)
        return not self.is_held or all(record.state in ended for record in self.records)

    @property
    def all_done(self) -> bool:
        """Return whether every trial that the budget has room for has a result."""
        return all(record.state in (State.DONE, State.PRUNED, State.SKIPPED) for record in self.records)

    @property
    def apart_from_progress(self) -> object:
        """Return what differs between two standings if more has changed than how far the running trials are."""
        records = tuple(
            (record.trial.trial_id, record.trial.label, record.state, record.num_attempts, record.skip_reason)
            for record in self.records
        )
        return replace(self, records=(), gpu_hours=0.0, progress={}, seconds_left=None, driver=None), records

    def to_json(self) -> dict[str, Any]:
        """Return all of it as plain JSON values."""
        return status_json(
            self.info,
            self.records,
            self.progress if self.is_held else {},
            is_running=self.is_held,
            driver=self.driver and asdict(self.driver),
            has_ended=self.has_ended,
            seconds_left=self.seconds_left if self.is_held else None,
            gpu_hours=self.gpu_hours,
        )


def is_running(folder: Path) -> bool:
    """Return whether a run holds results, as far as can be told: a folder, or the local view of mirrored ones."""
    driver = driver_of_view(folder)
    return is_held(folder) or (driver is not None and driver.is_running)


def render_status(standing: SweepStatus, *, max_lines: int | None = None) -> RenderableType:
    """Render trials by group and state, and those that run, wait again, were left out, or failed, with the reasons.

    Args:
        standing: Where the sweep stands.
        max_lines: Trials to list in each section at most; None = all.
    """
    info, records = standing.info, standing.records
    last_failures = {failure.trial_id: failure for failure in standing.failures}
    parts: list[RenderableType] = [Text(one_line(info.name), style="bold")]
    if info.question:
        parts.append(Text(one_line(info.question), style="italic"))
    parts.append(_counts(records))
    if standing.is_held and not standing.has_ended:
        parts.append(Text(left_text(standing.seconds_left)))
    if standing.gpu_hours:
        parts.append(Text(f"GPU hours taken: {standing.gpu_hours:.2f}"))
    parts += _larger_shares(standing.resource_floors)
    if standing.driver is not None:
        parts.append(Text(driver_text(standing.driver), style="dim" if standing.is_held else "bold yellow"))

    def section(title: str, style: str, state: State, line: Callable[[TrialRecord], str]) -> None:
        chosen = [record for record in records if record.state is state]
        if state is State.WAITING:
            chosen = [record for record in chosen if record.num_attempts]
        if chosen:
            parts.append(Text(title, style=style))
            parts.extend(Text(f"  {line(record)}") for record in chosen[:max_lines])
        if max_lines is not None and len(chosen) > max_lines:
            parts.append(Text(f"  and {len(chosen) - max_lines} more", style="dim"))

    interrupted = "interrupted: no run holds the results folder; run the sweep again to go on"
    if standing.driver is not None and not standing.driver.is_certain:
        interrupted = "interrupted, as far as is known here; run the sweep again to go on"
    column_title = ("running", "bold cyan") if standing.is_held else (interrupted, "bold yellow")
    section(
        *column_title, State.RUNNING,
        lambda record: _running_line(
            record,
            last_failures.get(record.trial.trial_id),
            standing.progress.get(record.trial.trial_id) if standing.is_held else None,
        ),
    )
    pending = "pending: given a place, but no worker has started" if standing.is_held else interrupted
    section(pending, "bold yellow", State.PENDING, lambda record: one_line(record.trial.label))
    section(
        "waiting again", "bold yellow", State.WAITING,
        lambda record: _waiting_line(record, last_failures.get(record.trial.trial_id)),
    )
    parts += _skipped(records)
    section("pruned", "bold yellow", State.PRUNED, pruned_text)
    section("failed", "bold red", State.FAILED, _failed_line)
    results = list(result_lines(info, records))
    if results:
        parts.append(Text("results so far, means over the seeds that are done", style="bold green"))
        parts.extend(Text(f"  {line}") for line in results[:max_lines])
    if max_lines is not None and len(results) > max_lines:
        parts.append(Text(f"  and {len(results) - max_lines} more arms", style="dim"))
    if standing.provenance:
        last = standing.provenance[-1]
        command = one_line(f"last run: started {last.started_at} on {last.host}: {' '.join(last.argv)}")
        parts.append(Text(command, style="dim"))
    return Group(*parts)


def _counts(records: Sequence[TrialRecord]) -> Table:
    table = Table(box=None, header_style="dim")
    table.add_column("group")
    seldom = (State.PENDING, State.SKIPPED)
    states = [state for state in State if state not in seldom or any(r.state is state for r in records)]
    for state in states:
        table.add_column(state.value, justify="right")
    table.add_column("trials", justify="right")
    by_group: dict[str, Counter[State]] = {}
    for record in records:
        by_group.setdefault(record.trial.group, Counter())[record.state] += 1
    for group, counts in by_group.items():
        cells = [str(counts[state]) if counts[state] else "" for state in states]
        table.add_row(Text(one_line(group) or "all"), *cells, str(sum(counts.values())))
    return table


def _larger_shares(shares: Mapping[str, ResourceFloor]) -> Iterator[Text]:
    for scale, share in shares.items():
        yield Text(f"since memory ran out, trials of scale {one_line(scale)} get {share}", style="yellow")


def _skipped(records: Sequence[TrialRecord]) -> Iterator[Text]:
    reasons = Counter(record.skip_reason or "" for record in records if record.state is State.SKIPPED)
    if reasons:
        yield Text("left out", style="bold yellow")
    for reason, count in reasons.items():
        yield Text(f"  {count} {'trial' if count == 1 else 'trials'}: {one_line(reason)}")


def _running_line(record: TrialRecord, failure: FailedTrial | None, progress: Progress | None) -> str:
    again = f" (attempt {record.num_attempts}{_after(failure)})" if record.num_attempts > 1 else ""
    return f"{one_line(record.trial.label)}{again}: step {record.step}/{record.steps or '?'}{progress_text(progress)}"


def _waiting_line(record: TrialRecord, failure: FailedTrial | None) -> str:
    tries = "1 attempt" if record.num_attempts == 1 else f"{record.num_attempts} attempts"
    why = "the last one was lost with its run"
    if failure is not None:
        last = "the last one" if failure.attempt == record.num_attempts else f"attempt {failure.attempt}"
        cut = "" if failure.attempt == record.num_attempts else f"{why}; "
        why = f"{cut}{last} failed, {cause_text(failure.cause)}: {one_line(failure.error)}"
    return f"{one_line(record.trial.label)}: {tries}; {why}"


def _failed_line(record: TrialRecord) -> str:
    cause = "" if record.cause in (None, Cause.RAISED) else f", {cause_text(record.cause)}"
    reason = None if record.cause is None else WHY_NOT_AGAIN.get(record.cause)
    why = "" if reason is None else f"; not tried again: {reason}"
    label, error = one_line(record.trial.label), one_line(record.error or "")
    return f"{label} (attempt {record.num_attempts}{cause}): {error}{why}"


def _after(failure: FailedTrial | None) -> str:
    return "" if failure is None else f", after {cause_text(failure.cause)}"
