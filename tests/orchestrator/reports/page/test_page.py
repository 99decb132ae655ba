"""The page as a document: well formed, nothing in it that runs or loads, whoever wrote the ledger."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from html.parser import HTMLParser

import pytest

from orchestrator.reports.page.page import POLICY, render_page
from orchestrator.reports.page.report import SweepReport
from orchestrator.trials.records import Report

from .page_records import HOSTILE, STATES, hostile_groups, hostile_report, large_records, report_of

VOID = ("meta", "link", "wbr")
ELEMENTS = {
    *("html", "head", "meta", "link", "title", "style", "body", "header", "nav", "main", "section", "footer"),
    *("h1", "h2", "h3", "h4", "p", "a", "b", "bdi", "wbr", "code", "pre", "ul", "li"),
    *("dl", "dt", "dd", "div", "span"),
    *("table", "thead", "tbody", "tr", "th", "td", "details", "summary", "figure", "figcaption"),
    *("svg", "g", "path", "circle", "text"),
}
ATTRIBUTES = {
    *("lang", "charset", "http-equiv", "rel", "content", "name", "href", "id", "class", "style", "role"),
    *("scope", "open"),
    *("viewbox", "d", "cx", "cy", "r", "x", "y", "text-anchor"),
}


class Document(HTMLParser):
    """A parser that takes note of all that is there, and of what is not closed."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: set[str] = set()
        self.attributes: set[tuple[str, str, str | None]] = set()
        self.ids: list[str] = []
        self.texts: list[str] = []
        self.problems: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.add(tag)
        self.attributes |= {(tag, name, value) for name, value in attrs}
        self.ids += [value or "" for name, value in attrs if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.add(tag)
        self.attributes |= {(tag, name, value) for name, value in attrs}

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.problems.append(f"</{tag}>")

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def handle_comment(self, data: str) -> None:
        self.problems.append(f"<!--{data}-->")


@cache
def hostile_page() -> str:
    return render_page(hostile_report())


@pytest.fixture(
    scope="module",
    params=[lambda: report_of(STATES), hostile_report, hostile_groups, lambda: report_of([])],
    ids=["states", "hostile", "hostile groups", "empty"],
)
def report(request: pytest.FixtureRequest) -> SweepReport:
    make: Callable[[], SweepReport] = request.param
    return make()


def test_the_page_is_well_formed_and_holds_nothing_that_runs_or_loads(report: SweepReport) -> None:
    page = render_page(report)
    page.encode("utf-8")
    document = Document(page)
    assert (document.open, document.problems) == ([], [])
    assert document.elements <= ELEMENTS
    assert {name for _, name, _ in document.attributes} <= ATTRIBUTES
    assert [href for tag, name, href in document.attributes if (tag, name) == ("link", "href")] == ["data:,"]
    links = {value for tag, name, value in document.attributes if name == "href" and tag != "link"}
    assert {link[1:] for link in links if link} <= set(document.ids)
    assert all(link and link.startswith("#") for link in links)
    assert len(document.ids) == len(set(document.ids))
    styles = {value for _, name, value in document.attributes if name == "style"}
    assert all(re.fullmatch(r"(max-)?width:[\d.]+(px|%)", value or "") for value in styles)
    (style,) = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    assert not re.search(r"url|@import|expression", style)
    assert page.index("Content-Security-Policy") < page.index("<style>")
    assert ("meta", "content", POLICY) in document.attributes


def test_no_character_steers_what_shows_the_page(report: SweepReport) -> None:
    steering = r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]"
    assert not re.search(steering, render_page(report))


def test_a_text_that_is_markup_is_shown_as_it_is() -> None:
    texts = "\n".join(Document(hostile_page()).texts)
    for text in HOSTILE[:11]:
        assert text in texts


def test_a_very_long_text_is_cut() -> None:
    page = hostile_page()
    assert "w" * 300 not in page.split("<pre>")[0]
    assert "(10,000 characters)" in page


@pytest.mark.parametrize(
    ("final", "value"),
    [(math.nan, math.nan), (math.inf, -math.inf), (1e60, 1e308), (5e-324, -1e200)],
)
def test_no_number_whatever_it_is_keeps_a_page_from_being_made(final: float, value: float) -> None:
    odd = [
        replace(
            each,
            metrics=dict.fromkeys(each.metrics, final),
            reports=(Report(0, {"miou": value}), Report(10**15, {"miou": 1.0})),
            trial=replace(each.trial, extra_parameters_percent=1e308 if value == 1e308 else -5.0),
        )
        if number % 3 == 1
        else each
        for number, each in enumerate(STATES)
    ]
    document = Document(render_page(report_of(odd)))
    assert (document.open, document.problems) == ([], [])
    places = {value for _, name, value in document.attributes if name in ("d", "x", "y", "cx", "cy", "viewbox")}
    assert not [place for place in places if re.search("nan|inf", place or "")]


def test_the_same_report_makes_the_same_page() -> None:
    assert render_page(report_of(STATES)) == render_page(report_of(STATES))


def test_a_page_that_is_kept_does_not_ask_for_another_and_one_that_is_served_does() -> None:
    assert "refresh" not in render_page(report_of(STATES))
    page = render_page(report_of(STATES, seen_at="12:00:00 UTC", refresh_s=30))
    assert '<meta http-equiv="refresh" content="30">' in page
    assert "12:00:00 UTC" in page


def test_a_sweep_of_many_groups_is_told_in_a_table_with_each_group_folded() -> None:
    records = large_records(13)
    page = render_page(report_of(records))
    document = Document(page)
    assert (document.open, document.problems) == ([], [])
    assert page.count('class="folded"') == 13
    # In each group an arm is 3 above and one 3 below, one has lost its last seed, and five are like the baseline.
    assert "13 groups; of their arms are 13 better, 13 worse" in page
    assert len(page) < 13 * 20_000 + 50_000
