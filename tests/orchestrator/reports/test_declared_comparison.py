"""Tables of sweeps that declare another model, or another variance."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
import scipy.stats

from orchestrator.ledger.registration import SweepInfo
from orchestrator.reports.ablation_table import AblationTable, build_tables, tables_of
from orchestrator.reports.comparisons import Claims, Difference
from orchestrator.reports.rendering.caption_text import caption_of
from orchestrator.reports.rendering.cell_text import notes_of
from orchestrator.reports.result_files import render_json
from orchestrator.statistics import by_own_variances
from orchestrator.sweep.declared.comparison import ComparisonSettings
from orchestrator.trials.records import TrialRecord
from specvit.errors import SpecsweepError

from .table_records import INFO, METRICS, make_records

RNG = np.random.default_rng(20)
VALUES = {
    "none": RNG.normal(0.0, 1.0, 9).tolist(),  # more seeds than the arms have
    "a": RNG.normal(1.5, 1.0, 5).tolist(),
    "b": RNG.normal(0.2, 1.0, 5).tolist(),
    "c": RNG.normal(-0.5, 1.0, 5).tolist(),
}
ROLES = {"none": "baseline", "repeat": "control"}
UNBLOCKED = ComparisonSettings(model="unblocked")
MODERATED = ComparisonSettings(variance="moderated")


def records(values: dict[str, list[float]]) -> list[TrialRecord]:
    return [each for arm, own in values.items() for each in make_records(arm, *own, role=ROLES.get(arm, "arm"))]


def table_of(comparison: ComparisonSettings, values: dict[str, list[float]]) -> AblationTable:
    (table,) = build_tables(records(values), METRICS, Claims(comparison=comparison)).values()
    return table


def found(table: AblationTable) -> dict[str, Difference]:
    return {row.arm: row.metrics["miou"].difference for row in table.rows if row.metrics["miou"].difference}


def test_unblocked_differences_are_scipys_dunnett_with_all_seeds_of_the_baseline() -> None:
    expected = scipy.stats.dunnett(
        *(VALUES[arm] for arm in "abc"), control=VALUES["none"], random_state=np.random.default_rng(1)
    )
    interval = expected.confidence_interval()
    differences = found(table_of(UNBLOCKED, VALUES))
    for place, arm in enumerate("abc"):
        own = differences[arm]
        assert own.mean == pytest.approx(np.mean(VALUES[arm]) - np.mean(VALUES["none"]))
        assert (own.low, own.high) == pytest.approx((interval.low[place], interval.high[place]), abs=0.02)
        assert own.p_value == pytest.approx(expected.pvalue[place], abs=2e-3)
        assert own.n == 5
    blocked = found(table_of(ComparisonSettings(), VALUES))
    few = found(table_of(ComparisonSettings(), VALUES | {"none": VALUES["none"][:5]}))
    assert blocked["a"].low == pytest.approx(few["a"].low)  # with blocks the baseline's own seeds add nothing


def test_moderated_intervals_are_those_of_each_arms_own_variance() -> None:
    values = {arm: of_arm[:5] for arm, of_arm in VALUES.items()}
    by_seed = {arm: {seed: 30 + value for seed, value in enumerate(of_arm)} for arm, of_arm in values.items()}
    expected = by_own_variances(by_seed, baseline="none")
    differences = found(table_of(MODERATED, values))
    for arm in "abc":
        contrast = expected.contrasts[arm]
        own = differences[arm]
        assert (own.low, own.high, own.p_value) == pytest.approx((contrast.low, contrast.high, contrast.p_value))


def test_controls_are_judged_by_what_is_declared() -> None:
    repeat = [value + 0.25 for value in VALUES["none"][:5]]
    unblocked = table_of(UNBLOCKED, VALUES | {"repeat": repeat})
    own, sd = found(unblocked)["repeat"], unblocked.comparisons["miou"].sd
    critical = unblocked.comparisons["miou"].family.critical
    assert sd is not None
    assert critical is not None
    assert own.mean == pytest.approx(np.mean(repeat) - np.mean(VALUES["none"]))
    assert own.high - own.low == pytest.approx(2 * critical * sd * math.sqrt(1 / 5 + 1 / 9))  # type: ignore[operator]
    assert own.n == 5
    values = {arm: of_arm[:5] for arm, of_arm in VALUES.items()}
    moderated = table_of(MODERATED, values | {"repeat": repeat})
    own, arms = found(moderated)["repeat"], [found(moderated)[arm] for arm in "abc"]
    half = [(each.high - each.low) / 2 for each in arms]  # type: ignore[operator]
    # As wide as the arms' on average, by the largest of their critical values.
    assert own.mean == pytest.approx(0.25)
    assert min(half) < (own.high - own.low) / 2 <= max(half)  # type: ignore[operator]


def test_the_table_says_how_it_compares_and_json_too() -> None:
    (note, *_) = notes_of(table_of(UNBLOCKED, VALUES), place="below it")
    assert "means of all seeds, which are not paired, one residual variance; Dunnett" in note
    (note, *_) = notes_of(table_of(MODERATED, VALUES), place="below it")
    assert "each arm's own variance, moderated after Smyth" in note
    tables = build_tables(records(VALUES), METRICS, Claims(comparison=UNBLOCKED))
    assert json.loads(render_json(tables, INFO))["tables"][0]["comparison"] == {
        "model": "unblocked", "variance": "pooled"
    }
    assert "comparison" not in json.loads(render_json(build_tables(records(VALUES), METRICS), INFO))["tables"][0]


def test_captions_say_it_too() -> None:
    assert "(Dunnett; means of all seeds, not paired, " in " ".join(caption_of(table_of(UNBLOCKED, VALUES)))
    assert "(Dunnett; paired by seed, each arm's own variance" in " ".join(caption_of(table_of(MODERATED, VALUES)))


def test_a_table_of_a_ledger_compares_as_the_ledger_says() -> None:
    info = SweepInfo("x", "", "", METRICS, (0, 1), comparison={"model": "unblocked", "variance": "pooled"})
    (table,) = tables_of(records(VALUES), info).values()
    assert table.declared == UNBLOCKED
    assert found(table) == found(table_of(UNBLOCKED, VALUES))


@pytest.mark.parametrize("forged", [{"growth": {"begin": 4}}, {"comparison": {"model": "random"}}])
def test_a_ledger_that_says_what_no_file_can_say_is_refused_in_one_line(forged: dict[str, Any]) -> None:
    with pytest.raises(SpecsweepError, match=r"^x: what is recorded of .* can say: (begin|model): [^\n]+$"):
        Claims.of(SweepInfo("x", "", "", METRICS, (0, 1), **forged))


def test_where_arms_vary_unlike_the_note_names_what_a_sweep_may_declare() -> None:
    wild = {arm: np.random.default_rng(seed).normal(0, 1, 12).tolist() for seed, arm in enumerate(("none", "a", "b"))}
    wild["c"] = np.random.default_rng(9).normal(0, 30, 12).tolist()
    notes = notes_of(table_of(ComparisonSettings(), wild), place="below it")
    (note,) = (note for note in notes if note.startswith("Arms vary unlike each other"))
    assert note.endswith("; a sweep that declares comparison: {variance: moderated} allows for it.")
    (note,) = (note for note in notes_of(table_of(MODERATED, wild), place="") if note.startswith("Arms vary unlike"))
    assert "declares" not in note
