"""A short part of the simulation that judges the statistics, and that its own formulas are those of the code."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from orchestrator.reports.ablation_table import tables_of
from orchestrator.reports.per_trial.sweep_data import SweepData
from orchestrator.statistics.comparison import compare_arms
from orchestrator.statistics.confirmation import confirm, screen
from orchestrator.statistics.decisions import Action, decide, follow
from orchestrator.statistics.design import Design
from orchestrator.statistics.looks import design_looks
from orchestrator.statistics.simultaneous import beside_family
from orchestrator.statistics.variances import by_own_variances

from .statistics_simulation import program
from .statistics_simulation.fixed import _own_variances, as_values, least_squares, simulate_fixed
from .statistics_simulation.growing import LOOKS, _screened, at_looks, simulate_confirmation, simulate_looks_of
from .statistics_simulation.report import above, misses
from .statistics_simulation.resampled import resample
from .statistics_simulation.settings import Setting

NUM_SWEEPS = 1000


def within(rate: float, expected: float) -> bool:
    return abs(rate - expected) <= 4 * math.sqrt(expected * (1 - expected) / NUM_SWEEPS)


@pytest.mark.parametrize("kind", ["seeds .6", "missing", "t5"])
def test_intervals_cover_and_the_formulas_are_those_of_the_comparison(kind: str) -> None:
    found = simulate_fixed(Setting(5, 4, kind), NUM_SWEEPS, seed=1)
    assert within(found.coverage, 0.95)
    assert found.wrong <= 0.05 + 4 * math.sqrt(0.05 * 0.95 / NUM_SWEEPS)
    assert found.wrong_equivalent <= 0.05
    assert found.largest_deviation < 1e-9
    assert kind == "missing" or within(found.power, 0.8)


def test_unblocked_intervals_with_seeds_of_the_baseline_alone_cover_and_controls_beside_them_are_rarely_found() -> None:
    """Ten arms of 4 seeds, a baseline of 13 (about sqrt(10) times as many), and a control of 4 that does nothing."""
    num_arms, num_seeds, num_base = 10, 4, 13
    rng = np.random.default_rng(7)
    cells = np.ones((num_arms + 1, num_base), dtype=bool)
    cells[1:, num_seeds:] = False
    values = rng.standard_normal((NUM_SWEEPS, num_arms + 1, num_base))
    control = rng.standard_normal((NUM_SWEEPS, num_seeds))
    means = np.concatenate([values[:, :1].mean(axis=2), values[:, 1:, :num_seeds].mean(axis=2)], axis=1)
    squares = ((values - means[:, :, None]) ** 2 * cells).sum(axis=(1, 2))
    design = Design(num_arms, num_seeds, 1.0, blocks=False, num_baseline_seeds=num_base)
    reach = design.critical * np.sqrt(squares / design.df * (1 / num_seeds + 1 / num_base))
    found = np.abs(means[:, 1:] - means[:, :1]) > reach[:, None]
    assert within(1 - float(found.any(axis=1).mean()), 0.95)
    # Beside ten arms a control is found with the probability with which one given arm is: below 1%.
    alarms = np.abs(control.mean(axis=1) - means[:, 0]) > reach
    assert float(alarms.mean()) < 0.01 + 4 * math.sqrt(0.01 * 0.99 / NUM_SWEEPS)
    for sweep in range(4):
        table = as_values(values[sweep], cells)
        compared = compare_arms(table, baseline="0", blocks=False)
        ends = [(result.low, result.high) for result in compared.arms.values()]
        expected = means[sweep, 1:] - means[sweep, 0]
        assert ends == [pytest.approx((each - reach[sweep], each + reach[sweep]), abs=1e-3) for each in expected]
        beside = beside_family(
            dict(enumerate(control[sweep].tolist())), table["0"], model=compared.model, family=compared.family
        )
        assert beside is not None
        assert (beside.high - beside.low) / 2 == pytest.approx(reach[sweep], abs=1e-3)


def test_own_variances_of_many_sweeps_are_those_of_one() -> None:
    setting = Setting(6, 5, "unequal")
    values = setting.draw(3, np.random.default_rng(2))
    cells = np.ones(values.shape[1:], dtype=bool)
    families = [by_own_variances(as_values(table, cells), baseline="0") for table in values]
    reach = np.mean([(c.high - c.low) / 2 for family in families for c in family.contrasts.values()])
    assert _own_variances(values, 1.0)["moderated_width"] == pytest.approx(reach, rel=2e-3)


def test_looks_of_many_sweeps_are_those_of_one() -> None:
    setting, design = Setting(5, LOOKS[-1], "equal"), design_looks(LOOKS, 5)
    values = setting.draw(4, np.random.default_rng(3))
    values[:, 2] += 1.5
    estimates, variances = at_looks(values)
    ends, stops = follow(design, estimates, variances, smallest_effect=1.0)
    cells = np.zeros(values.shape[1:], dtype=bool)
    for place, look in enumerate(LOOKS):
        cells[:, :look] = True
        for sweep, table in enumerate(values):
            decisions = decide(design, look, as_values(table, cells), baseline="0", smallest_effect=1.0)
            for arm, decision in enumerate(decisions.values()):
                assert decision.estimate == pytest.approx(estimates[place, sweep, arm])
                if stops[sweep, arm] == look:
                    assert list(Action)[ends[sweep, arm]] is decision.action


def test_looks_and_confirmation_keep_the_error() -> None:
    found = simulate_looks_of(Setting(5, 16, "seeds .6"), "even", NUM_SWEEPS, 5, seed=4)
    most = 0.05 + 4 * math.sqrt(0.05 * 0.95 / NUM_SWEEPS)
    assert found.wrong <= most
    assert found.wrong_equivalent <= 0.05
    assert found.trials < 0.6
    assert simulate_confirmation(Setting(5, 6, "equal"), 6, NUM_SWEEPS, seed=5)[0] <= most


def test_the_screen_of_many_sweeps_is_that_of_one() -> None:
    values = Setting(8, 4, "equal").draw(5, np.random.default_rng(6))
    cells = np.ones(values.shape[1:], dtype=bool)
    for table, chosen in zip(values, _screened(values), strict=True):
        passed = screen(as_values(table, cells), baseline="0")
        assert {int(arm) - 1 for arm in passed} == set(np.flatnonzero(chosen).tolist())
        again = confirm(as_values(table, cells), baseline="0", arms=passed, screened_seeds=[])
        estimates = least_squares(table[None, [0, *sorted(map(int, passed))]], cells[: len(passed) + 1])[0]
        assert sorted(r.estimate for r in again.arms.values()) == pytest.approx(sorted(estimates[0]))


def test_a_report_names_what_misses() -> None:
    row = {"kind": "equal", "arms": 5, "seeds": 4, "coverage": 0.93, "wrong": 0.07, "wrong_equivalent": 0.01}
    assert misses([row], [], []) == [
        "equal, 5 arms, 4 seeds: coverage 93.0",
        "equal, 5 arms, 4 seeds: an arm is wrongly better or worse in 7.0",
    ]
    assert misses([{**row, "kind": "one x3"}], [], []) == []
    assert above([{**row, "kind": "t5"}], [row]) == [
        "Of 1 settings of unequal variances or heavy tails, 1 call an arm better or worse wrongly in more than 5.5: "
        "in 7.0 at most.",
        "",
    ]
    growing = [{**row, "spending": "pocock"}]
    assert misses([], growing, []) == ["looks, equal, 5 arms, pocock: an arm is wrongly better or worse in 7.0"]


@pytest.mark.long
def test_the_whole_program_finds_what_is_there_and_writes_what_it_found(tmp_path: Path) -> None:
    assert program.main(["--sweeps", "2", "--results", str(tmp_path)]) == 0
    rows = [line.split("|")[1:-1] for line in (tmp_path / "program.md").read_text().splitlines() if line[:2] == "| "]
    assert [row[0].strip() for row in rows[2:]] == list(program.CASES)
    # Of two sweeps each: with an SD of 1 no arm without an effect is called better or worse in most.
    assert [row[1].strip() in ("0.0%", "50.0%") for row in rows[2:]] == [True, True]
    assert float(rows[3][2].strip().rstrip("%")) >= 50.0
    assert all(4 * 11 <= float(row[3]) <= 16 * 11 for row in rows[2:])


def test_sweeps_of_all_seeds_of_a_study_without_replacement_are_the_study() -> None:
    data = SweepData.of_folder(Path(__file__).parents[1] / "results" / "studies" / "components")
    (table,) = tables_of(data.records, data.info).values()
    found = {(row.kind, row.name): row.verdicts for row in resample(data, num_sweeps=2, num_seeds=4)}
    for row in table.rows:
        if (cell := row.metrics["miou"].difference) is not None and cell.verdict is not None:
            assert found.pop((str(row.role), row.arm)) == {cell.verdict: 2}
    (factorial,) = table.factorials
    for effect in factorial.effects:
        kind = f"effect over {', '.join(factorial.factors)}"
        assert found.pop((kind, effect.name)) == {effect.metrics["miou"].verdict: 2}
    assert not found
    with pytest.raises(ValueError, match="at most the study's 4 without replacement, not 5"):
        resample(data, num_sweeps=1, num_seeds=5)
