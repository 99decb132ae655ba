"""What ``report`` does: a sweep as one page, to be kept or to be watched, and its figures for papers."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from orchestrator.ledger.ledger import Ledger
from orchestrator.reports.environment import environment_of, read_environment
from orchestrator.reports.figures import paper
from orchestrator.reports.figures.paper import MOST_GROUPS
from orchestrator.reports.page.page import PAGE_NAME, render_page
from orchestrator.reports.page.report import SweepReport
from orchestrator.reports.per_trial.sweep_data import SweepData
from specvit.files.atomic import write_atomically

__all__ = [
    "MOST_GROUPS",
    "PAGE_NAME",
    "REFRESH_S",
    "SweepReport",
    "read_report",
    "read_study",
    "render_page",
    "write_figures",
    "write_report",
]

REFRESH_S = 30
"""After how many seconds a page that is shown while its sweep runs asks for the next one."""


def read_report(ledger: Ledger, *, refreshes: bool = False) -> SweepReport:
    """Read all that a report shows from a ledger.

    Args:
        ledger: Of the sweep, open for reading.
        refreshes: Whether the page says when it was made, and asks for the next one.
    """
    provenance = ledger.newest_provenance()
    seen_at = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC, made anew every {REFRESH_S} s" if refreshes else ""
    return SweepReport(
        info=ledger.sweep(),
        records=ledger.records(),
        environment={} if provenance is None else environment_of(provenance),
        usage=ledger.usage(),
        seen_at=seen_at,
        refresh_s=REFRESH_S if refreshes else None,
    )


def read_study(folder: Path) -> SweepReport:
    """Read what a report shows from the files of a sweep without its ledger, as those of a published study.

    Raises:
        SpecsweepError: If one of them cannot be read; the text names it.
    """
    data = SweepData.of_folder(folder)
    return SweepReport(data.info, data.records, read_environment(folder))


def write_report(report: SweepReport, path: Path) -> None:
    """Write a report as a page.

    Raises:
        SpecsweepError: If the file cannot be written; the text names it.
    """
    write_atomically(path, render_page(report))


def write_figures(report: SweepReport, folder: Path) -> tuple[Path, ...]:
    """Write the figures of a report for papers, see ``orchestrator.reports.figures.paper``."""
    return paper.write_figures(folder, report.tables, report.records)
