"""Where a sweep stands, for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from orchestrator.provenance import Provenance
from orchestrator.records import State, TrialRecord
from orchestrator.registration import SweepInfo


def render_status(
    info: SweepInfo, records: Sequence[TrialRecord], provenance: Sequence[Provenance], *, is_held: bool = True
) -> RenderableType:
    """Render trials by group and state, the running ones, and the failed ones with their errors.

    Args:
        info: The sweep.
        records: Its trials.
        provenance: The runs of its driver, the oldest first.
        is_held: Whether a run holds the results folder; if not, what was running was interrupted.
    """
    parts: list[RenderableType] = [Text(info.name, style="bold")]
    if info.question:
        parts.append(Text(info.question, style="italic"))
    parts.append(_counts(records))
    running = [record for record in records if record.state is State.RUNNING]
    if running:
        if is_held:
            parts.append(Text("running", style="bold cyan"))
        else:
            rule = "interrupted: no run holds the results folder; run the sweep again to go on"
            parts.append(Text(rule, style="bold yellow"))
        parts += [Text(f"  {record.label}: step {record.step}/{record.steps or '?'}") for record in running]
    failed = [record for record in records if record.state is State.FAILED]
    if failed:
        parts.append(Text("failed", style="bold red"))
        parts += [
            Text(f"  {record.label} (attempt {record.num_attempts}): {record.error}") for record in failed
        ]
    if provenance:
        last = provenance[-1]
        parts.append(
            Text(f"last run: started {last.started_at} on {last.host}: {' '.join(last.argv)}", style="dim")
        )
    return Group(*parts)


def _counts(records: Sequence[TrialRecord]) -> Table:
    table = Table(box=None, header_style="dim")
    table.add_column("group")
    for state in State:
        table.add_column(state.value, justify="right")
    table.add_column("trials", justify="right")
    for group in dict.fromkeys(record.group for record in records):
        counts = Counter(record.state for record in records if record.group == group)
        cells = [str(counts[state]) if counts[state] else "" for state in State]
        table.add_row(Text(group or "all"), *cells, str(sum(counts.values())))
    return table
