"""Figures for papers: SVG and PDF in the widths of a page and of a column, 8 points, in the letters of its text."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from orchestrator.reports.ablation_table import AblationTable
from orchestrator.reports.drawing.pdf import render_pdf
from orchestrator.reports.drawing.shapes import Drawing
from orchestrator.reports.drawing.svg import render_svg_file
from orchestrator.reports.figures.curves import draw_curves, panels_of
from orchestrator.reports.figures.forest import draw_forest, forest_of
from orchestrator.reports.figures.parameters import draw_parameters, points_of
from orchestrator.trials.records import TrialRecord
from specvit.files.atomic import replacing, write_atomically
from specvit.files.regular import reject_symlink

FOLDER_NAME = "figures"
FILE_NAME = re.compile(r"(forest|parameters|curves)(-[A-Za-z0-9.=_-]+)?\.(svg|pdf)")
"""What is written there."""
POINTS = 8.0
LETTERS = 0.82
"""Width of the letters of Times, as a share of those without serifs: 0.74 to 0.81 of what ``text_width`` says."""
WIDTHS = {"": 6.8 * 72, "-column": 3.3 * 72}
"""Ending of a figure's name to its width in points: that of the text, and of one of two columns."""

MOST_GROUPS = 12
"""That have figures; of more, the first ones."""
_MOST_PANELS = 6
_NO_NAME = re.compile(r"[^A-Za-z0-9.=_-]+")


def write_figures(
    folder: Path, tables: Mapping[str, AblationTable], records: Sequence[TrialRecord]
) -> tuple[Path, ...]:
    """Write ``figures/NAME.svg`` and ``.pdf``: ``forest``, ``parameters`` and ``curves``, of each for two widths.

    Of several groups each has its own, with a number and its text in the name; of many those of the first ones alone.

    Args:
        folder: Where the folder ``figures`` is, or will be.
        tables: Group to its table.
        records: All trials of the sweep.

    Returns:
        The paths.

    Raises:
        SpecsweepError: If a file cannot be written, or the folder is a link; the text names it.
    """
    written: list[Path] = []
    reject_symlink(folder / FOLDER_NAME)
    for name, drawing in figures_of(tables, records):
        path = folder / FOLDER_NAME / f"{name}.svg"
        write_atomically(path, render_svg_file(drawing))
        with replacing(path.with_suffix(".pdf")) as temporary:
            temporary.write_bytes(render_pdf(drawing))
        written += [path, path.with_suffix(".pdf")]
    return tuple(written)


def figures_of(
    tables: Mapping[str, AblationTable], records: Sequence[TrialRecord]
) -> Iterator[tuple[str, Drawing]]:
    """Yield the figures of a sweep with their names."""
    look = {"em": POINTS, "letters": LETTERS}
    for number, (group, table) in enumerate(list(tables.items())[:MOST_GROUPS], start=1):
        of_group = [record for record in records if record.trial.group == group]
        place = f"-{number}-{_NO_NAME.sub('-', group)[:60].strip('-.')}" if len(tables) > 1 else ""
        forest = forest_of(table, table.primary) if table.primary else None
        points, panels = points_of(table), panels_of(of_group, table, most=_MOST_PANELS)
        for ending, width in WIDTHS.items():
            if forest is not None:
                yield f"forest{place}{ending}", draw_forest(forest, width=width, **look)
            if points:
                yield f"parameters{place}{ending}", draw_parameters(table, points, width=width, **look)
            if panels:
                yield f"curves{place}{ending}", draw_curves(panels, width=width, **look)
