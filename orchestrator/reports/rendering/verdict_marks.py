"""Marks for verdicts, which tell them apart without colour, and in ASCII where a terminal has no others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from orchestrator.reports.ablation_table import ArmRow
from orchestrator.reports.rendering.cell_text import verdict_text
from orchestrator.statistics import Verdict

MARKS: Mapping[Verdict, str] = {
    Verdict.BETTER: "▲",
    Verdict.WORSE: "▼",
    Verdict.EQUIVALENT: "=",
    Verdict.UNDECIDED: "·",
}
ASCII_MARKS: Mapping[Verdict, str] = {**MARKS, Verdict.BETTER: "^", Verdict.WORSE: "v", Verdict.UNDECIDED: "."}
STYLES: Mapping[Verdict, str] = {Verdict.BETTER: "bold green", Verdict.WORSE: "bold red", Verdict.EQUIVALENT: "cyan"}
"""How a terminal shows them besides; none for what is undecided."""


def mark_of(row: ArmRow, name: str, *, is_ascii: bool = False) -> str:
    """Return the mark of the verdict on an arm in a metric; empty where there is none."""
    verdict = verdict_of(row, name)
    return "" if verdict is None else (ASCII_MARKS if is_ascii else MARKS)[verdict]


def verdict_of(row: ArmRow, name: str) -> Verdict | None:
    """Return the verdict that a table shows of an arm in a metric; None where there is none."""
    text = verdict_text(row, name) if name in row.metrics else ""
    return Verdict(text) if text else None


def marks_legend(verdicts: Iterable[Verdict], *, is_ascii: bool = False) -> str:
    """Return what the marks of some verdicts mean: ``▲ better, · undecided``; empty without any."""
    found = set(verdicts)
    marks = ASCII_MARKS if is_ascii else MARKS
    return ", ".join(f"{marks[verdict]} {verdict}" for verdict in Verdict if verdict in found)
