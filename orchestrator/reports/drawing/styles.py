"""How things look: roles of colours, in the light and in the dark, and the styles of lines, areas, marks and texts.

Colours are those that people with a colour vision deficiency can tell apart (Okabe and Ito), in the dark made lighter;
what they mean is also told by a shape or a dash.
"""

from __future__ import annotations

from dataclasses import dataclass

COLOURS = {
    "ink": ("#1b1f24", "#e6e8eb"),
    "muted": ("#5c6570", "#9aa4af"),
    "grid": ("#e3e6ea", "#2c333b"),
    "axis": ("#9aa2ab", "#59626c"),
    "paper": ("#ffffff", "#14181d"),
    "band": ("#e9eef4", "#222b35"),
    "better": ("#0072b2", "#56b4e9"),
    "worse": ("#c24e00", "#f0904d"),
    "equivalent": ("#00795a", "#2fc79a"),
    "undecided": ("#5c6570", "#9aa4af"),
    "series1": ("#0072b2", "#56b4e9"),
    "series2": ("#c24e00", "#f0904d"),
    "series3": ("#00795a", "#2fc79a"),
    "series4": ("#a3527f", "#d98fb8"),
    "series5": ("#8a6d00", "#e0c341"),
    "series6": ("#3f51a3", "#9fb0f5"),
}
"""Role to its colour in the light, which is also that of papers, and in the dark."""

SERIES = ("series1", "series2", "series3", "series4", "series5", "series6")
"""Curves that can be told apart, each with a dash of its own."""


@dataclass(frozen=True)
class Style:
    """How something looks; lengths in em.

    Attributes:
        stroke: Role of the colour of its lines, of a text of a halo that keeps it readable; empty = none.
        fill: Role of the colour inside, of a text that of the text; empty = none.
        width: Of its lines.
        dash: Lengths of dashes and gaps; none = solid.
        size: Of a text.
        is_bold: Of a text.
    """

    stroke: str = ""
    fill: str = ""
    width: float = 0.08
    dash: tuple[float, ...] = ()
    size: float = 1.0
    is_bold: bool = False


_DASHES: tuple[tuple[float, ...], ...] = ((), (0.5, 0.22), (0.14, 0.2), (0.7, 0.2, 0.14, 0.2), (1.0, 0.3), (0.3, 0.3))

STYLES = {
    "grid": Style(stroke="grid", width=0.07),
    "axis": Style(stroke="axis", width=0.08),
    "zero": Style(stroke="ink", width=0.1),
    "band": Style(fill="band"),
    "band-edge": Style(stroke="axis", width=0.07, dash=(0.25, 0.25)),
    "better": Style(stroke="better", fill="better", width=0.15),
    "worse": Style(stroke="worse", fill="worse", width=0.15),
    "equivalent": Style(stroke="equivalent", fill="equivalent", width=0.15),
    "undecided": Style(stroke="undecided", fill="paper", width=0.13),
    "none": Style(stroke="undecided", fill="undecided", width=0.11),
    "label": Style(stroke="paper", fill="ink", width=0.25),
    "strong": Style(fill="ink", is_bold=True),
    "note": Style(fill="muted", size=0.9),
    "name": Style(stroke="paper", fill="muted", width=0.25, size=0.9),
    "t-better": Style(fill="better", is_bold=True),
    "t-worse": Style(fill="worse", is_bold=True),
    "t-equivalent": Style(fill="equivalent", is_bold=True),
    "t-undecided": Style(fill="muted"),
    "t-none": Style(fill="muted"),
    "baseline": Style(stroke="ink", fill="ink", width=0.2),
    "others": Style(stroke="axis", fill="axis", width=0.08),
} | {
    name: Style(stroke=name, fill=name, width=0.14, dash=dash) for name, dash in zip(SERIES, _DASHES, strict=True)
} | {
    f"{name}-thin": Style(stroke=name, fill="paper", width=0.1, dash=(0.2, 0.25))
    for name in (*SERIES, "ink", "axis", "better", "worse", "equivalent")
}
"""Name to style. ``t-..`` are texts, ``..-thin`` the parts of curves that rest on fewer seeds."""
