from __future__ import annotations

import dataclasses
from html.parser import HTMLParser

import pytest

from orchestrator.reports.ablation_table import build_tables
from orchestrator.reports.rendering.html_table import render_html, render_html_page
from orchestrator.trials.records import TrialRecord

from ..table_records import DECIDED, INFO, METRICS, RECORDS, make_records, with_costs

HOSTILE = "<script>x()</script>&\"'<img src=x onerror=y>\x1b"
VOID = ("meta", "wbr")


class Parsed(HTMLParser):
    """What a page holds: that its elements close, its tables cell by cell."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[tuple[str, str, str]]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append((tag, dict(attrs).get("class") or "", ""))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if {"td", "th"} & set(self.open):
            tag, its_class, text = self.rows[-1][-1]
            self.rows[-1][-1] = (tag, its_class, text + data)


def table_of(records: list[TrialRecord]) -> str:
    return render_html(build_tables(records, METRICS)[""])


@pytest.mark.parametrize("records", [RECORDS, with_costs(RECORDS), DECIDED], ids=["plain", "costs", "decided"])
def test_html_is_a_table_with_caption_heads_and_as_many_cells_in_every_row(records: list[TrialRecord]) -> None:
    parsed = Parsed(table_of(records))
    first, second, *rows = parsed.rows
    names = [tag for tag, _ in parsed.elements]
    assert names[:4] == ["table", "caption", "thead", "tr"]
    assert names.count("tbody") == len({record.trial.role for record in records})
    assert len(second) == 2 * len(METRICS)
    assert {len(row) for row in rows} == {len(first) + len(METRICS)}
    assert all(row[0][0] == "th" and {tag for tag, *_ in row[1:]} == {"td"} for row in rows)
    scopes = [attributes.get("scope") for tag, attributes in parsed.elements if tag == "th"]
    assert None not in scopes
    assert scopes.count("row") == len(rows)


def test_html_says_verdicts_by_class_mark_and_word() -> None:
    parsed = Parsed(table_of(DECIDED))
    classes = [attributes["class"] for tag, attributes in parsed.elements if tag == "tr" and "class" in attributes]
    assert classes == ["role-baseline", "role-arm verdict-better"]
    (cells,) = (row for row in parsed.rows if row[0][2] == "norm@all")
    assert cells[6] == ("td", "primary verdict-better", "+3.1 [+3.0, +3.2] ▲ better")
    assert cells[2] == ("td", "", "+3.1 [+3.0, +3.2] †")


def test_html_marks_what_was_pruned_or_failed() -> None:
    cells = {row[0][2]: row for row in Parsed(table_of(RECORDS)).rows}
    assert cells["a|b"][-2][1:] == ("failed", "1/3, 2 failed")
    assert cells["norm@first-third+qkv@first-third+mlp@first-third"][-2][1:] == ("pruned", "2/3, 1 pruned")
    assert cells["random init (floor)"][1][2] == "42.0 ± 1.0"


def test_html_page_holds_hostile_text_as_text_and_fetches_nothing() -> None:
    info = dataclasses.replace(INFO, name=HOSTILE, question=HOSTILE)
    records = make_records(HOSTILE, 0.0, 1.0, role="baseline", group=HOSTILE)
    records += make_records("a" + HOSTILE, 0.0, None, error=HOSTILE, group=HOSTILE)
    text = render_html_page(build_tables(records, METRICS), info)
    parsed = Parsed(text)
    assert {"script", "img", "link", "iframe"} & {tag for tag, _ in parsed.elements} == set()
    names = {name for _, attributes in parsed.elements for name in attributes}
    assert not {name for name in names if name.startswith("on") or name in ("src", "href")}
    assert "http:" not in text
    assert "https:" not in text
    assert "\x1b" not in text
    assert "<script>x()</script>" in "".join(cell for row in parsed.rows for _, _, cell in row)
    assert text.startswith("<!DOCTYPE html>\n")
