"""The judge with several seeds: which of them count, and what waits for what."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.sweep.pruning_settings import AnyPruner, HyperbandPruning, WilcoxonPruning
from orchestrator.trials.records import Report, State, TrialRecord

from .test_pruning import PRUNING, make_judge, make_record


def seeds_of(*arms: str, num_seeds: int = 4, ahead: float = 0.0) -> list[TrialRecord]:
    """Make the records of a baseline that is done, with values that differ by seed, and of arms that wait."""
    values = [[50.0 + 9 * seed, 60.0 + 9 * seed, 70.0 + 9 * seed] for seed in range(num_seeds)]
    return [
        record
        for seed in range(num_seeds)
        for record in (
            make_record("none", "baseline", seed=seed, state=State.DONE, values=[v - ahead for v in values[seed]]),
            *(make_record(arm, seed=seed) for arm in arms),
        )
    ]


@pytest.mark.parametrize(
    ("num_rungs", "threshold", "pruned"),
    [
        # p of n differences of one sign is 1/2^n; Pocock's levels of 0.2 for 1, 2 and 3 looks are .2, .134 and .108.
        (1, 0.2, [2, 3]),
        (3, 0.2, [2, 3]),
        (7, 0.2, [3]),
        (1, 0.1, [3]),
        (7, 0.1, []),
    ],
)
def test_wilcoxon_prunes_by_seeds_as_soon_as_they_suffice(num_rungs: int, threshold: float, pruned: list[int]) -> None:
    judge = make_judge(WilcoxonPruning(p_threshold=threshold), *seeds_of("a"), num_rungs=num_rungs)
    trials = ["a", "a 1", "a 2", "a 3"]
    found = [judge.report(trial, 10, 49.0 + 8 * seed) for seed, trial in enumerate(trials)]
    assert [seed for seed, ids in enumerate(found) if ids] == pruned
    if pruned == [3]:
        assert judge.why("a 3") == (
            "rung 1 (step 10): the metric -2.5 against the baseline (mean of 4 seeds), behind with 4: too far by "
            f"Wilcoxon's signed-rank test with p_threshold {threshold:g} for all rungs"
        )


def test_the_arm_of_a_trial_waits_for_its_earlier_seeds_that_run_and_not_for_those_that_ended() -> None:
    pruner = WilcoxonPruning()
    judge = make_judge(pruner, *seeds_of("a"))
    assert [judge.report(trial, 10, 1.0) for trial in ("a 3", "a", "a 2")] == [(), (), ()]
    assert judge.report("a 1", 10, 1.0) == ("a 3", "a 2")
    judge = make_judge(pruner, *seeds_of("a"))
    judge.end("a 1", State.FAILED)
    assert [judge.report(trial, 10, 1.0) for trial in ("a 3", "a", "a 2")] == [(), (), ("a 3",)]


def test_hyperband_judges_some_arms_earlier_than_others_and_an_arm_alike_with_all_its_seeds() -> None:
    names = [f"arm-{number}" for number in range(12)]
    judge = make_judge(HyperbandPruning(), *seeds_of(*names, num_seeds=2))
    pruned = []
    for seed in ("", " 1"):
        found = [judge.report(name + seed, 10, 49.0 - number) for number, name in enumerate(names)]
        pruned.append({trial.removesuffix(" 1") for ids in found for trial in ids})
    assert pruned[0]
    assert pruned[0] <= pruned[1] < set(names)


ARMS = ("none", "b", "c", "a")
numbers = st.lists(st.integers(0, 30).map(float), min_size=2 * 3 * len(ARMS), max_size=2 * 3 * len(ARMS))


@pytest.mark.parametrize("pruner", PRUNING, ids=lambda pruner: pruner.pruner)
@settings(max_examples=6, deadline=None)
@given(values=numbers)
def test_judge_after_a_resume_says_what_it_would_have_said(pruner: AnyPruner, values: list[float]) -> None:
    waiting = [
        make_record(arm, "baseline" if arm == "none" else "arm", seed=seed) for seed in range(3) for arm in ARMS
    ]
    *before, last = waiting
    live, resumed = make_judge(pruner, *waiting), None
    ended = []
    for number, record in enumerate(before):
        state, seen = State.DONE, []
        for rung in (1, 2):
            seen.append(values[2 * number + rung - 1])
            if live.report(record.trial.trial_id, 10 * rung, seen[-1]):
                state = State.PRUNED
                break
        live.end(record.trial.trial_id, state)
        ended.append(TrialRecord(**{**vars(record), "state": state, "reports": tuple(
            Report(10 * rung, {"knn_top1": value}) for rung, value in enumerate(seen, start=1)
        )}))
    resumed = make_judge(pruner, *ended, last)
    verdicts = [
        [judge.report(last.trial.trial_id, 10 * rung, value) for rung, value in enumerate(values[-2:], start=1)]
        for judge in (live, resumed)
    ]
    assert verdicts[0] == verdicts[1]
