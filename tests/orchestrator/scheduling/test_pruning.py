from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Sequence

import pytest

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
    arm: str,
    role: str = "arm",
    *,
    seed: int = 0,
    group: str = "",
    state: State = State.WAITING,
    values: Sequence[float] = (),
) -> TrialRecord:
    """Make a record of the trial ``arm`` (``arm seed`` but for seed 0), with rungs at steps 10, 20, 30, ..."""
    return TrialRecord(
        TrialInfo(
            trial_id=f"{arm} {seed}" if seed else arm,
            group_id=f"group {group}",
            arm_id=arm,
            group=group,
            arm=arm,
            role=Role(role),
            label=arm,
            seed=seed,
            num_parameters=1,
            extra_parameters_percent=0.0,
        ),
        state=state,
        reports=tuple(Report(10 * rung, {"knn_top1": value}) for rung, value in enumerate(values, start=1)),
    )


def make_judge(
    pruner: AnyPruner,
    *records: TrialRecord,
    higher_is_better: bool = True,
    metric: str | None = None,
    num_rungs: int = 3,
) -> Judge:
    return Judge(pruner, higher_is_better=higher_is_better, records=records, metric=metric, num_rungs=num_rungs)


BASELINE = make_record("none", "baseline", state=State.DONE, values=[50.0, 60.0, 70.0])
A, B = ("a",), ("b",)


def test_no_pruning_says_no_and_does_not_import_optuna() -> None:
    code = (
        "import sys; from orchestrator.sweep.pruning_settings import NoPruning\n"
        "from orchestrator.scheduling.pruning import Judge\n"
        "from orchestrator.trials.records import State\n"
        "judge = Judge(NoPruning(), higher_is_better=True, records=())\n"
        "print(judge.report('a', 1, float('nan')), judge.end('a', State.DONE), 'optuna' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "() None False\n"


@pytest.mark.parametrize(
    ("value", "higher_is_better", "pruned"),
    [(49.0, True, A), (51.0, True, ()), (49.0, False, ()), (51.0, False, A)],
)
def test_median_prunes_an_arm_on_the_wrong_side_of_the_baseline(
    value: float, higher_is_better: bool, pruned: tuple[str, ...]
) -> None:
    judge = make_judge(MEDIAN, BASELINE, make_record("a"), higher_is_better=higher_is_better)
    assert judge.report("a", 10, value) == pruned


def test_values_are_compared_at_equal_steps() -> None:
    judge = make_judge(MEDIAN, BASELINE, make_record("a"))
    # 0 is the best difference so far at both rungs, then it is -1.
    assert [judge.report("a", 10, 50.0), judge.report("a", 20, 1.0)] == [(), ()]
    judge = make_judge(MEDIAN, BASELINE, make_record("a"))
    assert judge.report("a", 20, 59.0) == A


def test_value_at_a_step_that_the_baseline_does_not_have_is_not_judged() -> None:
    judge = make_judge(MEDIAN, BASELINE, make_record("a"))
    assert [judge.report("a", 15, 1.0), judge.report("a", 20, 1.0)] == [(), A]


def test_warmup_counts_rungs() -> None:
    judge = make_judge(MedianPruning(n_startup_trials=1, n_warmup_steps=2), BASELINE, make_record("a"))
    assert [judge.report("a", 10, 1.0), judge.report("a", 20, 1.0)] == [(), A]


def test_a_report_before_the_baselines_is_judged_as_soon_as_that_comes() -> None:
    judge = make_judge(MEDIAN, make_record("none", "baseline"), make_record("a"), make_record("b"))
    assert [judge.report("a", 10, 40.0), judge.report("b", 10, 60.0), judge.report("a", 20, 40.0)] == [(), (), ()]
    assert judge.report("none", 10, 50.0) == A
    assert judge.why("a") == (
        "rung 1 (step 10): the metric -10 against the baseline (1 seed), worse than +5, the median of 2 other arms "
        "with the baseline"
    )


def test_a_trial_that_ended_before_its_baseline_came_is_left_alone() -> None:
    judge = make_judge(MEDIAN, make_record("none", "baseline"), make_record("a"))
    judge.report("a", 10, 40.0)
    judge.end("a", State.DONE)
    assert judge.report("none", 10, 50.0) == ()


def test_controls_are_not_pruned_and_are_no_evidence() -> None:
    control = make_record("repeat", "control", state=State.DONE, values=[99.0, 99.0, 99.0])
    running = make_record("placebo of a", "control")
    judge = make_judge(MEDIAN, BASELINE, control, running, make_record("a"), make_record("b"))
    assert judge.report("placebo of a", 10, 1.0) == ()
    # The median is of the baseline alone.
    assert judge.report("a", 10, 51.0) == ()
    assert judge.report("b", 10, 1.0) == B


def test_the_baseline_of_another_seed_or_group_is_no_baseline() -> None:
    others = [make_record("none", "baseline", seed=1), make_record("none", "baseline", group="micro")]
    judge = make_judge(MEDIAN, BASELINE, *others[:1], make_record("a", seed=1))
    assert judge.report("a 1", 10, 1.0) == ()
    assert make_judge(MEDIAN, BASELINE, make_record("b", group="micro")).report("b", 10, 1.0) == ()


def test_startup_trials_are_other_arms_at_the_rung_and_pruned_ones_count() -> None:
    pruner = MedianPruning(n_startup_trials=2)
    judge = make_judge(pruner, BASELINE, *(make_record(name) for name in "abcd"))
    assert judge.report("a", 10, 55.0) == ()
    # Differences: a has 5, the baseline 0, b 2. For a the median of the others is 1; for b it is 2.5.
    assert judge.report("b", 10, 52.0) == B
    judge.end("b", State.PRUNED)
    # The median of 5, 0 and 2; 2.5 with what remains.
    assert judge.report("c", 10, 52.1) == ()


def test_startup_trials_are_all_others_where_the_group_has_fewer() -> None:
    judge = make_judge(MedianPruning(), BASELINE, make_record("a"), make_record("b"))
    # a is as good as the median of 0 and -2, b is worse than that of 0 and -1.
    assert [judge.report("a", 10, 49.0), judge.report("b", 10, 48.0)] == [(), B]
    assert MedianPruning().n_startup_trials == 5


@pytest.mark.parametrize("pruner", PRUNING)
def test_baseline_and_floors_are_never_pruned(pruner: AnyPruner) -> None:
    best = make_record("a", state=State.DONE, values=[90.0, 95.0, 99.0])
    judge = make_judge(pruner, make_record("none", "baseline"), best, make_record("floor", "floor"))
    verdicts = [judge.report(name, step, 1.0) for name in ("none", "floor") for step in (10, 20, 30)]
    assert verdicts == [()] * 6


def test_floors_are_no_evidence() -> None:
    floor = make_record("floor", "floor", state=State.DONE, values=[99.0])
    assert make_judge(MEDIAN, floor, make_record("a")).report("a", 10, 1.0) == ()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1.7e308, -1.7e308])
@pytest.mark.parametrize("higher_is_better", [True, False])
def test_value_that_is_not_finite_counts_as_the_worst(value: float, higher_is_better: bool) -> None:
    judge = make_judge(MEDIAN, BASELINE, make_record("a"), higher_is_better=higher_is_better)
    assert judge.report("a", 10, value) == A
    assert "not a finite number against the baseline" in judge.why("a")
    broken = make_record("none", "baseline", state=State.DONE, values=[value])
    judge = make_judge(MEDIAN, broken, make_record("a"), higher_is_better=higher_is_better)
    assert judge.report("a", 10, 1e6 if not higher_is_better else -1e6) == ()


def test_repeated_step_of_a_new_attempt_gets_the_first_answer_without_a_word(
    recwarn: pytest.WarningsRecorder,
) -> None:
    judge = make_judge(MEDIAN, BASELINE, make_record("a"), make_record("b"))
    assert [judge.report("a", 10, 40.0), judge.report("a", 10, 90.0)] == [A, A]
    assert [judge.report("b", 10, 60.0), judge.report("b", 10, 1.0)] == [(), ()]
    assert not recwarn.list


def test_trial_that_failed_is_judged_again_at_later_rungs() -> None:
    judge = make_judge(MedianPruning(n_startup_trials=1, interval_steps=1), BASELINE, make_record("a"))
    judge.report("a", 10, 50.0)
    judge.end("a", State.FAILED)
    halving = make_judge(SuccessiveHalvingPruning(), BASELINE, make_record("a"))
    assert [halving.report("a", 10, 51.0), halving.end("a", State.FAILED), halving.report("a", 20, 10.0)] == [
        (), None, A,
    ]


def test_end_told_twice_or_of_an_unknown_trial_is_ignored() -> None:
    judge = make_judge(MEDIAN, BASELINE, make_record("a"))
    for name, state in (("none", State.DONE), ("nobody", State.DONE), ("none", State.PRUNED)):
        judge.end(name, state)
    assert judge.report("a", 10, 49.0) == A


def test_a_pruned_trial_that_is_to_run_to_its_end_is_not_pruned_again() -> None:
    judge = make_judge(MEDIAN, BASELINE, make_record("a"))
    assert judge.report("a", 10, 49.0) == A
    judge.end("a", State.PRUNED)
    judge.exempt("a")
    assert [judge.report("a", 10, 49.0), judge.report("a", 20, 1.0)] == [(), ()]


def test_metric_to_judge_by_is_read_from_the_records() -> None:
    reports = (Report(10, {"linear_top1": 90.0, "knn_top1": 50.0}),)
    baseline = TrialRecord(**{**vars(BASELINE), "reports": reports})
    judge = make_judge(MEDIAN, baseline, make_record("a"), metric="knn_top1")
    assert judge.report("a", 10, 60.0) == ()
    named = MedianPruning(n_startup_trials=1, metric="knn_top1")
    assert make_judge(named, baseline, make_record("a")).report("a", 10, 60.0) == ()
    assert make_judge(MEDIAN, baseline, make_record("a")).report("a", 10, 60.0) == A


def test_an_arm_is_judged_by_its_mean_difference_over_the_seeds_that_the_others_have_too() -> None:
    done = [
        make_record(arm, "baseline" if arm == "none" else "arm", seed=seed, state=State.DONE, values=[value])
        for arm, seed, value in (("none", 0, 10.0), ("b", 0, 12.0), ("none", 1, 30.0), ("b", 1, 31.0), ("a", 0, 15.0))
    ]
    # b is ahead by 2 and 1, the baseline by 0: their median is 0.75. a was ahead by 5.
    assert make_judge(MEDIAN, *done, make_record("a", seed=1)).report("a 1", 10, 26.6) == ()  # -3.4: +0.8
    judge = make_judge(MEDIAN, *done, make_record("a", seed=1), metric="knn_top1")
    assert judge.report("a 1", 10, 26.4) == ("a 1",)  # -3.6: +0.7
    assert judge.why("a 1") == (
        "rung 1 (step 10): knn_top1 +0.7 against the baseline (mean of 2 seeds), worse than +0.75, the median of 2 "
        "other arms with the baseline"
    )


def test_a_seed_that_too_few_others_have_come_to_is_left_out_of_the_comparison() -> None:
    pruner = MedianPruning(n_startup_trials=2)
    done = [
        make_record(arm, "baseline" if arm == "none" else "arm", state=State.DONE, values=[value])
        for arm, value in (("none", 10.0), ("b", 12.0), ("a", 9.0))
    ]
    first = make_record("none", "baseline", seed=1, state=State.DONE, values=[30.0])
    # In seed 1 only the baseline stands beside a; by seed 0 it is behind both.
    judge = make_judge(pruner, *done, first, make_record("a", seed=1))
    assert judge.report("a 1", 10, 99.0) == ("a 1",)
    assert "-1 against the baseline (1 seed)" in judge.why("a 1")


def test_successive_halving_keeps_the_best_half_of_those_that_came_by() -> None:
    judge = make_judge(SuccessiveHalvingPruning(), BASELINE, *(make_record(name) for name in "abcd"))
    # The baseline came first. One of the best two of four stays, the best one of two and of three.
    verdicts = [judge.report(name, 10, value) for name, value in zip("abcd", (55, 52, 54, 51), strict=True)]
    assert verdicts == [(), B, (), ("d",)]


@pytest.mark.parametrize("pruner", [HyperbandPruning(), WilcoxonPruning()])
def test_optuna_says_nothing(
    pruner: AnyPruner, capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    judge = make_judge(pruner, BASELINE, make_record("a"))
    judge.report("a", 10, math.nan)
    judge.end("a", State.DONE)
    assert (capfd.readouterr().err, recwarn.list) == ("", [])


def test_no_pruning_ignores_every_report() -> None:
    assert make_judge(NoPruning(), BASELINE, make_record("a")).report("a", 10, 0.0) == ()
