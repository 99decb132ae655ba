"""The section on cost: what each arm took, of all attempts at its trials."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.reports.page.markup import Cell, arm, section, table
from orchestrator.reports.page.report import SweepReport
from orchestrator.trials.records import TrialRecord

_MOST_ROWS = 200


def cost_section(report: SweepReport) -> str:
    """Return core time, or GPU time where there were GPUs, by arm over all groups, the largest first."""
    arms: dict[str, list[TrialRecord]] = {}
    for record in report.records:
        arms.setdefault(record.trial.arm, []).append(record)
    has_gpus = any(usage.gpu_s for usage in report.usage.values())
    rows = [(name, _hours(report, its, has_gpus=has_gpus), its) for name, its in arms.items()]
    total = sum(hours for _, (hours, _), _ in rows)
    if not total:
        return ""
    rows.sort(key=lambda row: -row[1][0])
    unit, factor = time_unit(total)
    rows = [(name, (own * factor, wall * factor), its) for name, (own, wall), its in rows]
    total *= factor
    device = "GPU" if has_gpus else "core"
    titles = ("trials", f"{device} {unit}", f"wall {unit}")
    head: list[Cell] = [("", "arm"), *(("n", title) for title in titles), ("bar", "share")]
    cells = [_cells(name, own, its, total, rows[0][1][0]) for name, own, its in rows[:_MOST_ROWS]]
    of_all = sum(wall for _, (_, wall), _ in rows)
    sums = (f"{len(report.records):,}", f"{total:,.2f}", f"{of_all:,.2f}")
    cells.append([("", "<b>all</b>"), *(("n", each) for each in sums), ("", "")])
    what = (
        "GPU time is what all attempts held, also those that came to nothing."
        if has_gpus
        else "Core time is the CPU time of the attempts that count, with what they resumed."
    )
    return section("cost", "What it took", f"<p>{what}</p>", table(head, cells, classes="cost"))


def time_unit(hours: float) -> tuple[str, float]:
    """Return the unit in which so many hours are told, and how many of it an hour has."""
    return ("hours", 1.0) if hours >= 1 else ("minutes", 60.0)


def _hours(report: SweepReport, records: Sequence[TrialRecord], *, has_gpus: bool) -> tuple[float, float]:
    wall = sum(record.seconds or 0.0 for record in records) / 3600
    if not has_gpus:
        return sum(record.core_seconds or 0.0 for record in records) / 3600, wall
    usage = [report.usage[r.trial.trial_id] for r in records if r.trial.trial_id in report.usage]
    return sum(each.gpu_s for each in usage) / 3600, wall


def _cells(
    name: str, own: tuple[float, float], records: Sequence[TrialRecord], total: float, most: float
) -> list[Cell]:
    hours, wall = own
    bar = f'<span class="bar" style="width:{hours / most * 100 if most else 0:.1f}%"></span>'
    share = f'{bar}<span class="share">{hours / total:.0%}</span>'
    numbers = (f"{len(records):,}", f"{hours:,.2f}", f"{wall:,.2f}")
    return [("", arm(name)), *(("n", each) for each in numbers), ("bar", share)]
