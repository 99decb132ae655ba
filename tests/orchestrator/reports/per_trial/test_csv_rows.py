"""CSV that reads back as it was, by the standard library too, and files that hold something else."""

from __future__ import annotations

import csv
import io
import math
import struct
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.reports.per_trial.csv_rows import Row, read_rows, render_rows
from orchestrator.trials.records import State
from specvit.errors import SpecsweepError

TEXTS = st.text(st.characters(exclude_categories=["Cs"]))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(TEXTS, st.floats(), st.integers(-(2**63), 2**63 - 1)), max_size=4))
def test_texts_and_numbers_read_back_as_the_same(values: list[tuple[str, float, int]]) -> None:
    text = render_rows(("a", "b", "c"), values)
    _, rows = read_rows(text.encode(), "x.csv", required=("a", "b", "c"), most_rows=9)
    read = [(row.text("a"), row.any_number("b"), row.integer("c")) for row in rows]
    assert [(a, c) for a, _, c in read] == [(a, c) for a, _, c in values]
    for (_, given_number, _), (_, number, _) in zip(values, read, strict=True):
        assert math.isnan(number) if math.isnan(given_number) else bits(number) == bits(given_number)
    others = list(csv.reader(io.StringIO(text, newline="")))[1:]
    assert [row[0] for row in others] == [a for a, _, _ in values]
    assert [int(row[2]) for row in others] == [c for _, _, c in values]


def bits(number: float) -> bytes:
    """Return all that a double holds: of a zero also its sign."""
    return struct.pack("<d", number)


def test_the_line_of_a_row_is_that_where_it_begins() -> None:
    text = 'a,b\n"one\ntwo",1\n"three",x\n'
    _, rows = read_rows(text.encode(), "x.csv", required=("a", "b"), most_rows=9)
    assert next(rows).integer("b") == 1
    with pytest.raises(SpecsweepError, match=r"^x\.csv:4: b: must be a whole number of 64 bits, not 'x'$"):
        next(rows).integer("b")


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        (b"", r"x\.csv:1: lacks the columns a, b"),
        (b"a\n", r"x\.csv:1: lacks the column b"),
        (b"a,b,a\n", r"x\.csv:1: has the column 'a' twice"),
        (b"a,b\n1\n", r"x\.csv:2: must have 2 cells, as the header has, not 1"),
        (b"a,b\n1,2\n\n", r"x\.csv:3: must have 2 cells, as the header has, not 0"),
        (b"a,b\n1,2\n1,2\n1,2\n", r"x\.csv:4: must have at most 2 rows"),
        (b'a,b\n1,"2"3\n', r"x\.csv:2: cannot be read as CSV \('"),
        (b'a,b\n1,"2\n', r"x\.csv:2: cannot be read as CSV \(unexpected end of data\)"),
        (b"a,b\n1,\xff\n", r"x\.csv:2: must be UTF-8; byte 0xff is not"),
        (b"a,b\n" + b"," * 5000, r"x\.csv:2: must have 2 cells, as the header has, not 5001"),
        (b",".join(b"%d" % i for i in range(2001)), r"x\.csv:1: must have at most 2000 columns, not 2001"),
    ],
)
def test_what_is_no_such_file_is_refused_by_its_line(text: bytes, rule: str) -> None:
    with pytest.raises(SpecsweepError, match=f"^{rule}"):
        list(read_rows(text, "x.csv", required=("a", "b"), most_rows=2)[1])


def test_a_cell_may_be_longer_than_the_standard_library_allows() -> None:
    limit = csv.field_size_limit()
    text = render_rows(("a", "b"), [("x" * (limit + 1), None)])
    (row,) = read_rows(text.encode(), "x.csv", required=("a", "b"), most_rows=2)[1]
    assert (len(row.text("a")), row.text_or_none("b")) == (limit + 1, None)
    assert csv.field_size_limit() == limit


def test_a_byte_order_mark_and_other_line_ends_are_read_as_spreadsheets_write_them() -> None:
    header, rows = read_rows(b"\xef\xbb\xbfa,b\r\n1,1E-05\r\n", "x.csv", required=("a", "b"), most_rows=2)
    assert (header, next(rows).number("b")) == (("a", "b"), 1e-5)


@pytest.mark.parametrize(
    ("read", "text", "rule"),
    [
        (lambda row: row.integer("n"), "1_000", "a whole number of 64 bits"),
        (lambda row: row.integer("n"), "\u0661", "a whole number of 64 bits"),
        (lambda row: row.integer("n"), "9223372036854775808", "a whole number of 64 bits"),
        (lambda row: row.integer("n"), "9" * 5000, "a whole number of 64 bits"),
        (lambda row: row.integer("n", least=0), "-1", "a whole number from 0 to 9223372036854775807"),
        (lambda row: row.any_number("n"), "NaN", "a number, 'nan', 'inf' or '-inf'"),
        (lambda row: row.any_number("n"), " 1", "a number, 'nan', 'inf' or '-inf'"),
        (lambda row: row.any_number("n"), "0x10", "a number, 'nan', 'inf' or '-inf'"),
        (lambda row: row.any_number("n"), "1e99999", "a number, 'nan', 'inf' or '-inf'"),
        (lambda row: row.number("n"), "inf", "a finite number"),
        (lambda row: row.number("n"), "1e999", "a finite number"),
        (lambda row: row.number("n"), "", "a finite number"),
        (lambda row: row.number_or_none("n", least=0), "-0.5", "a finite number of at least 0"),
        (lambda row: row.one_of("n", State), "over", "one of 'waiting', 'pending', 'running', 'done', 'pruned'"),
    ],
)
def test_what_is_not_what_a_column_is_for_is_refused(read: Callable[[Row], object], text: str, rule: str) -> None:
    with pytest.raises(SpecsweepError) as refused:
        read(Row("x.csv:7", {"n": text}))
    assert str(refused.value).startswith(f"x.csv:7: n: must be {rule}")
    assert len(str(refused.value)) < 250


def test_a_message_shows_no_control_characters() -> None:
    with pytest.raises(SpecsweepError) as refused:
        Row("x.csv:7", {"n\x1b[31m": "\x1b]0;title\x07"}).number("n\x1b[31m")
    assert str(refused.value).isprintable()
