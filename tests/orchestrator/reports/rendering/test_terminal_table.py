from __future__ import annotations

import io

import pytest
from rich.console import Console

from orchestrator.reports.ablation_table import build_tables
from orchestrator.reports.rendering.terminal_table import render_rich
from orchestrator.trials.records import State, TrialRecord

from ..table_records import DECIDED, INFO, METRICS, RECORDS, make_records, with_costs


def to_text(records: list[TrialRecord], width: int = 120) -> str:
    console = Console(width=width, file=io.StringIO(), record=True)
    console.print(render_rich(build_tables(records, METRICS), INFO))
    return console.export_text()


def test_terminal_table_shows_control_characters_and_markup_as_text() -> None:
    records = make_records("[b]\x1b[2J", 1.0, None, role="baseline", error="no \x1b]0;x\x07 [/b]", group="g\x9b")
    text = to_text(records)
    assert r"[b]\x1b[2J (baseline)" in text
    assert r"failed: [b]\x1b[2J seed 1: no \x1b]0;x\x07 [/b]" in text
    assert r"g\x9b" in text
    assert not set(text) & set("\x1b\x07\x9b")


@pytest.mark.parametrize("width", [80, 100, 120])
def test_terminal_table_fits_its_width_and_cuts_no_cell(width: int) -> None:
    text = to_text(RECORDS, width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    assert text.count("+3.1 [+2.") == len(METRICS)


def test_terminal_table_shows_three_metrics_side_by_side_in_120_columns() -> None:
    (header,) = (line for line in to_text(RECORDS).splitlines() if "kNN top-1 (%)" in line)
    assert "linear top-1" in header
    assert "mIoU" in header


@pytest.mark.parametrize("width", [60, 80, 100])
def test_terminal_table_gives_long_arms_short_names_and_a_legend_where_room_is_short(width: int) -> None:
    lines = to_text(RECORDS, width).splitlines()
    (first, *_) = (place for place, line in enumerate(lines) if line.startswith("norm+qkv+mlp@⅓ "))
    assert lines[first + 1].startswith(" " * 18)  # the difference, and no more of the name
    legend = " ".join(" ".join(lines).split())
    long = "norm@first-third+qkv@first-third+mlp@first-third"
    assert f"norm+qkv+mlp@first-third is {long}; ⅓: first-third" in legend


def test_terminal_table_with_room_has_a_line_for_each_row_and_the_arms_own_names() -> None:
    lines = [line.split() for line in to_text(DECIDED, 160).splitlines()]
    assert ["norm@all", "54.1", "±", "0.9", "+3.1", "[+3.0,", "+3.2]", "†"] in [line[:8] for line in lines]
    assert sum(line[:1] == ["norm@all"] for line in lines) == 1
    text = to_text(RECORDS, 200)
    assert "norm@first-third+qkv@first-third+mlp@first-third  " in text
    assert "⅓" not in text


def test_terminal_table_puts_what_does_not_fit_into_tables_below() -> None:
    def headings(width: int) -> list[list[str]]:
        titles = ("kNN", "linear", "mIoU", "seconds")
        lines = to_text(RECORDS, width).splitlines()
        found = [[title for title in titles if title in line] for line in lines if line.startswith("arm ")]
        assert max(map(len, lines)) <= width
        return found

    # Names of 14 characters, metrics of 19, states of 6, 8 and 7, two between them: 14 + 57 + 21 + 12 = 104.
    assert headings(104) == [["kNN", "linear", "mIoU", "seconds"]]
    assert headings(103) == headings(77) == [["kNN", "linear", "mIoU"], ["seconds"]]
    assert headings(58) == [["kNN", "linear"], ["mIoU"], ["seconds"]]
    assert headings(62) == [["kNN", "linear"], ["mIoU", "seconds"]]
    assert headings(46) == [["kNN"], ["linear"], ["mIoU"], ["seconds"]]


def test_terminal_table_marks_verdicts_beside_colour() -> None:
    text = to_text(DECIDED, 80)
    assert "+3.1 [+3.0, +3.2] ▲" in text
    assert "mIoU: ▲ better." in text
    worse = [*DECIDED[:5], *make_records("qkv@all", -3.0, -2.1, -1.2, -2.6, -1.6)]
    assert "mIoU: ▼ worse." in to_text(worse, 80)


def test_terminal_table_without_utf_8_is_in_ascii() -> None:
    file = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    console = Console(width=80, file=file)
    console.print(render_rich(build_tables([*DECIDED, *RECORDS[6:9]], METRICS), INFO))
    file.flush()
    text = file.buffer.getvalue().decode("ascii")  # type: ignore[attr-defined]
    assert "54.1 +- 0.9" in text
    assert "+3.1 [+3.0, +3.2] ^" in text
    assert "mIoU: ^ better" in text
    assert "norm+qkv+mlp@1/3" in text
    assert {len(line.strip("-")) for line in text.splitlines() if line.startswith("---")} == {0}


def test_terminal_table_takes_text_that_looks_like_markup_for_text() -> None:
    assert "failed: a|b seed 1: RuntimeError: [red]x[/red] | `y` second line" in to_text(RECORDS)


def test_terminal_table_shows_failed_seeds_in_red_and_clear_differences_in_bold() -> None:
    console = Console(width=120, file=io.StringIO(), force_terminal=True, color_system="standard")
    console.print(render_rich(build_tables(RECORDS, METRICS), INFO))
    console.print(render_rich(build_tables(DECIDED, METRICS), INFO))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "\x1b[31m2 failed\x1b[0m" in text.replace(" \x1b", "\x1b").replace("\x1b[31m ", "\x1b[31m")
    assert "\x1b[1;32m+3.1 [+3.0, +3.2] ▲\x1b[0m" in text


def test_terminal_table_has_no_colour_where_none_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    console = Console(width=120, file=io.StringIO(), force_terminal=True, color_system="standard")
    console.print(render_rich(build_tables(DECIDED, METRICS), INFO))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "\x1b[1m+3.1 [+3.0, +3.2] ▲\x1b[0m" in text
    assert "\x1b[3" not in text.replace("\x1b[3m", "")


def test_terminal_table_of_trials_that_all_wait_has_a_row_per_arm() -> None:
    waiting = [TrialRecord(**{**vars(record), "state": State.WAITING, "metrics": {}}) for record in RECORDS]
    text = to_text(waiting)
    assert text.count("3 to do") == 5
    assert "15 of 15 trials" in text


@pytest.mark.parametrize(("width", "is_beside"), [(80, False), (120, False), (200, True)])
def test_terminal_table_shows_what_trainings_took_beside_the_metrics_or_below(width: int, is_beside: bool) -> None:
    text = to_text(with_costs(RECORDS, gpu=12.5), width)
    lines = text.splitlines()
    assert max(map(len, lines)) <= width
    assert text.count("30.2") == 4  # the arms that have a trial that is done
    (header,) = (line for line in lines if "images/s" in line)
    assert ("difference" in header) is is_beside
    (row,) = (line for line in lines if line.startswith("norm@all") and "1,234" in line)
    assert ("+3.1" in row) is is_beside
    assert row.split()[-4:] == ["30.2", "1,234", "12.50", "GPU"]
    assert "…" not in text


def test_terminal_table_of_a_ledger_without_costs_has_no_room_for_them() -> None:
    assert "images/s" not in to_text(RECORDS, 200)
