"""The figure of one model's diagnostics: cosines, norms and attention over depth."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from specvit.diagnostics.diagnose import FINAL_NORM
from specvit.diagnostics.measurement import Measurement
from specvit.files.atomic import replacing

_CLS, _PATCHES, _REGISTERS, _BIAS = "#D55E00", "#0072B2", "#009E73", "#6F6F6F"
"""Colours that people with a colour vision deficiency can tell apart (Okabe and Ito)."""

_WIDTH_INCHES, _HEIGHT_INCHES, _DPI = 10.0, 7.0, 150
_WIDE_RANGE = 20.0
"""Norms whose largest is so many times the smallest are drawn on a logarithmic axis."""
_LOG_RANGE = 1e3
"""How far down that axis reaches; registers that start from almost nothing would take all of it."""

_ATTENTION = (
    ("cls_to_patches", "[CLS] to patches", _CLS, "-"),
    ("cls_to_registers", "[CLS] to registers", _CLS, "--"),
    ("cls_to_bias", "[CLS] to the learned key", _CLS, ":"),
    ("patches_to_cls", "patches to [CLS]", _PATCHES, "-"),
    ("patches_to_registers", "patches to registers", _PATCHES, "--"),
    ("patches_to_bias", "patches to the learned key", _PATCHES, ":"),
)
_NORMS = (
    ("cls_norm", "[CLS]", _CLS),
    ("register_norm", "registers", _REGISTERS),
    ("patch_norm", "patches", _PATCHES),
)


def draw_figure(measurements: Sequence[Measurement], path: Path, *, title: str) -> None:
    """Write the measurements of one model as a PNG; a reader finds the old file or the new one.

    Args:
        measurements: What ``specvit.diagnostics.diagnose.diagnose`` returned.
        path: The file; its folder must exist.
        title: What stands above the panels.

    Raises:
        SpecsweepError: If the file cannot be written; the text names it.
    """
    figure = make_figure(measurements, title=title)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=_DPI)


def make_figure(measurements: Sequence[Measurement], *, title: str) -> Figure:
    """Return the panels: [CLS]-patch cosine, patch-patch cosine, norms, attention shares.

    The last point of a curve, at the number of blocks, is the final norm.
    """
    curves = _Curves(measurements)
    figure = Figure(figsize=(_WIDTH_INCHES, _HEIGHT_INCHES), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    panels = figure.subplots(2, 2, sharex=True)
    for axes, quantity, column_title in (
        (panels[0, 0], "cls_patch_cosine", "[CLS]-patch cosine"),
        (panels[0, 1], "patch_patch_cosine", "patch-patch cosine"),
    ):
        axes.axhline(0, color="0.7", linewidth=0.8)
        for side, label, colour, style in (("in", "before", _BIAS, "--"), ("out", "after", _CLS, "-")):
            _plot(axes, *curves.at_norm1(side, quantity), label=f"{label} the norm", color=colour, linestyle=style)
        axes.set(title=f"{column_title}, before and after norm1", ylabel="mean cosine")
    axes, values = panels[1, 0], []
    for quantity, label, colour in _NORMS:
        blocks, norms = curves.at_norm1("in", quantity)
        _plot(axes, blocks, norms, label=label, color=colour)
        values += norms
    if min(values) > 0 and max(values) > _WIDE_RANGE * min(values):
        axes.set_yscale("log")
        axes.set_ylim(bottom=max(min(values) / 1.5, max(values) / _LOG_RANGE))
    else:
        axes.set_ylim(bottom=0)
    axes.set(title="Token norms, before norm1", ylabel="mean L2 norm")
    axes = panels[1, 1]
    for quantity, label, colour, style in _ATTENTION:
        _plot(axes, *curves.of("attention", quantity), label=label, color=colour, linestyle=style)
    axes.set(title="Attention shares", ylabel="share of a query's attention", ylim=(-0.02, 1.02))
    for axes in panels.flat:
        _finish(axes, depth=curves.depth, is_lowest=axes in panels[1])
    return figure


class _Curves:
    """Return the values of a quantity over depth."""

    def __init__(self, measurements: Sequence[Measurement]) -> None:
        self._values = {(one.site, one.quantity, one.block): one.value for one in measurements}
        self.depth = max(one.block for one in measurements)

    def of(self, site: str, quantity: str) -> tuple[list[int], list[float]]:
        blocks = [block for block in range(self.depth + 1) if (site, quantity, block) in self._values]
        return blocks, [self._values[site, quantity, block] for block in blocks]

    def at_norm1(self, side: str, quantity: str) -> tuple[list[int], list[float]]:
        """Return the values around norm1 of every block, and around the final norm."""
        blocks, values = self.of(f"norm1.{side}", quantity)
        last_block, last_value = self.of(f"{FINAL_NORM}.{side}", quantity)
        return blocks + last_block, values + last_value


def _plot(axes: Any, blocks: list[int], values: list[float], **style: Any) -> None:
    if blocks:
        axes.plot(blocks, values, marker="o", markersize=3.5, linewidth=1.6, **style)


def _finish(axes: Any, *, depth: int, is_lowest: bool) -> None:
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlim(-0.3, depth + 0.3)
    axes.grid(visible=True, color="0.92")
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    if is_lowest:
        axes.set_xlabel(f"block ({depth} = final norm)")
    if axes.get_legend_handles_labels()[1]:
        axes.legend(fontsize="small", framealpha=0.8, edgecolor="none")
    else:
        axes.text(0.5, 0.5, "not measured: the blocks run as a whole", ha="center", va="center",
                  transform=axes.transAxes, color="0.4")
