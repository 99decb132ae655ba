"""Controls in a table: beside the arms, judged as they are, and part of nothing."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence

import numpy as np
import pytest

from orchestrator.reports.ablation_table import AblationTable, build_tables
from orchestrator.reports.comparisons import Claims, Difference
from orchestrator.reports.growth import stage_of
from orchestrator.reports.interactions import compare_groups
from orchestrator.reports.per_trial.trials_csv import read_trials, render_trials
from orchestrator.reports.rendering.cell_text import notes_of
from orchestrator.reports.rendering.html_table import render_html_page
from orchestrator.reports.rendering.latex_table import render_latex
from orchestrator.reports.rendering.markdown_table import render_markdown
from orchestrator.reports.rendering.verdict_text import sentences_of
from orchestrator.reports.result_files import render_csv, render_json
from orchestrator.statistics import Verdict, compare_arms, decide, design_looks
from orchestrator.sweep.declared.growing_seeds import GrowingSeeds
from orchestrator.trials.records import State, TrialRecord
from orchestrator.trials.trial import REPEAT, Role

from .table_records import INFO, METRICS, make_records

NOISE = (0.0, 1.0, 2.0, 0.5, 1.5, 0.8)
"""What all arms have of each seed."""
A = (2.1, 2.9, 4.0, 2.6, 3.4, 2.8)
B = (-0.1, 1.1, 2.1, 0.4, 1.5, 0.8)
PLACEBO = "placebo of a"


def control(name: str, shift: float, wiggle: float = 0.0, *, seeds: int = 6) -> list[TrialRecord]:
    """Make a control at some distance of the baseline, which it goes up and down by seed."""
    values = [noise + shift + wiggle * (-1) ** seed for seed, noise in enumerate(NOISE)]
    return make_records(name, *values[:seeds], role="control")


def arms(seeds: int = 6) -> list[TrialRecord]:
    baseline = make_records("none", *NOISE[:seeds], role="baseline")
    floor = make_records("random init", *([-9.0] * seeds), role="floor")
    return [*baseline, *floor, *make_records("a", *A[:seeds]), *make_records("b", *B[:seeds])]


def table_of(records: Sequence[TrialRecord], claims: Claims | None = None) -> AblationTable:
    (table,) = build_tables(records, METRICS, claims).values()
    return table


def difference(table: AblationTable, arm: str, metric: str = "miou") -> Difference:
    (row,) = (row for row in table.rows if row.arm == arm)
    found = row.metrics[metric].difference
    assert found is not None
    return found


def test_controls_stand_below_the_arms_and_change_none_of_their_numbers() -> None:
    plain, table = table_of(arms()), table_of([*control(REPEAT, 0.0, 1e-4), *arms(), *control(PLACEBO, 5.0)])
    assert [(row.arm, row.role) for row in table.rows] == [
        ("none", Role.BASELINE), ("a", Role.ARM), ("b", Role.ARM), (REPEAT, Role.CONTROL), (PLACEBO, Role.CONTROL),
        ("random init", Role.FLOOR),
    ]
    assert [row.metrics for row in table.rows if row.role is Role.ARM] == [row.metrics for row in plain.rows[1:3]]
    assert table.comparisons["miou"].family == plain.comparisons["miou"].family
    assert table.compared == plain.compared


def test_a_control_is_judged_by_the_arms_variance_and_critical_value() -> None:
    table = table_of([*arms(), *control(REPEAT, 0.1, 1e-3)])
    found, of_arms = difference(table, REPEAT), table.comparisons["miou"]
    assert of_arms.sd is not None
    assert of_arms.family.critical is not None
    half = of_arms.family.critical * of_arms.sd * math.sqrt(2 / 6)
    assert found.mean == pytest.approx(0.1)
    assert (found.low, found.high) == pytest.approx((0.1 - half, 0.1 + half))
    arm = difference(table, "b")
    assert arm.low is not None
    assert arm.high is not None
    assert found.high - found.low == pytest.approx(arm.high - arm.low)  # type: ignore[operator]
    assert (found.verdict, found.q_value, found.more_seeds) == (Verdict.UNDECIDED, None, None)
    exploratory = difference(table, REPEAT, "knn_top1")
    assert (exploratory.verdict, exploratory.q_value) == (None, None)


def test_a_sentence_says_that_controls_do_as_they_must() -> None:
    both = table_of([*arms(), *control(REPEAT, 0.0, 1e-3), *control(PLACEBO, 0.05)])
    assert sentences_of(both)[-1] == f"The controls do as they must: {REPEAT} and {PLACEBO} are undecided."
    one = table_of([*arms(), *control(REPEAT, 0.0, 1e-3)])
    assert sentences_of(one)[-1] == "The control does as it must: repeat is undecided."
    equivalent = table_of([*arms(), *control(REPEAT, 0.0, 1e-3)], Claims(smallest_effects={"miou": 1.0}))
    assert sentences_of(equivalent)[-1] == "The control does as it must: repeat is equivalent."


def test_a_control_that_differs_is_a_warning() -> None:
    table = table_of([*arms(), *control(REPEAT, 1.9), *control(PLACEBO, 0.0)])
    calm, warning = sentences_of(table)[-2:]
    assert calm == f"The control does as it must: {PLACEBO} is undecided."
    assert warning.startswith("Control repeat is found to differ from the baseline in mIoU by +1.9 [+1.")
    assert warning.endswith("]: distrust this table's intervals.")
    placebo = sentences_of(table_of([*arms(), *control(PLACEBO, -1.9)]))[-1]
    assert placebo.startswith(f"Control {PLACEBO} is found to differ from the baseline in mIoU by -1.9 [-2.")
    assert "own weights of any token may do what those of [CLS] do" in placebo


def test_with_few_seeds_nothing_is_said_of_controls() -> None:
    assert not any("ontrol" in text for text in sentences_of(table_of([*arms(3), *control(REPEAT, 9.0, seeds=3)])))
    waiting = table_of([*arms(), *control(REPEAT, 9.0, seeds=2)])
    assert sentences_of(waiting)[-1] == "No verdict yet on the control repeat."


def test_the_repeat_tells_what_rounding_is_worth() -> None:
    wiggle = 0.5
    table = table_of([*arms(), *control(REPEAT, 0.0, wiggle)])
    sd = float(np.std([wiggle * (-1) ** seed for seed in range(6)], ddof=1))
    assert table.rounding == {name: pytest.approx(sd) for name in METRICS}
    (note,) = (note for note in notes_of(table, place="below it") if "rounding" in note)
    of_arms = table.comparisons["miou"].sd
    assert of_arms is not None
    assert f"mIoU {sd:.2g} (arms: {math.sqrt(2) * of_arms:.2g})" in note
    assert not any("control" in note for note in notes_of(table_of(arms()), place="below it"))


def test_markdown_csv_and_json_have_rows_of_controls() -> None:
    tables = build_tables([*arms(), *control(REPEAT, 0.0, 1e-3)], METRICS)
    assert "| `repeat` (control) | 51.0 ± 0.7 | +0.0 [-0." in render_markdown(tables, INFO)
    rows = {row["arm"]: row for row in csv.DictReader(io.StringIO(render_csv(tables, INFO)))}
    shown = [rows[REPEAT][column] for column in ("role", "miou_verdict", "miou_diff_q")]
    assert shown == ["control", "undecided", ""]
    (made,) = json.loads(render_json(tables, INFO))["tables"]
    assert made["says"][-1] == "The control does as it must: repeat is undecided."
    assert [row["role"] for row in made["rows"]] == ["baseline", "arm", "arm", "control", "floor"]


def test_latex_and_html_have_them_in_a_section_of_their_own_and_say_what_they_are() -> None:
    tables = build_tables([*arms(), *control(REPEAT, 0.0, 1e-3)], METRICS)
    lines = render_latex(tables, INFO).splitlines()
    (place,) = (number for number, line in enumerate(lines) if r"\texttt{repeat} (control)" in line)
    assert {lines[place - 1].strip(), lines[place + 1].strip()} == {r"\midrule"}
    html = render_html_page(tables, INFO)
    assert '<tr class="role-control verdict-undecided">' in html
    assert all("Rows marked (control) should not differ" in text for text in (" ".join(lines), html))


def test_a_run_leaves_their_trials_beside_the_table() -> None:
    records = [*arms(), *control(REPEAT, 0.0, 1e-3)]
    text = render_trials(records, METRICS)
    assert read_trials(text.encode(), "trials.csv")[0][-1].trial.role is Role.CONTROL


def test_controls_take_no_part_across_groups() -> None:
    other = [
        record
        for name, values, role in (("none", NOISE, "baseline"), ("a", A, "arm"), (REPEAT, NOISE, "control"))
        for record in make_records(name, *values, role=role, group="g")
    ]
    found = compare_groups(build_tables([*arms(), *control(REPEAT, 0.0), *other], METRICS))
    assert found is not None
    assert [row.arm for row in found.rows] == ["none", "a"]


def test_without_an_arm_a_control_has_a_difference_alone() -> None:
    found = difference(table_of([*make_records("none", *NOISE, role="baseline"), *control(REPEAT, 0.5)]), REPEAT)
    assert (found.n, found.mean, found.low, found.verdict) == (6, pytest.approx(0.5), None, None)


GROWTH = GrowingSeeds(start=4, most=6, looks=(4, 6))


def test_where_seeds_grow_a_control_is_judged_at_the_look_that_is_reached() -> None:
    records = [record for record in [*arms(), *control(REPEAT, 0.0, 0.1)] if record.trial.seed < 4]
    todo = [
        TrialRecord(record.trial, State.WAITING)
        for record in [*arms(), *control(REPEAT, 0.0, 0.1)]
        if record.trial.seed >= 4
    ]
    claims = Claims(primary="miou", growth=GROWTH)
    table = table_of([*records, *todo], claims)
    values = {
        row: {seed: 30 + value for seed, value in enumerate(of_row[:4])}
        for row, of_row in (("none", NOISE), ("a", A), ("b", B))
    }
    design, fixed = design_looks((4, 6), 2), compare_arms(values, baseline="none")
    decided = decide(design, 4, values, baseline="none")["b"]
    found = difference(table, REPEAT)
    assert decided.low is not None
    assert decided.high is not None
    assert found.low is not None
    assert found.high is not None
    assert fixed.family.critical is not None
    assert found.high - found.low == pytest.approx(decided.high - decided.low)
    assert found.high - found.low > 2 * fixed.family.critical * (fixed.sd or 0) * math.sqrt(2 / 4)
    assert (found.n, found.p_value, found.verdict) == (4, None, Verdict.UNDECIDED)
    # Before the look: the arms' fourth seeds are missing.
    awaited = [
        TrialRecord(record.trial, State.WAITING) if record.trial.seed == 3 and record.trial.role is Role.ARM else record
        for record in records
    ]
    before = difference(table_of([*awaited, *todo], claims), REPEAT)
    assert (before.low, before.verdict) == (None, Verdict.UNDECIDED)


def test_controls_run_with_the_seeds_of_the_baseline_also_when_all_arms_are_decided() -> None:
    """Arm ``a`` is decided at the first look; no arm is open, and the control still has a seed of it to run."""
    everything = [*make_records("none", *NOISE, role="baseline"), *make_records("a", *A), *control(REPEAT, 0.0)]
    records = [
        TrialRecord(record.trial, State.WAITING)
        if record.trial.seed >= 4 or (record.trial.role is Role.CONTROL and record.trial.seed == 3)
        else record
        for record in everything
    ]
    stage = stage_of(records, GROWTH, "miou", None)
    waiting = {record.trial.trial_id for record in records if record.state is State.WAITING}
    assert stage.now & waiting == {f" {REPEAT} 3"}
    assert stage.not_needed & waiting == waiting - stage.now
    undecided = [record for record in records if record.trial.arm != "a"] + [
        record if record.trial.seed < 4 else TrialRecord(record.trial, State.WAITING)
        for record in make_records("a", 0.9, 2.2, 2.2, 2.4, 0.0, 0.0)
    ]
    now = stage_of(undecided, GROWTH, "miou", None).now
    assert {f" {REPEAT} {seed}" for seed in range(6)} <= now
