from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.scheduling.pruning import Judge
from orchestrator.sweep.pruning_settings import (
    AnyPruner,
    HyperbandPruning,
    MedianPruning,
    NoPruning,
    PercentilePruning,
    SuccessiveHalvingPruning,
    WilcoxonPruning,
)
from orchestrator.trials.records import Report, State, TrialRecord
from orchestrator.trials.trial import Role, TrialInfo

MEDIAN = MedianPruning(n_startup_trials=1)
PRUNING = [
    MEDIAN,
    PercentilePruning(n_startup_trials=1),
    SuccessiveHalvingPruning(),
    HyperbandPruning(),
    WilcoxonPruning(),
]


def make_record(
    trial_id: str,
    role: str = "arm",
    *,
    group: str = "",
    state: State = State.WAITING,
    values: Sequence[float] = (),
) -> TrialRecord:
    """Make a record with rungs at steps 10, 20, 30, ..."""
    return TrialRecord(
        TrialInfo(
            trial_id=trial_id,
            group_id=f"group {group}",
            arm_id=trial_id,
            group=group,
            arm=trial_id,
            role=Role(role),
            label=trial_id,
            seed=0,
            num_parameters=1,
            extra_parameters_percent=0.0,
        ),
        state=state,
        reports=tuple(Report(10 * rung, {"knn_top1": value}) for rung, value in enumerate(values, start=1)),
    )


def make_judge(
    pruner: AnyPruner, *records: TrialRecord, higher_is_better: bool = True, metric: str | None = None
) -> Judge:
    return Judge(pruner, higher_is_better=higher_is_better, records=records, metric=metric)


BASELINE = make_record("none", "baseline", state=State.DONE, values=[50.0, 60.0, 70.0])


def test_no_pruning_says_no_and_does_not_import_optuna() -> None:
    code = (
        "import sys; from orchestrator.sweep.pruning_settings import NoPruning\n"
        "from orchestrator.scheduling.pruning import Judge\n"
        "from orchestrator.trials.records import State\n"
        "judge = Judge(NoPruning(), higher_is_better=True, records=())\n"
        "print(judge.report('a', 1, float('nan')), judge.end('a', State.DONE), 'optuna' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "False None False\n"


@pytest.mark.parametrize(
    ("value", "higher_is_better", "pruned"),
    [(49.0, True, True), (51.0, True, False), (49.0, False, False), (51.0, False, True)],
)
def test_median_prunes_an_arm_on_the_wrong_side_of_the_baseline(
    value: float, higher_is_better: bool, pruned: bool
) -> None:
    judge = make_judge(MEDIAN, BASELINE, make_record("a"), higher_is_better=higher_is_better)
    assert judge.report("a", 10, value) is pruned


def test_values_are_compared_at_equal_steps() -> None:
    judge = make_judge(MEDIAN, BASELINE, make_record("a"))
    assert [judge.report("a", 10, 55.0), judge.report("a", 20, 59.0)] == [False, True]


def test_value_at_a_step_that_the_group_does_not_have_is_not_judged() -> None:
    judge = make_judge(MEDIAN, BASELINE, make_record("a"))
    assert [judge.report("a", 15, 1.0), judge.report("a", 20, 1.0)] == [False, True]


def test_warmup_counts_rungs() -> None:
    judge = make_judge(MedianPruning(n_startup_trials=1, n_warmup_steps=2), BASELINE, make_record("a"))
    assert [judge.report("a", 10, 1.0), judge.report("a", 20, 1.0)] == [False, True]


def test_startup_trials_count_trials_that_ended_while_the_judge_looked_on() -> None:
    pruner = MedianPruning(n_startup_trials=2)
    judge = make_judge(pruner, BASELINE, make_record("a"), make_record("b"), make_record("c"))
    assert judge.report("a", 10, 55.0) is False
    judge.end("a", State.DONE)
    assert judge.report("b", 10, 52.0) is True  # the median of 50 and 55 is 52.5
    assert judge.report("c", 10, 53.0) is False


def test_arms_are_judged_within_their_group_only() -> None:
    judge = make_judge(MEDIAN, BASELINE, make_record("a"), make_record("b", group="micro"))
    assert (judge.report("a", 10, 1.0), judge.report("b", 10, 1.0)) == (True, False)


@pytest.mark.parametrize("pruner", PRUNING)
def test_baseline_and_floors_are_never_pruned(pruner: AnyPruner) -> None:
    best = make_record("a", state=State.DONE, values=[90.0, 95.0, 99.0])
    judge = make_judge(pruner, make_record("none", "baseline"), best, make_record("floor", "floor"))
    verdicts = [judge.report(name, step, 1.0) for name in ("none", "floor") for step in (10, 20, 30)]
    assert verdicts == [False] * 6


def test_floors_are_no_evidence() -> None:
    floor = make_record("floor", "floor", state=State.DONE, values=[99.0])
    assert make_judge(MEDIAN, floor, make_record("a")).report("a", 10, 1.0) is False


def test_failed_trials_are_not_among_the_finished_ones() -> None:
    failed = make_record("a", state=State.FAILED, values=[99.0])
    assert make_judge(MEDIAN, failed, make_record("b")).report("b", 10, 1.0) is False


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("higher_is_better", [True, False])
def test_value_that_is_not_finite_counts_as_the_worst(value: float, higher_is_better: bool) -> None:
    judge = make_judge(MEDIAN, BASELINE, make_record("a"), higher_is_better=higher_is_better)
    assert judge.report("a", 10, value) is True
    broken = make_record("none", "baseline", state=State.DONE, values=[value])
    judge = make_judge(MEDIAN, broken, make_record("a"), higher_is_better=higher_is_better)
    assert judge.report("a", 10, 1e6 if not higher_is_better else -1e6) is False


def test_repeated_step_of_a_new_attempt_gets_the_first_answer_without_a_word(
    recwarn: pytest.WarningsRecorder,
) -> None:
    judge = make_judge(MEDIAN, BASELINE, make_record("a"), make_record("b"))
    assert [judge.report("a", 10, 40.0), judge.report("a", 10, 90.0)] == [True, True]
    assert [judge.report("b", 10, 60.0), judge.report("b", 10, 1.0)] == [False, False]
    assert not recwarn.list


def test_trial_that_failed_is_judged_again_at_later_rungs() -> None:
    judge = make_judge(MEDIAN, BASELINE, make_record("a"))
    judge.report("a", 10, 55.0)
    judge.end("a", State.FAILED)
    assert [judge.report("a", 10, 55.0), judge.report("a", 20, 10.0)] == [False, True]


def test_end_told_twice_or_of_an_unknown_trial_is_ignored() -> None:
    judge = make_judge(MEDIAN, BASELINE, make_record("a"))
    for name, state in (("none", State.DONE), ("nobody", State.DONE), ("none", State.PRUNED)):
        judge.end(name, state)
    assert judge.report("a", 10, 49.0) is True


def test_trial_that_is_done_without_a_rung_is_no_evidence() -> None:
    judge = make_judge(MEDIAN, make_record("none", "baseline"), make_record("a"))
    judge.end("none", State.DONE)
    assert judge.report("a", 10, 1.0) is False


def test_metric_to_judge_by_is_read_from_the_records() -> None:
    reports = (Report(10, {"linear_top1": 90.0, "knn_top1": 50.0}),)
    baseline = TrialRecord(**{**vars(BASELINE), "reports": reports})
    judge = make_judge(MEDIAN, baseline, make_record("a"), metric="knn_top1")
    assert judge.report("a", 10, 60.0) is False
    named = MedianPruning(n_startup_trials=1, metric="knn_top1")
    assert make_judge(named, baseline, make_record("a")).report("a", 10, 60.0) is False
    assert make_judge(MEDIAN, baseline, make_record("a")).report("a", 10, 60.0) is True


def test_successive_halving_keeps_the_best_half_of_those_that_came_by() -> None:
    judge = make_judge(SuccessiveHalvingPruning(), *(make_record(name) for name in "abcd"))
    # One of one; 20 is the best one of two; 15 is not the best one of three; 18 is of the best two of four.
    verdicts = [judge.report(name, 10, value) for name, value in zip("abcd", (10, 20, 15, 18), strict=True)]
    assert verdicts == [False, False, True, False]


def test_wilcoxon_prunes_at_the_third_rung_below_the_best_finished_trial() -> None:
    judge = make_judge(WilcoxonPruning(), BASELINE, make_record("a"))
    # p of n differences of one sign is 1/2^n: 1/4 after two, 1/8 < 0.2 after three.
    assert [judge.report("a", step, 40.0 + step / 10) for step in (10, 20, 30)] == [False, False, True]


def test_hyperband_prunes_nothing_before_a_trial_has_finished_and_judges_by_what_came_before() -> None:
    names = [f"arm {number}" for number in range(12)]
    records = [make_record("none", "baseline"), *(make_record(name) for name in names)]
    judge = make_judge(HyperbandPruning(), *records)
    early = [judge.report(name, 10, 50.0 + number) for number, name in enumerate(names[:6])]
    for step in (10, 20, 30):
        judge.report("none", step, 99.0)
    judge.end("none", State.DONE)
    late = [judge.report(name, 10, 1.0) for name in names[6:]]
    assert early == [False] * 6
    assert any(late)
    assert not all(late)


@pytest.mark.parametrize("pruner", [HyperbandPruning(), WilcoxonPruning()])
def test_optuna_says_nothing(
    pruner: AnyPruner, capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    judge = make_judge(pruner, BASELINE, make_record("a"))
    judge.report("a", 10, math.nan)
    judge.end("a", State.DONE)
    assert (capfd.readouterr().err, recwarn.list) == ("", [])


curves = st.lists(
    st.lists(st.integers(0, 30).map(float), min_size=3, max_size=3), min_size=2, max_size=7
)


@pytest.mark.parametrize("pruner", PRUNING, ids=lambda pruner: pruner.pruner)
@settings(max_examples=12, deadline=None)
@given(curves=curves, last=st.lists(st.integers(0, 30).map(float), min_size=3, max_size=3))
def test_judge_after_a_resume_says_what_it_would_have_said(
    pruner: AnyPruner, curves: list[list[float]], last: list[float]
) -> None:
    names = ["none", *(f"arm {number}" for number in range(1, len(curves)))]
    waiting = [make_record(name, "arm" if name != "none" else "baseline") for name in names]
    live = make_judge(pruner, *waiting, make_record("last"))
    ended = []
    for record, curve in zip(waiting, curves, strict=True):
        state, values = State.DONE, []
        for rung, value in enumerate(curve, start=1):
            values.append(value)
            if live.report(record.trial.trial_id, 10 * rung, value):
                state = State.PRUNED
                break
        live.end(record.trial.trial_id, state)
        ended.append(make_record(record.trial.trial_id, record.trial.role, state=state, values=values))
    resumed = make_judge(pruner, *ended, make_record("last"))
    verdicts = [
        [judge.report("last", 10 * rung, value) for rung, value in enumerate(last, start=1)]
        for judge in (live, resumed)
    ]
    assert verdicts[0] == verdicts[1]


def test_no_pruning_ignores_every_report() -> None:
    assert make_judge(NoPruning(), BASELINE, make_record("a")).report("a", 10, 0.0) is False
