"""A drawing as SVG: inside a page, whose style sheet colours it, or as a file for a paper, with colours of its own."""

from __future__ import annotations

import html
from collections.abc import Iterator

from orchestrator.reports.drawing.shapes import Area, Drawing, Label, Line, Mark, Point, outline
from orchestrator.reports.drawing.styles import COLOURS, STYLES, Style

_OPEN = ' class="o"'
"""Of lines in a page: their style may fill marks, but not the bend of a curve."""
_MOST_HOVER = 240
"""Characters of a text that is told when the pointer stands on it."""
PAPER_FONTS = "'Times New Roman', Times, STIXGeneral, serif"


def render_svg(drawing: Drawing) -> str:
    """Return an ``svg`` element for a page; the classes in it are those of ``style_sheet``."""
    size = f'viewBox="0 0 {_n(drawing.width)} {_n(drawing.height)}"'
    head = f'<svg class="d" {size} role="img" style="max-width:{_n(drawing.width)}px">'
    return f"{head}<title>{_escape(drawing.title)}</title>{''.join(_classed(drawing))}</svg>"


def render_svg_file(drawing: Drawing) -> str:
    """Return an SVG file in the size of a paper, its unit points; text stays text, in the paper's fonts."""
    width, height, em = _n(drawing.width), _n(drawing.height), drawing.em
    items = []
    for item in drawing.items:
        style = STYLES[item.style]
        items.append(_element(item, _attributes(style, em, item)))
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}pt" height="{height}pt" '
        f'viewBox="0 0 {width} {height}" font-family="{PAPER_FONTS}" font-size="{_n(em)}">'
    )
    return "\n".join([head, f"<title>{_escape(drawing.title)}</title>", *items, "</svg>"]) + "\n"


def style_sheet(em: float) -> str:
    """Return the rules that colour drawings of a page whose texts have a size of ``em``; ``--ROLE`` are the colours."""
    rules = [f".d{{width:100%;height:auto;display:block;font-size:{_n(em)}px}}"]
    rules += [ ".d text{paint-order:stroke}", ".d .o{fill:none}"]
    for name, style in STYLES.items():
        parts = [f"fill:{_variable(style.fill)}", f"stroke:{_variable(style.stroke)}"]
        if style.stroke:
            parts.append(f"stroke-width:{_n(style.width * em)}")
            parts += [f"stroke-dasharray:{' '.join(_n(part * em) for part in style.dash)}"] if style.dash else []
        parts += [f"font-size:{_n(style.size * em)}px"] if style.size != 1 else []
        parts += ["font-weight:600"] if style.is_bold else []
        rules.append(f".s-{name}{{{';'.join(parts)}}}")
    return "\n".join(rules)


def colour_variables(*, dark: bool) -> str:
    """Return the declarations of the colours."""
    return "".join(f"--{role}:{pair[dark]};" for role, pair in COLOURS.items())


def _classed(drawing: Drawing) -> Iterator[str]:
    """Yield the items; those in a row that look the same share a group."""
    group = ""
    for item in drawing.items:
        if item.style != group:
            yield ("</g>" if group else "") + f'<g class="s-{item.style}">'
            group = item.style
        yield _element(item, "")
    if group:
        yield "</g>"


def _element(item: Line | Area | Mark | Label, attributes: str) -> str:
    match item:
        case Line(points):
            return f'<path{attributes or _OPEN} d="{_path(points)}"/>'
        case Area(points):
            return f'<path{attributes} d="{_path(points)}z"/>'
        case Mark():
            if corners := outline(item):
                return f'<path{attributes} d="{_path(corners)}z"/>'
            x, y = item.at
            return f'<circle{attributes} cx="{_n(x)}" cy="{_n(y)}" r="{_n(item.radius)}"/>'
        case Label(text, (x, y), _, anchor, full):
            anchored = "" if anchor == "start" else f' text-anchor="{anchor}"'
            hover = f"<title>{_escape(full[:_MOST_HOVER])}</title>" if full else ""
            return f'<text{attributes} x="{_n(x)}" y="{_n(y)}"{anchored}>{_escape(text)}{hover}</text>'


def _path(points: tuple[Point, ...]) -> str:
    return "M" + "L".join(f"{_n(x)} {_n(y)}" for x, y in points)


def _attributes(style: Style, em: float, item: Line | Area | Mark | Label) -> str:
    is_text = isinstance(item, Label)
    fill = "" if isinstance(item, Line) else style.fill
    parts = [f'fill="{COLOURS[fill][0] if fill else "none"}"']
    if style.stroke:
        parts += ['paint-order="stroke"'] if is_text else []
        parts += [f'stroke="{COLOURS[style.stroke][0]}"', f'stroke-width="{_n(style.width * em)}"']
        parts += [f'stroke-dasharray="{" ".join(_n(part * em) for part in style.dash)}"'] if style.dash else []
    if is_text:
        parts += [f'font-size="{_n(style.size * em)}"'] if style.size != 1 else []
        parts += ['font-weight="bold"'] if style.is_bold else []
    return "".join(f" {part}" for part in parts)


def _variable(role: str) -> str:
    return f"var(--{role})" if role else "none"


def _escape(text: str) -> str:
    return html.escape(text, quote=True)


def _n(value: float) -> str:
    text = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if text in ("-0", "") else text
