"""A drawing as SVG and as PDF: the same twice, well formed, texts as texts."""

from __future__ import annotations

import re
from xml.etree import ElementTree as ET

import pytest

from orchestrator.reports.drawing.pdf import render_pdf
from orchestrator.reports.drawing.shapes import Area, Drawing, Label, Line, Mark
from orchestrator.reports.drawing.styles import COLOURS, STYLES
from orchestrator.reports.drawing.svg import render_svg, render_svg_file, style_sheet

DRAWING = Drawing(
    100.0,
    50.0,
    8.0,
    (
        Area(((0, 0), (10, 0), (10, 50)), "band"),
        Line(((0, 25), (100, 25)), "series2"),
        Mark("up", (50, 25), 3.0, "better"),
        Mark("circle", (70, 25), 3.0, "undecided"),
        Label("a <b> & $c$", (5, 20), "label", "end", full="more of it"),
    ),
    "what & why",
)
SVG = "{http://www.w3.org/2000/svg}"


def luminance(colour: str) -> float:
    """Return the relative luminance of WCAG 2.2."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_a_file_has_the_size_of_the_drawing_in_points_and_keeps_text_as_text() -> None:
    root = ET.fromstring(render_svg_file(DRAWING))
    assert (root.get("width"), root.get("height"), root.get("viewBox")) == ("100pt", "50pt", "0 0 100 50")
    assert [text.text for text in root.iter(f"{SVG}text")] == ["a <b> & $c$"]
    assert root.find(f"{SVG}title").text == "what & why"  # type: ignore[union-attr]
    line = next(path for path in root.iter(f"{SVG}path") if path.get("stroke") == COLOURS["series2"][0])
    assert (line.get("fill"), line.get("stroke-dasharray")) == ("none", "4 1.76")  # 0.5 and 0.22 em of 8 points


def test_an_element_of_a_page_has_classes_that_the_style_sheet_knows() -> None:
    classes = set(re.findall(r'class="s-([\w-]+)"', render_svg(DRAWING)))
    assert classes == {"band", "series2", "better", "undecided", "label"}
    assert all(f".s-{name}{{" in style_sheet(13.0) for name in STYLES)
    assert "#" not in render_svg(DRAWING)


def test_a_pdf_is_the_same_every_time_with_text_as_text_and_no_date() -> None:
    written = render_pdf(DRAWING)
    assert written == render_pdf(DRAWING)
    assert written.startswith(b"%PDF")
    assert b"/MediaBox [ 0 0 100 50 ]" in written
    assert b"CreationDate" not in written
    assert b"STIXGeneral" in written
    assert b"/Type3" not in written  # no TrueType, and refused by some journals


@pytest.mark.long
def test_letters_that_no_font_has_are_no_reason_to_stop() -> None:
    label = Label("日本語 \ue000", (5, 20), "label")
    assert render_pdf(Drawing(100.0, 50.0, 8.0, (label,), "")).startswith(b"%PDF")


def test_texts_and_verdicts_can_be_read_on_their_ground_in_the_light_and_in_the_dark() -> None:
    for is_dark in (False, True):
        paper = COLOURS["paper"][is_dark]
        for role in ("ink", "muted", "better", "worse", "equivalent", "undecided"):
            assert contrast(COLOURS[role][is_dark], paper) >= 4.5, role  # WCAG 2.2, AA
