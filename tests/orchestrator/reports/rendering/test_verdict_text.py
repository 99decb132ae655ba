"""What a table says in sentences, and how it comes to its verdicts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

import pytest

from orchestrator.reports.ablation_table import AblationTable, build_tables
from orchestrator.reports.comparisons import Claims
from orchestrator.reports.rendering.cell_text import notes_of
from orchestrator.reports.rendering.verdict_text import sentences_of
from orchestrator.reports.result_files import render_json
from orchestrator.statistics import Verdict
from orchestrator.trials.records import TrialRecord
from specvit.kept_weights import WeightsFile

from ..table_records import DECIDED, INFO, METRICS, make_records

NOISE = (0.0, 1.0, 2.0, 0.5, 1.5, 0.8)
"""What all arms have of each seed."""
WIGGLES = {
    "a": (0.1, -0.1, 0.0, 0.1, -0.1, 0.0),
    "b": (-0.1, 0.1, 0.1, -0.1, 0.0, 0.0),
    "c": (0.0, 0.1, -0.1, 0.0, -0.1, 0.1),
}


def arm(name: str, shift: float, *, seeds: int = 6) -> list[TrialRecord]:
    values = [noise + wiggle + shift for noise, wiggle in zip(NOISE, WIGGLES[name], strict=True)]
    return make_records(name, *values[:seeds])


def baseline(seeds: int = 6) -> list[TrialRecord]:
    return make_records("none", *NOISE[:seeds], role="baseline")


def table_of(records: Sequence[TrialRecord], claims: Claims | None = None) -> AblationTable:
    (table,) = build_tables(records, METRICS, claims).values()
    return table


def verdicts(table: AblationTable, metric: str = "miou") -> dict[str, Verdict | None]:
    return {
        row.arm: difference.verdict
        for row in table.rows
        if (difference := row.metrics[metric].difference) is not None
    }


def test_each_verdict_has_a_sentence_and_the_undecided_say_what_could_not_have_been_seen() -> None:
    table = table_of([*baseline(), *arm("a", 2.0), *arm("b", -1.0), *arm("c", 0.05)])
    assert verdicts(table) == {"a": Verdict.BETTER, "b": Verdict.WORSE, "c": Verdict.UNDECIDED}
    better, worse, undecided = sentences_of(table)
    assert better.startswith("mIoU is better with a: +2.0 [")
    assert better.endswith(" (3 arms, 6 seeds).")
    assert worse.startswith("mIoU is worse with b: -1.0 [")
    assert undecided.startswith("c is undecided (3 arms, 6 seeds): differences under 0.2 could not have been seen. ")
    assert undecided.endswith("more seeds would decide the nearest one, if it stayed as it is.")


def test_a_smallest_effect_makes_arms_equivalent() -> None:
    table = table_of([*baseline(), *arm("a", 0.0), *arm("c", 0.05)], Claims(smallest_effects={"miou": 0.5}))
    assert set(verdicts(table).values()) == {Verdict.EQUIVALENT}
    assert sentences_of(table) == ["a and c change mIoU by less than 0.5 (2 arms, 6 seeds)."]
    assert any("differences under 0.5 are equivalent" in note for note in notes_of(table, place="below it"))


def test_where_nothing_is_found_one_sentence_says_so() -> None:
    (sentence,) = sentences_of(table_of([*baseline(), *arm("a", 0.0), *arm("b", 0.0)]))
    start = "No arm is found to differ from the baseline in mIoU (2 arms, 6 seeds): differences under"
    assert sentence.startswith(start)


def test_with_fewer_than_four_seeds_there_is_no_verdict_and_the_table_says_what_is_missing() -> None:
    table = table_of([*baseline(3), *arm("a", 5.0, seeds=3)])
    assert verdicts(table) == {"a": Verdict.UNDECIDED}
    (sentence,) = sentences_of(table)
    assert sentence.startswith("No verdict on mIoU: ")
    assert "4" in sentence


def test_a_probe_that_is_added_does_not_change_the_primary_metric() -> None:
    assert Claims().primary_of(["in_context_miou", "knn_top1", "miou"]) == "miou"
    assert Claims().primary_of(["depth_rmse", "knn_top1", "miou"]) == "miou"
    assert Claims().primary_of(["knn_top1", "depth_rmse"]) == "depth_rmse"
    assert Claims().primary_of(["knn_top1", "linear_top1"]) == "knn_top1"
    assert Claims(primary="linear_top1").primary_of(["knn_top1", "linear_top1"]) == "linear_top1"
    assert Claims().primary_of([]) == ""


def test_one_metric_is_primary_and_the_others_have_no_verdict() -> None:
    table = table_of(DECIDED)
    assert table.primary == "miou"  # the first dense one
    assert verdicts(table, "knn_top1") == {"norm@all": None}
    named = table_of(DECIDED, Claims(primary="linear_top1"))
    assert (named.primary, verdicts(named, "linear_top1")) == ("linear_top1", {"norm@all": Verdict.BETTER})
    q_values = [named.rows[1].metrics[name].difference.q_value for name in METRICS]  # type: ignore[union-attr]
    assert q_values[1] is None
    # Two exploratory cells of the same p: the adjusted one is that p.
    assert q_values[0] == q_values[2] == pytest.approx(named.rows[1].metrics["miou"].difference.p_value)  # type: ignore[union-attr]


def test_a_pruned_arm_is_out_of_the_pool() -> None:
    pruned = make_records("c", 9.0, None, None, None, None, None)
    table = table_of([*baseline(), *arm("a", 2.0), *pruned])
    assert table.rows[2].metrics["miou"].difference is not None
    assert table.rows[2].metrics["miou"].difference.mean is None
    alone = table_of([*baseline(), *arm("a", 2.0)])
    assert table.rows[1].metrics == alone.rows[1].metrics


def test_an_arm_that_changes_nothing_is_a_no_op_and_out_of_the_pool() -> None:
    table = table_of([*baseline(), *arm("a", 2.0), *make_records("same", *NOISE)])
    assert [row.is_no_op for row in table.rows] == [False, False, True]
    assert table.rows[1].metrics == table_of([*baseline(), *arm("a", 2.0)]).rows[1].metrics
    assert any("no-op" in note for note in notes_of(table, place="below it"))
    assert sentences_of(table)[-1] == "same is a no-op: equal to the baseline in every metric and seed."
    alone = table_of([*baseline(), *make_records("same", *NOISE), *make_records("too", *NOISE)])
    assert sentences_of(alone) == ["same and too are no-ops: equal to the baseline in every metric and seed."]


def test_an_arm_whose_kept_weights_are_the_baselines_is_a_no_op() -> None:
    def kept(records: Sequence[TrialRecord], *sums: str) -> list[TrialRecord]:
        files = [(WeightsFile("a/backbone.safetensors", sha256, is_probed=True),) for sha256 in sums]
        return [replace(record, weights=weights) for record, weights in zip(records, files, strict=True)]

    sums = ["0" * 64, "1" * 64, "2" * 64, "3" * 64, "4" * 64, "5" * 64]
    records = [*kept(baseline(), *sums), *kept(arm("a", 2.0), *sums), *kept(arm("b", 2.0), *sums[:5], "6" * 64)]
    assert [row.is_no_op for row in table_of(records).rows] == [False, True, False]


def test_json_holds_what_the_table_says() -> None:
    (made,) = json.loads(render_json(build_tables(DECIDED, METRICS), INFO))["tables"]
    assert (made["primary"], made["smallest_effect"]) == ("miou", None)
    assert made["says"] == ["mIoU is better with norm@all: +3.1 [+3.0, +3.2] (1 arm, 5 seeds)."]
    assert made["rows"][1]["miou_verdict"] == "better"
    assert made["could_have_seen"]["miou"] > 0
    assert made["pairing"]["miou"]["worth"] > 1
