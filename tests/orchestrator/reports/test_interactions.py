"""What is found across groups, by arithmetic, and in every form in which it is shown."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence
from dataclasses import astuple, replace
from pathlib import Path

import pytest
import scipy.stats
from rich.console import Console

from orchestrator.reports.ablation_table import AblationTable, build_tables
from orchestrator.reports.comparisons import Claims
from orchestrator.reports.interactions import ArmAcross, Interactions, compare_groups
from orchestrator.reports.per_trial.sweep_data import SweepData
from orchestrator.reports.rendering.interaction_text import notes_across, sentences_across
from orchestrator.reports.rendering.markdown_table import render_markdown
from orchestrator.reports.rendering.terminal_table import render_rich
from orchestrator.reports.result_files import render_json, write_tables
from orchestrator.statistics import by_own_variances, combine_effects
from orchestrator.sweep.declared.comparison import ComparisonSettings
from orchestrator.trials.records import TrialRecord

from .table_records import INFO, METRICS, RECORDS, make_records

NANO, MICRO = "model.scale=nano", "model.scale=micro"
OF_NANO = {"none": (0.0, 1.0, 2.0, 3.0), "a": (1.0, 2.5, 3.5, 4.0), "b": (0.5, 1.5, 1.5, 3.5)}
OF_MICRO = {"none": (5.0, 5.0, 6.0, 8.0), "a": (9.0, 8.5, 10.5, 12.0), "b": (5.5, 4.5, 6.5, 8.0)}


def group(name: str, values: dict[str, tuple[float | None, ...]]) -> list[TrialRecord]:
    records = make_records("none", *values["none"], role="baseline", group=name)
    for arm in [arm for arm in values if arm != "none"]:
        records += make_records(arm, *values[arm], group=name, error="no")
    return records


def tables_of(*groups: Sequence[TrialRecord]) -> dict[str, AblationTable]:
    return build_tables([record for records in groups for record in records], METRICS)


def compare(*groups: Sequence[TrialRecord]) -> Interactions:
    found = compare_groups(tables_of(*groups))
    assert found is not None
    return found


def row(found: Interactions, arm: str) -> ArmAcross:
    (of_arm,) = (each for each in found.rows if each.arm == arm)
    return of_arm


TABLES = tables_of(group(NANO, OF_NANO), group(MICRO, OF_MICRO))


def test_one_arms_change_is_students_interval_of_its_doubly_paired_values() -> None:
    alone = [{arm: values for arm, values in of.items() if arm != "b"} for of in (OF_NANO, OF_MICRO)]
    found = compare(group(NANO, alone[0]), group(MICRO, alone[1]))
    # By seed: (9 - 5) - (1 - 0), (8.5 - 5) - 1.5, (10.5 - 6) - 1.5, (12 - 8) - 1
    expected = scipy.stats.ttest_1samp([3.0, 2.0, 3.0, 3.0], 0)
    change = row(found, "a").changes[MICRO]
    assert (found.metric, found.first, found.others) == ("miou", NANO, (MICRO,))
    assert (change.n, change.mean, change.is_found) == (4, pytest.approx(2.75), True)
    assert (change.low, change.high) == pytest.approx(tuple(expected.confidence_interval()))
    assert change.p_value == pytest.approx(expected.pvalue)


def test_arms_are_judged_across_groups_by_the_variance_that_the_sweep_declares() -> None:
    more = {"c": ((1.0, 2.1, 2.9, 4.2), (6.0, 9.5, 5.5, 12.5)), "d": ((0.1, 1.0, 2.1, 3.0), (5.0, 5.1, 6.2, 8.0))}
    values = [of | {arm: both[place] for arm, both in more.items()} for place, of in enumerate((OF_NANO, OF_MICRO))]
    records = [record for name, of in zip((NANO, MICRO), values, strict=True) for record in group(name, of)]
    claims = Claims(comparison=ComparisonSettings(variance="moderated"))
    found = compare_groups(build_tables(records, METRICS, claims))
    assert found is not None
    gaps = {arm: {s: values[1][arm][s] - values[0][arm][s] for s in range(4)} for arm in values[0]}
    expected = by_own_variances(gaps, baseline="none").contrasts
    for arm, contrast in expected.items():
        change = row(found, arm).changes[MICRO]
        assert (change.mean, change.low, change.high) == pytest.approx((contrast.estimate, contrast.low, contrast.high))
    effects = [by_own_variances({arm: dict(enumerate(of[arm])) for arm in of}, baseline="none") for of in values]
    pairs = [(each.contrasts["c"].estimate, each.contrasts["c"].standard_error) for each in effects]
    of_all, combined = row(found, "c").combined, combine_effects(*map(list, zip(*pairs, strict=True)))
    assert of_all is not None
    assert combined is not None
    assert astuple(of_all) == pytest.approx(astuple(combined))


def test_the_baselines_are_compared_seed_by_seed() -> None:
    change = row(compare(group(NANO, OF_NANO), group(MICRO, OF_MICRO)), "none").changes[MICRO]
    expected = scipy.stats.ttest_1samp([5.0, 4.0, 4.0, 5.0], 0).confidence_interval()
    assert (change.n, change.mean) == (4, 4.5)
    assert (change.low, change.high) == pytest.approx(tuple(expected))


def test_baselines_without_common_seeds_have_welchs_interval() -> None:
    later = group(MICRO, {"none": (None,) * 4 + OF_MICRO["none"], "a": (None,) * 4 + OF_MICRO["a"]})
    later = [record for record in later if record.metrics]
    change = row(compare(group(NANO, OF_NANO), later), "none").changes[MICRO]
    expected = scipy.stats.ttest_ind(OF_MICRO["none"], OF_NANO["none"], equal_var=False).confidence_interval()
    assert (change.low, change.high) == pytest.approx(tuple(expected))


def test_an_effect_over_two_groups_is_combined_by_their_standard_errors() -> None:
    found = compare(group(NANO, OF_NANO), group(MICRO, OF_MICRO))
    effects = []
    for values in (OF_NANO, OF_MICRO):
        gaps = {arm: [x - y for x, y in zip(values[arm], values["none"], strict=True)] for arm in "ab"}
        effects.append(sum(gaps["a"]) / 4)
    combined = row(found, "a").combined
    assert effects == [1.25, 4.0]
    assert combined is not None
    assert 1.25 < combined.estimate < 4.0
    # Two groups, one degree of freedom: t = 12.706.
    assert combined.high - combined.estimate == pytest.approx(12.7062 * combined.standard_error, rel=1e-4)
    assert (combined.num_groups, combined.tau > 1) == (2, True)


def test_intervals_of_several_groups_hold_together() -> None:
    third = "model.scale=mini"
    two = row(compare(group(NANO, OF_NANO), group(MICRO, OF_MICRO)), "a").changes[MICRO]
    three = row(compare(group(NANO, OF_NANO), group(MICRO, OF_MICRO), group(third, OF_NANO)), "a").changes
    assert list(three) == [MICRO, third]
    assert (three[MICRO].mean, three[third].mean) == (two.mean, 0.0)
    assert three[MICRO].low is not None
    assert two.low is not None
    assert three[MICRO].low < two.low
    assert three[MICRO].p_value == pytest.approx(2 * (two.p_value or math.nan))


def test_arms_are_the_same_by_their_text_and_one_that_the_first_group_lacks_is_combined_alone() -> None:
    third = "model.scale=mini"
    others = {"none": OF_MICRO["none"], "c": OF_MICRO["a"]}
    found = compare(group(NANO, OF_NANO), group(MICRO, others), group(third, {**OF_MICRO, "c": OF_MICRO["b"]}))
    assert {each.arm for each in found.rows} == {"none", "a", "b", "c"}
    assert row(found, "c").changes == {}
    assert row(found, "c").combined is not None
    assert list(row(found, "a").changes) == [third]


def test_one_failed_trial_does_not_make_groups_independent() -> None:
    first = {arm: values for arm, values in OF_NANO.items() if arm != "b"}
    change = row(compare(group(NANO, first), group(MICRO, {"none": (5.0, 5.0, 6.0, None), "a": OF_MICRO["a"]})), "a")
    assert (change.changes[MICRO].n, change.changes[MICRO].is_found) == (3, False)  # a verdict takes four
    assert change.changes[MICRO].mean == pytest.approx(8 / 3)  # of 3, 2 and 3; of independent groups 4 - 1.25


def test_sentences_say_which_arms_depend_and_what_could_not_have_been_seen() -> None:
    found, unseen = sentences_across(compare(group(NANO, OF_NANO), group(MICRO, OF_MICRO)))
    ask = "Does the effect on mIoU depend on model.scale?"
    assert found.startswith(f"{ask} It does, against model.scale=nano, with a in model.scale=micro: +2.8 [")
    assert found.endswith(" (2 arms, 4 seeds).")
    assert unseen.startswith("Other differences of differences under ")
    same = {**OF_MICRO, "a": (6.0, 6.7, 7.5, 9.0)}
    (nothing,) = sentences_across(compare(group(NANO, OF_NANO), group(MICRO, same)))
    assert nothing.startswith(f"{ask} No difference of differences is found (2 arms, 4 seeds): those under ")
    few = [{arm: values[:3] for arm, values in of.items()} for of in (OF_NANO, OF_MICRO)]
    (missing,) = sentences_across(compare(group(NANO, few[0]), group(MICRO, few[1])))
    assert missing.startswith(f"{ask} No verdict: it takes 4 seeds that an arm and its baseline have in both groups")
    assert missing.endswith("; there are at most 3.")


def test_groups_that_vary_by_two_axes_are_named_by_both() -> None:
    one, other = (f"model.scale=nano, objective.recipe={recipe}" for recipe in ("mae", "dinov2"))
    (first, *_) = sentences_across(compare(group(one, OF_NANO), group(other, OF_MICRO)))
    assert first.startswith("Does the effect on mIoU depend on model.scale and objective.recipe? It does, against")


def test_where_seeds_grew_a_note_says_that_the_looks_are_not_accounted_for() -> None:
    found = compare(group(NANO, OF_NANO), group(MICRO, OF_MICRO))
    assert not any("Seeds grew" in note for note in notes_across(found))
    assert any("Seeds grew" in note for note in notes_across(replace(found, is_grown=True)))


def test_a_single_group_or_one_with_values_alone_is_not_compared() -> None:
    assert compare_groups(build_tables(RECORDS, METRICS)) is None
    assert compare_groups(tables_of(group(NANO, OF_NANO), group(MICRO, {"none": (None,), "a": (1.0,)}))) is None
    assert "interactions" not in json.loads(render_json(build_tables(RECORDS, METRICS), INFO))


def test_markdown_terminal_and_json_show_it_below_the_tables() -> None:
    markdown = render_markdown(TABLES, INFO)
    section = markdown[markdown.index("## Across groups: mIoU against model.scale=nano") :]
    assert "| arm | model.scale=micro | over all groups | tau |" in section
    assert "| `none` (baseline) | **+4.5 [+3.6, +5.4]** |  |  |" in section
    assert "| `a` | **+2.8 [" in section
    assert section.count("\n- ") == 3
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(render_rich(TABLES, INFO))
    text = console.export_text()
    assert text.index("Across groups: mIoU against model.scale=nano") > text.index(MICRO)
    assert "Does the effect on mIoU depend on model.scale? It does" in text
    made = json.loads(render_json(TABLES, INFO))["interactions"]
    assert (made["metric"], made["against"], len(made["says"])) == ("miou", NANO, 2)
    assert made["could_have_seen"][MICRO] > 0
    (of_a,) = (each for each in made["rows"] if each["arm"] == "a")
    assert (of_a["groups"][MICRO]["mean"], of_a["over_all_groups"]["num_groups"]) == (pytest.approx(2.75), 2)


def test_a_file_of_its_own_is_written_where_there_are_groups(tmp_path: Path) -> None:
    records = [*group(NANO, OF_NANO), *group(MICRO, OF_MICRO)]
    paths = write_tables(tmp_path, SweepData(INFO, tuple(records)))
    assert [path.name for path in paths] == ["table.md", "table.csv", "interactions.csv"]
    lines = {line["arm"]: line for line in csv.DictReader(paths[2].open())}
    assert set(lines) == {"none", "a", "b"}
    assert (lines["a"]["group"], lines["a"]["against"], lines["a"]["metric"]) == (MICRO, NANO, "miou")
    assert (float(lines["a"]["diff"]), lines["a"]["diff_n"], lines["a"]["is_found"]) == (2.75, "4", "True")
    assert (lines["a"]["all_num_groups"], lines["none"]["all_num_groups"]) == ("2", "")
    write_tables(tmp_path, SweepData(INFO, tuple(RECORDS)))
    assert not paths[2].exists()
