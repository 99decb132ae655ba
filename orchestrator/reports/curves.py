"""The rungs of a sweep as curves over training: a table in long form, and a figure.

Rungs score a held-out part of the training images, tables the reported split: they are not points of one curve.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.reports.per_trial.curves_csv import COLUMNS, CSV_NAME, curve_rows, render_curves
from orchestrator.reports.rendering.formatting import column_title
from orchestrator.trials.records import TrialRecord
from specvit.files.atomic import replacing, write_atomically
from specvit.messages import one_line
from specvit.training.learnt import is_learning_metric

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

FIGURE_NAME = "curves.png"

_PANEL_INCHES, _LEGEND_INCHES, _DPI = (4.6, 3.2), 3.6, 150
_BASELINE = "black"
_MOST_TICKS = 8
_ONE_RUNG = "mean over n seeds; bar: their range"
_RUNGS = "mean over n seeds; band: their range\ndashed: over those seeds that came so far"
_ARM_APART = 1.0
"""Steps between neighbours where one rung is all there is, so that arms stand side by side and not on each other."""


def build_curves(records: Sequence[TrialRecord]) -> pd.DataFrame:
    """Return what every trial reported at its rungs.

    Args:
        records: All trials of a sweep, in its order.

    Returns:
        One row per trial, rung and metric, with the columns ``COLUMNS``; pruned and failed trials are there too.
    """
    import pandas as pd

    return pd.DataFrame(curve_rows(records), columns=list(COLUMNS))


def write_curves(folder: Path, records: Sequence[TrialRecord]) -> tuple[Path, ...]:
    """Write ``curves.csv`` and ``curves.png``, if there was a rung.

    Args:
        folder: The folder of the sweep's results.
        records: All trials of the sweep, in its order.

    Returns:
        The paths; none if no trial has come to a rung.

    Raises:
        SpecsweepError: If a file cannot be written; the text names it.
    """
    curves = build_curves(records)
    if curves.empty:
        return ()
    table, figure = folder / CSV_NAME, folder / FIGURE_NAME
    write_atomically(table, render_curves(records))
    draw_curves(curves, figure)
    return table, figure


def draw_curves(curves: pd.DataFrame, path: Path) -> None:
    """Write curves as a PNG; a reader finds the old file or the new one.

    Args:
        curves: What ``build_curves`` returned, with at least one row.
        path: The file; its folder must exist.

    Raises:
        SpecsweepError: If the file cannot be written; the text names it.
    """
    figure = make_figure(curves)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=_DPI)


def make_figure(curves: pd.DataFrame) -> Figure:
    """Return a figure of the mean over seeds, with the range of the seeds behind it; the baseline is black.

    Ticks stand at rungs, and the legend says how many seeds an arm has. Of a single rung there are no curves: arms
    stand side by side, each with a bar for its range.

    What says whether the recipe was learnt has no panels beside others; the table in long form holds it.

    A mean is solid as far as all seeds of the arm have come. Where some were pruned, failed or are still on their way,
    the mean of the others says something else: it is drawn apart, dashed and hollow, with the number of its seeds.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    others = curves[~curves["metric"].map(is_learning_metric)]
    curves = curves if others.empty else others
    groups, metrics, arms = (list(curves[name].unique()) for name in ("group", "metric", "arm"))
    figure = Figure(
        figsize=(_PANEL_INCHES[0] * len(metrics) + _LEGEND_INCHES, _PANEL_INCHES[1] * len(groups)),
        layout="constrained",
    )
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(groups), len(metrics), squeeze=False, sharex="row")
    colours = _colours(curves, arms)
    for row, group in zip(panels, groups, strict=True):
        for axes, metric in zip(row, metrics, strict=True):
            shown = curves[(curves["group"] == group) & (curves["metric"] == metric)]
            steps, by_arm = sorted(set(shown["step"])), list(shown.groupby("arm", sort=False))
            for number, (arm, one) in enumerate(by_arm):
                aside = (number - (len(by_arm) - 1) / 2) * _ARM_APART if len(steps) == 1 else None
                _plot(axes, one, label=_as_it_is(str(arm)), colour=colours[str(arm)], aside=aside)
            _finish(axes, group=str(group), metric=str(metric), steps=steps)
    handles = {
        label: handle
        for axes in panels.flat
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(
        list(handles.values()),
        [f"{label}, n = {_num_seeds(curves, label)}" for label in handles],
        loc="outside right center",
        fontsize="small",
        frameon=False,
        title=_ONE_RUNG if curves["step"].nunique() == 1 else _RUNGS,
        title_fontsize="small",
    )
    return figure


def _colours(curves: pd.DataFrame, arms: list[str]) -> dict[str, Any]:
    from matplotlib import colormaps

    baselines = set(curves.loc[curves["role"] == "baseline", "arm"])
    others = [arm for arm in arms if arm not in baselines]
    # Along one map, so that any number of arms can be told apart from their neighbours in the legend.
    drawn = colormaps["viridis" if len(others) > 10 else "tab10"]
    scale = max(1, len(others) - 1) if len(others) > 10 else drawn.N - 1
    return {**dict.fromkeys(baselines, _BASELINE), **{arm: drawn(i / scale) for i, arm in enumerate(others)}}


def _plot(axes: Any, one: pd.DataFrame, *, label: str, colour: Any, aside: float | None) -> None:
    """Draw an arm; ``aside``: how many steps to the right of the only rung it stands, None where there are several."""
    by_step = one.groupby("step")["value"]
    mean, low, high, count = by_step.mean(), by_step.min(), by_step.max(), by_step.size()
    is_baseline = colour == _BASELINE
    style = {"color": colour, "linewidth": 2.2 if is_baseline else 1.3, "zorder": 3 if is_baseline else 2}
    if aside is not None:
        axes.errorbar(
            mean.index + aside, mean, (mean - low, high - mean), fmt="o", markersize=5, label=label, **style
        )
        return
    whole = count == one["seed"].nunique()
    axes.plot(mean.index[whole], mean[whole], marker="o", markersize=3, label=label, **style)
    axes.fill_between(mean.index[whole], low[whole], high[whole], color=colour, alpha=0.12, linewidth=0)
    if whole.all():
        return
    axes.plot(
        mean.index[~whole], mean[~whole], marker="o", markersize=4, markerfacecolor="white", linestyle="--", **style
    )
    for step, value, num in zip(mean.index[~whole], mean[~whole], count[~whole], strict=True):
        axes.annotate(
            f"n = {num}", (step, value), xytext=(4, 3), textcoords="offset points", fontsize=6, color=colour
        )


def _num_seeds(curves: pd.DataFrame, label: str) -> str:
    """Return how many seeds of an arm have come to a rung: a number, or a range if it is not the same in all groups."""
    of_arm = curves[curves["arm"].map(lambda arm: _as_it_is(str(arm))) == label]
    numbers = of_arm.groupby("group")["seed"].nunique()
    low, high = int(numbers.min()), int(numbers.max())
    return str(high) if low == high else f"{low} to {high}"


def _finish(axes: Any, *, group: str, metric: str, steps: list[int]) -> None:
    axes.set(title=_as_it_is(group), xlabel="optimizer step (rungs)", ylabel=_as_it_is(column_title(metric)))
    axes.set_xticks(steps[:: -(-len(steps) // _MOST_TICKS)] if steps else [])
    axes.grid(visible=True, color="0.92")
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _as_it_is(text: str) -> str:
    """Return ``text`` so that matplotlib takes no formula from it, and does not leave it out of a legend."""
    shown = one_line(text).replace("$", r"\$")
    return f" {shown}" if shown.startswith("_") else shown
