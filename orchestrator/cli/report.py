"""The command that makes a page of a sweep, to be kept or to be watched, and its figures for papers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.arguments import DEFAULT_RESULTS, Overrides, ResultsRoot, Target, open_ledger
from orchestrator.cli.console import print_raw
from specvit.errors import SpecsweepError


def report(
    target: Target,
    overrides: Overrides = None,
    results: ResultsRoot = DEFAULT_RESULTS,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", metavar="FILE", help="The page; default: report.html in the sweep's results."),
    ] = None,
    figures: Annotated[
        bool, typer.Option(help="Also write figures for papers, SVG and PDF, to a folder beside the page.")
    ] = True,
    serve: Annotated[
        bool, typer.Option("--serve", help="Write nothing: show the page on this machine, anew while the sweep runs.")
    ] = False,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, metavar="N", help="With --serve: where; default: any that is free.")
    ] = None,
) -> None:
    """Make one page of a sweep: findings, forest plots, tables, curves, cost, failures, and where it comes from.

    It needs nothing beside it, runs nothing and loads nothing from elsewhere, and can be sent to anybody. Figures are
    written to figures/NAME.svg and .pdf, 6.8 inches wide, and as NAME-column 3.3 inches. Without a ledger, as of a
    published study, it is made of the trials.csv and sweep.json there.
    """
    from orchestrator.report import MOST_GROUPS, PAGE_NAME, read_report, read_study, write_figures, write_report
    from orchestrator.results import find_study
    from orchestrator.storage.views import folder_of_view

    if serve:
        if out is not None:
            raise SpecsweepError("--out: not with --serve, which writes nothing")
        _serve(target, results, overrides, port or 0)
        return
    if port is not None:
        raise SpecsweepError("--port: only with --serve")
    if (folder := find_study(target, results)) is not None:
        found = read_study(folder)
    else:
        with open_ledger(target, results, overrides) as ledger:
            folder, found = folder_of_view(ledger.path.parent), read_report(ledger)
    page = folder / PAGE_NAME if out is None else out
    write_report(found, page)
    print_raw(f"written: {page}")
    if figures and (drawn := write_figures(found, page.parent)):
        more = len(found.tables) - MOST_GROUPS
        of = f" of the first {MOST_GROUPS} groups of {len(found.tables)}" if more > 0 else ""
        print_raw(f"written: {len(drawn)} figures{of} for papers, SVG and PDF, in {drawn[0].parent}")


def _serve(target: str, results: str, overrides: list[str] | None, port: int) -> None:
    """Show the page until Ctrl-C."""
    from orchestrator.monitoring.page_server import PageServer
    from orchestrator.report import read_report, render_page

    def render() -> str:
        with open_ledger(target, results, overrides) as ledger:
            return render_page(read_report(ledger, refreshes=True))

    render()  # what cannot be shown at all is told here, not in the browser
    with PageServer(render, port) as server:
        print_raw(f"{server.url} shows this sweep; Ctrl-C ends it")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            return  # there is no other way to end it
