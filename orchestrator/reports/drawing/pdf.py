"""A drawing as a PDF for a paper, by matplotlib: vectors, text as TrueType, no dates."""

from __future__ import annotations

import io
import warnings
from typing import Any, Literal

from orchestrator.reports.drawing.shapes import Anchor, Area, Drawing, Label, Line, Mark, outline
from orchestrator.reports.drawing.styles import COLOURS, STYLES, Style

_FONTS = ["STIXGeneral", "DejaVu Sans"]
"""Both come with matplotlib: the first one's letters are those of Times, the second has most others."""
_ANCHORS: dict[Anchor, Literal["left", "center", "right"]] = {"start": "left", "middle": "center", "end": "right"}


def render_pdf(drawing: Drawing) -> bytes:
    """Return a PDF whose page has the size of the drawing, in points."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_pdf import FigureCanvasPdf
    from matplotlib.figure import Figure
    from matplotlib.transforms import Affine2D

    figure = Figure(figsize=(drawing.width / 72, drawing.height / 72))
    FigureCanvasPdf(figure)
    place = Affine2D().scale(1 / drawing.width, -1 / drawing.height).translate(0, 1) + figure.transFigure
    for order, item in enumerate(drawing.items):
        artist = _artist(item, drawing.em)
        artist.set(transform=place, zorder=order)
        figure.add_artist(artist)
    written = io.BytesIO()
    with rc_context({"pdf.fonttype": 42}), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # letters that no font has are drawn as boxes
        figure.savefig(written, format="pdf", metadata={"CreationDate": None, "Title": drawing.title[:200]})
    return written.getvalue()


def _artist(item: Line | Area | Mark | Label, em: float) -> Any:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Circle, Polygon
    from matplotlib.text import Text

    style = STYLES[item.style]
    match item:
        case Line(points):
            xs, ys = zip(*points, strict=True)
            line = Line2D(
                xs, ys, color=COLOURS[style.stroke][0], linewidth=style.width * em, solid_capstyle="butt"
            )
            if style.dash:
                line.set_linestyle((0, [part * em for part in style.dash]))
            return line
        case Area(points):
            return Polygon(points, closed=True, **_patch(style, em))
        case Mark():
            corners = outline(item)
            look = _patch(style, em)
            return Polygon(corners, closed=True, **look) if corners else Circle(item.at, item.radius, **look)
        case Label(text, (x, y), _, anchor):
            # A box, not an outline: matplotlib would draw an outlined text as paths, which nobody can search or edit.
            box = {"facecolor": COLOURS[style.stroke or "paper"][0], "edgecolor": "none", "pad": 0.1 * em}
            return Text(
                x, y, text, color=COLOURS[style.fill][0], fontsize=style.size * em, family=_FONTS,
                fontweight="bold" if style.is_bold else "normal", horizontalalignment=_ANCHORS[anchor],
                verticalalignment="baseline", parse_math=False,
                bbox=box if style.stroke else None,
            )


def _patch(style: Style, em: float) -> dict[str, Any]:
    return {
        "facecolor": COLOURS[style.fill][0] if style.fill else "none",
        "edgecolor": COLOURS[style.stroke][0] if style.stroke else "none",
        "linewidth": style.width * em if style.stroke else 0.0,
    }
