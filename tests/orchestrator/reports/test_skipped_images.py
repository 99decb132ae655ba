"""Bad images that trials have left out, in the sentences of the tables."""

from __future__ import annotations

import dataclasses
import io

import pytest
from rich.console import Console

from orchestrator.reports.ablation_table import build_tables
from orchestrator.reports.rendering.caption_text import caption_of
from orchestrator.reports.rendering.markdown_table import render_markdown
from orchestrator.reports.rendering.terminal_table import render_rich
from orchestrator.reports.skipped_images import SkippedImages, collect_skipped, skipped_note
from orchestrator.trials.records import State, TrialRecord

from .table_records import INFO, METRICS, make_records


def _records(*counts: float) -> list[TrialRecord]:
    records = [*make_records("none", 0.0, 1.0, role="baseline"), *make_records("norm@all", 3.0, 4.0)]
    return [
        dataclasses.replace(record, metrics={**record.metrics, "skipped_images": count})
        for record, count in zip(records, counts, strict=True)
    ]


def test_trials_that_are_done_and_have_left_out_images_are_counted() -> None:
    assert collect_skipped(_records(2.0, 0.0, 5.0, 2.0)) == SkippedImages(trials=3, least=2, most=5)
    assert collect_skipped(_records(0.0, 0.0, 0.0, 0.0)) is None
    assert collect_skipped(make_records("none", 0.0, 1.0)) is None
    pruned = [dataclasses.replace(record, state=State.PRUNED) for record in _records(2.0, 2.0, 2.0, 2.0)]
    assert collect_skipped(pruned) is None
    assert collect_skipped(_records(float("nan"), float("inf"), -1.0, 1.0)) == SkippedImages(1, 1, 1)


@pytest.mark.parametrize(
    ("skipped", "told"),
    [
        (SkippedImages(1, 1, 1), "1 trial skipped 1 file each"),
        (SkippedImages(3, 2, 2), "3 trials skipped 2 files each"),
        (SkippedImages(3, 2, 1500), "3 trials skipped 2 to 1,500 files each"),
    ],
)
def test_the_sentence_says_how_many(skipped: SkippedImages, told: str) -> None:
    assert skipped_note(skipped) == (
        f"Bad images: {told} and took other images in their place; the logs of the trials name them."
    )
    assert skipped_note(None) is None


def test_tables_and_captions_say_it_where_there_are_any() -> None:
    for counts, is_told in (((2.0, 0.0, 5.0, 2.0), True), ((0.0,) * 4, False)):
        tables = build_tables(_records(*counts), METRICS)
        console = Console(width=250, record=True, file=io.StringIO())
        console.print(render_rich(tables, INFO))
        texts = [console.export_text(), render_markdown(tables, INFO), " ".join(caption_of(tables[""]))]
        assert ["skipped 2 to 5 files" in text for text in texts] == [is_told] * 3
