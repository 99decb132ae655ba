"""The factorial reading: which factorials are found, what their effects are, and what a table says of them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from io import StringIO
from itertools import combinations
from math import sqrt
from statistics import stdev

import pytest
from rich.console import Console
from scipy.stats import t as student

from orchestrator.reports.ablation_table import AblationTable, build_tables
from orchestrator.reports.comparisons import Claims
from orchestrator.reports.factorial import FactorialReading
from orchestrator.reports.rendering.factorial_text import factorial_sentences
from orchestrator.reports.rendering.markdown_table import render_markdown
from orchestrator.reports.rendering.terminal_table import render_rich
from orchestrator.reports.rendering.verdict_text import sentences_of
from orchestrator.reports.result_files import render_json
from orchestrator.statistics import Verdict
from orchestrator.trials.records import TrialRecord

from .table_records import INFO, METRICS, make_records

SEEDS = (0.0, 1.0, 2.0, 0.5, 1.5, 0.8)
"""What all arms have of each seed."""
NOISE = (
    (0.1, -0.1, 0.0, 0.1, -0.1, 0.0),
    (-0.1, 0.1, 0.1, -0.1, 0.0, 0.0),
    (0.0, 0.1, -0.1, 0.0, -0.1, 0.1),
    (0.1, 0.0, 0.0, -0.1, 0.1, -0.1),
)


def arm(text: str, shift: float = 0.0, *, noise: int = 0, parameters: int = 1000) -> list[TrialRecord]:
    values = [seed + wiggle + shift for seed, wiggle in zip(SEEDS, NOISE[noise], strict=True)]
    records = make_records(text, *values, role="baseline" if text == "none" else "arm")
    return [replace(record, trial=replace(record.trial, num_parameters=parameters)) for record in records]


def arms(*texts: str, parameters: Mapping[str, int] | None = None) -> list[TrialRecord]:
    """Make a baseline and arms that differ by their noise alone, with parameters beyond the baseline's by text."""
    extra = parameters or {}
    return [
        record
        for place, text in enumerate(("none", *texts))
        for record in arm(text, float(place), noise=place % 4, parameters=1000 + extra.get(text, 0))
    ]


def table_of(records: Sequence[TrialRecord], claims: Claims | None = None) -> AblationTable:
    (table,) = build_tables(records, METRICS, claims).values()
    return table


def factors(records: Sequence[TrialRecord]) -> list[tuple[str, ...]]:
    return [reading.factors for reading in table_of(records).factorials]


TWO = [
    *arm("none"),
    *arm("norm@all", 2.0, noise=1),
    *arm("qkv@all", 0.5, noise=2),
    *arm("norm@all+qkv@all", 3.5, noise=3),
]
"""norm: (2.0 + 3.0) / 2 = 2.5; qkv: (0.5 + 1.5) / 2 = 1.0; interaction: 3.5 - 2.0 - 0.5 = 1.0. All noise averages 0."""


def only(table: AblationTable) -> FactorialReading:
    (reading,) = table.factorials
    return reading


def test_effects_are_those_of_arithmetic_with_intervals_over_all_of_them() -> None:
    reading = only(table_of(TWO))
    assert (reading.factors, reading.shared, reading.num_seeds) == (("norm@all", "qkv@all"), "", 6)
    assert reading.arms == ("none", "norm@all", "qkv@all", "norm@all+qkv@all")
    found = {effect.name: effect.metrics["miou"] for effect in reading.effects}
    assert list(found) == ["norm@all", "qkv@all", "norm@all x qkv@all"]
    assert [each.mean for each in found.values()] == pytest.approx([2.5, 1.0, 1.0])
    # In each seed an effect has a value of its own; its variance over the six is moderated, but no smaller than this.
    plain, norm, qkv, both = NOISE
    own = {
        "norm@all": [(n + b - p - q) / 2 for p, n, q, b in zip(plain, norm, qkv, both, strict=True)],
        "qkv@all": [(q + b - p - n) / 2 for p, n, q, b in zip(plain, norm, qkv, both, strict=True)],
        "norm@all x qkv@all": [b - n - q + p for p, n, q, b in zip(plain, norm, qkv, both, strict=True)],
    }
    # An interaction has four times the variance of a main effect, where all vary alike.
    scales = {name: 2.0 if " x " in name else 1.0 for name in own}
    variances = {name: stdev(values) ** 2 / scales[name] ** 2 for name, values in own.items()}
    assert max(variances.values()) < 4 * min(variances.values())  # as much as chance does: they are pooled
    for name, values in own.items():
        half = (found[name].high - found[name].low) / 2
        error = max(stdev(values), scales[name] * sqrt(sum(variances.values()) / 3)) / sqrt(6)
        # Of three independent effects Sidak's level, with half of 3 x 5 degrees of freedom.
        assert half == pytest.approx(error * student.ppf(1 - (1 - 0.95 ** (1 / 3)) / 2, 7.5), rel=1e-5)


def test_the_primary_metric_has_verdicts_on_effects_and_a_sentence_says_them() -> None:
    table = table_of(TWO, Claims(smallest_effects={"miou": 1.5}))
    verdicts = {effect.name: effect.metrics["miou"].verdict for effect in only(table).effects}
    assert verdicts == {
        "norm@all": Verdict.BETTER, "qkv@all": Verdict.EQUIVALENT, "norm@all x qkv@all": Verdict.EQUIVALENT,
    }
    assert {effect.metrics["knn_top1"].verdict for effect in only(table).effects} == {None}
    (sentence,) = factorial_sentences(table)
    assert sentence == (
        "Over all combinations of norm@all and qkv@all (4 arms, 6 seeds): norm@all raises mIoU by 2.5 [2.4, 2.6] over "
        "the other components; qkv@all changes mIoU by less than 1.5; norm@all and qkv@all add up in mIoU to within "
        "1.5."
    )
    assert sentences_of(table)[-1] == sentence
    (undeclared,) = factorial_sentences(table_of(TWO))
    assert undeclared.endswith(
        "norm@all and qkv@all together give 1.0 [0.7, 1.3] more mIoU than the sum of the two."
    )


def test_what_lowers_a_metric_and_what_is_undecided_are_said() -> None:
    records = [*arm("none"), *arm("norm@all", -2.0, noise=1), *arm("qkv@all", 0.0, noise=2)]
    (sentence,) = factorial_sentences(table_of([*records, *arm("norm@all+qkv@all", -2.0, noise=3)]))
    assert "norm@all lowers mIoU by 2.0 [1.9, 2.1] over the other components; " in sentence
    assert sentence.endswith("qkv@all and norm@all x qkv@all are undecided.")
    same = [*arm("none"), *arm("norm@all", noise=1), *arm("qkv@all", noise=2), *arm("norm@all+qkv@all", noise=3)]
    (sentence,) = factorial_sentences(table_of(same))
    assert sentence.endswith("(4 arms, 6 seeds): no effect on mIoU is found.")


def test_with_fewer_than_four_seeds_effects_have_intervals_and_no_sentence() -> None:
    table = table_of([record for record in TWO if record.trial.seed < 3])
    assert only(table).num_seeds == 3
    assert {effect.metrics["miou"].verdict for effect in only(table).effects} == {Verdict.UNDECIDED}
    assert factorial_sentences(table) == []


def test_a_range_has_its_own_factorial_and_three_components_are_one() -> None:
    parts = ("norm", "qkv", "mlp")
    texts = [
        "+".join(f"{part}@all" for part in chosen) for size in (1, 2, 3) for chosen in combinations(parts, size)
    ]
    third = ("norm@first-third", "qkv@first-third", "norm@first-third+qkv@first-third")
    assert factors(arms(*texts, *third)) == [("norm@all", "qkv@all", "mlp@all"), third[:2]]
    effects = table_of(arms(*texts)).factorials[0].effects
    assert [effect.is_interaction for effect in effects] == [False] * 3 + [True] * 3
    assert factors(arms("norm@all", "qkv@all", "mlp@all", "norm@all+qkv@all+mlp@all")) == []


def test_arms_count_only_with_others_of_their_mode_and_choices() -> None:
    texts = ("qkv@all", "mlp@all")
    assert factors(arms(*texts, "qkv(lora:8)@all+mlp(lora:8)@all")) == []
    assert factors(arms(*texts, "qkv(lora:8)@all+mlp@all")) == []
    assert factors(arms(*texts, "qkv@all+mlp@all (placebo)")) == []
    assert factors(arms(*texts, "jumbo", "qkv@all+mlp@all")) == [texts]
    lora = ("qkv(lora:8)@all", "mlp(lora:8)@all", "qkv(lora:8)@all+mlp(lora:8)@all")
    assert factors(arms(*lora)) == [lora[:2]]
    placebo = [f"{text} (placebo)" for text in (*texts, "qkv@all+mlp@all")]
    table = table_of(arms(*placebo))
    assert (only(table).factors, only(table).shared) == (texts, "placebo")
    assert "(4 arms, all placebo, 6 seeds)" in factorial_sentences(table)[0]
    # Full and gated arms of the same remarks are two families.
    gate = ("qkv(gate)@all", "mlp(gate)@all", "qkv(gate)@all+mlp(gate)@all")
    assert factors(arms(*texts, "qkv@all+mlp@all", *gate)) == [texts, gate[:2]]


def test_a_named_arm_is_the_places_that_it_stands_for() -> None:
    texts = ("norm@all", "qkv@first-third", "paper")
    extra = {"norm@all": 30, "qkv@first-third": 500, "paper": 530}
    assert factors(arms(*texts, parameters=extra)) == [texts[:2]]
    # With layer scales it owns these too, as its parameters tell: no arm is without them.
    assert factors(arms(*texts, parameters=extra | {"paper": 538})) == []
    scales = ("layerscale@all", "norm@all+layerscale@all", "norm@all+qkv@first-third", "layerscale@all+qkv@first-third")
    more = {"layerscale@all": 8, scales[1]: 38, scales[2]: 530, scales[3]: 508, "paper": 538}
    found = factors(arms(*texts, *scales, parameters=extra | more))
    assert [set(each) for each in found] == [{"norm@all", "qkv@first-third", "layerscale@all"}]


def test_parts_of_a_component_and_halves_of_the_blocks_are_components_too() -> None:
    assert factors(arms("norm1@all", "norm2@all", "norm@all")) == [("norm1@all", "norm2@all")]
    extra = {"norm@first-half": 15, "norm@last-half": 15, "norm@all": 30}
    assert factors(arms(*extra, parameters=extra)) == [("norm@first-half", "norm@last-half")]
    # Of an odd depth, the halves leave out the block in the middle.
    assert factors(arms(*extra, parameters=extra | {"norm@all": 35})) == []
    both = ("norm1@all", "norm2@all", "norm@all", "qkv@all", "norm@all+qkv@all")
    assert factors(arms(*both)) == [("norm@all", "qkv@all"), ("norm1@all", "norm2@all")]


def test_pruned_arms_and_those_that_change_nothing_are_in_none() -> None:
    pruned = make_records("norm@all+qkv@all", 9.0, *[None] * 5)
    assert factors([*TWO[:18], *pruned]) == []
    copies = make_records("norm@all+qkv@all", *(seed + wiggle for seed, wiggle in zip(SEEDS, NOISE[0], strict=True)))
    table = table_of([*TWO[:18], *copies])
    assert table.rows[3].is_no_op
    assert table.factorials == ()


def test_an_arm_that_is_still_to_run_keeps_its_factorial_waiting() -> None:
    assert factors(TWO[:18]) == []
    assert len(table_of(TWO[:20]).factorials) == 1  # two seeds of the fourth arm


def test_all_forms_of_a_table_show_the_effects() -> None:
    tables = build_tables(TWO, METRICS)
    file = StringIO()
    Console(file=file, width=100).print(render_rich(tables, INFO))
    text = file.getvalue()
    assert "Effects over the 4 combinations of norm@all and qkv@all\n" in text
    assert "Pruned arms and no-ops are in none." in " ".join(text.split())
    markdown = render_markdown(tables, INFO)
    cell = "+1.0 [+0.7, +1.3]"
    assert f"| `norm@all x qkv@all` | {cell} | {cell} | **{cell}**, better |" in markdown
    (made,) = json.loads(render_json(tables, INFO))["tables"]
    (reading,) = made["factorial"]
    assert reading["factors"] == ["norm@all", "qkv@all"]
    assert reading["effects"][0]["metrics"]["miou"]["mean"] == pytest.approx(2.5)
    assert reading["effects"][0]["metrics"]["miou"]["verdict"] == "better"
    (plain,) = json.loads(render_json(build_tables(TWO[:12], METRICS), INFO))["tables"]
    assert plain["factorial"] == []
