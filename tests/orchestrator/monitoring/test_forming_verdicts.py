from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest

from orchestrator.ledger.registration import SweepInfo
from orchestrator.monitoring.forming_verdicts import FormingVerdicts, Standing
from orchestrator.statistics import Verdict
from orchestrator.trials.events import Failed, Finished, Pruned
from orchestrator.trials.records import State, TrialRecord
from orchestrator.trials.trial import Role, TrialInfo

NOISE = (0.0, 0.31, -0.2, 0.12, 0.27, -0.1)
"""What arms do not share, by seed."""


class Sweep:
    """A sweep of a baseline, two arms and a floor in memory, whose trials end when a test says so."""

    def __init__(self, clock: Any, *, num_seeds: int, groups: Iterable[str] = ("",), **known: Any) -> None:
        self.clock = clock
        self.records: dict[str, TrialRecord] = {}
        self.num_reads = 0
        for seed in range(num_seeds):
            for group in groups:
                for arm, role in (("none", Role.BASELINE), ("a", Role.ARM), ("b", Role.ARM), ("floor", Role.FLOOR)):
                    key = f"{group} {arm} {seed}"
                    trial = TrialInfo(key, group, f"{group} {arm}", group, arm, role, key, seed, 10, 1.0)
                    self.records[key] = TrialRecord(trial, State.WAITING)
        growth = known.pop("growth", {})
        info = SweepInfo("s", "", "", ("miou", "knn_top1"), tuple(range(num_seeds)), growth=growth)
        self.verdicts = FormingVerdicts(self.read, info, clock=clock, **known)

    def read(self) -> tuple[TrialRecord, ...]:
        self.num_reads += 1
        return tuple(self.records.values())

    def end(self, arm: str, seed: int, *, group: str = "", state: State = State.DONE) -> None:
        key = f"{group} {arm} {seed}"
        value = 30.0 + seed + {"none": 0.0, "a": 3.0, "b": 0.1}.get(arm, -9.0) + NOISE[(seed + len(arm + group)) % 6]
        metrics = {"miou": value, "knn_top1": 2 * value} if state is State.DONE else {}
        self.records[key] = replace(self.records[key], state=state, metrics=metrics, seconds=1.0)
        event: Finished | Pruned | Failed = Finished(key, 1, metrics=metrics, seconds=1.0, core_seconds=1.0)
        if state is State.PRUNED:
            event = Pruned(key, 1, step=1, seconds=1.0)
        elif state is State.FAILED:
            event = Failed(key, 1, error="x", traceback="")
        self.verdicts.on_event(event)

    def end_seed(self, seed: int, *, group: str = "") -> list[Standing]:
        for arm in ("none", "a", "b"):
            self.end(arm, seed, group=group)
        self.clock.now_s += 60.0
        return self.verdicts.news()


def test_after_the_first_seed_of_all_arms_there_is_a_table_and_no_verdict(clock: Any) -> None:
    sweep = Sweep(clock, num_seeds=5, detectable=lambda _group: 2.14)
    sweep.end("none", 0)
    sweep.end("a", 0)
    clock.now_s += 50.0
    assert sweep.verdicts.news() == []
    (standing,) = sweep.end_seed(0)
    assert standing.sentences == (
        "first seed complete (seed 0), one of 5: no verdict; differences of mIoU under 2.1 could not be seen with the "
        "5 seeds planned.",
    )
    assert standing.table is not None
    assert [row.arm for row in standing.table.rows] == ["none", "a", "b", "floor"]
    cell = standing.table.rows[1].metrics["miou"]
    assert cell.n == 1
    assert cell.difference is not None
    assert (cell.difference.low, cell.difference.mean) == (None, pytest.approx(3.0 + NOISE[1] - NOISE[4]))
    assert sweep.verdicts.news() == []


def test_after_a_minute_there_is_a_table_of_what_is_there_of_the_first_seed(clock: Any) -> None:
    sweep = Sweep(clock, num_seeds=5)
    sweep.end("a", 0)
    clock.now_s += 61.0
    assert sweep.verdicts.news() == []  # there is no baseline yet
    sweep.end("none", 0)
    clock.now_s += 5.0
    (standing,) = sweep.verdicts.news()
    assert standing.sentences == ("1 of 2 arms of the first seed (seed 0) so far: no verdict by one seed.",)
    assert standing.table is not None
    assert [row.arm for row in standing.table.rows] == ["none", "a"]
    assert standing.table.rows[1].metrics["miou"].difference.mean == pytest.approx(3.0 + NOISE[1] - NOISE[4])
    assert sweep.verdicts.standings == {}
    clock.now_s += 60.0
    assert sweep.verdicts.news() == []  # it is told once
    (complete,) = sweep.end_seed(0)
    assert complete.num_complete == 1


def test_without_known_noise_the_second_seed_tells_what_could_be_seen(clock: Any) -> None:
    sweep = Sweep(clock, num_seeds=5)
    (first,) = sweep.end_seed(0)
    assert first.sentences[0].endswith("what the 5 seeds planned can show of mIoU is known from the second seed on.")
    (second,) = sweep.end_seed(1)
    assert second.table is None
    assert second.sentences[0].startswith("2 of 5 seeds complete: no verdict before 4; differences of mIoU under 0.")
    assert second.sentences[0].endswith("could not be seen with the 5 seeds planned.")


def test_with_fewer_than_four_seeds_planned_there_never_is_a_verdict(clock: Any) -> None:
    sweep = Sweep(clock, num_seeds=3, detectable=lambda _group: 2.0)
    (first,) = sweep.end_seed(0)
    assert first.sentences == (
        "first seed complete (seed 0), one of 3: no verdict, nor with the 3 seeds planned: it takes 4.",
    )
    assert sweep.end_seed(1)[0].sentences == ("2 of 3 seeds complete: no verdict before 4.",)


def test_from_four_seeds_on_verdicts_are_told_of_complete_seeds_alone(clock: Any) -> None:
    sweep = Sweep(clock, num_seeds=6)
    for seed in range(3):
        sweep.end_seed(seed)
    sweep.end("a", 4)  # of a seed that is not complete
    (standing,) = sweep.end_seed(3)
    said = standing.sentences
    assert said[0].startswith("4 of 6 seeds complete, so far: mIoU is better with a: +")
    assert said[0].endswith("(2 arms, 4 seeds).")
    assert said[1].startswith("4 of 6 seeds complete, so far: b is undecided (2 arms, 4 seeds)")
    assert standing.verdicts == (Verdict.BETTER, Verdict.UNDECIDED)
    sweep.end_seed(4)
    (last,) = sweep.end_seed(5)
    assert last.sentences[0].startswith("all 6 seeds complete: mIoU is better with a: +")
    assert sweep.verdicts.standings == {"": last}


def test_what_was_pruned_failed_or_left_out_completes_a_seed_too(clock: Any) -> None:
    sweep = Sweep(clock, num_seeds=5)
    sweep.end("none", 0)
    sweep.end("a", 0, state=State.PRUNED)
    sweep.end("b", 0, state=State.FAILED)
    clock.now_s += 60.0
    (standing,) = sweep.verdicts.news()
    assert standing.num_complete == 1
    sweep.end("none", 1)
    sweep.verdicts.on_skip([sweep.records[f" {arm} 1"].trial for arm in "ab"], "no room")  # type: ignore[misc]
    clock.now_s += 60.0
    assert [each.num_complete for each in sweep.verdicts.news()] == [2]


def test_a_seed_that_does_not_run_is_not_complete(clock: Any) -> None:
    sweep = Sweep(clock, num_seeds=6)
    sweep.end_seed(0)
    left_out = [sweep.records[f" {arm} {seed}"].trial for seed in (4, 5) for arm in ("none", "a", "b")]
    sweep.verdicts.on_skip(left_out, "no room")  # type: ignore[arg-type]
    clock.now_s += 60.0
    assert sweep.verdicts.news() == []
    assert sweep.end_seed(1)[0].num_complete == 2
    for trial in left_out:
        sweep.records[trial.trial_id] = replace(sweep.records[trial.trial_id], state=State.SKIPPED)
    sweep.verdicts = FormingVerdicts(sweep.read, sweep.verdicts._info, clock=clock)
    assert sweep.end_seed(2)[0].num_complete == 3


def test_seeds_that_only_the_baseline_has_are_not_counted(clock: Any) -> None:
    sweep = Sweep(clock, num_seeds=6)
    sweep.records = {
        key: record
        for key, record in sweep.records.items()
        if record.trial.seed < 4 or record.trial.role is Role.BASELINE
    }
    sweep.verdicts = FormingVerdicts(sweep.read, sweep.verdicts._info, clock=clock)
    sweep.end("none", 5)
    (first,) = sweep.end_seed(0)
    assert (first.num_complete, first.num_seeds) == (1, 4)


def test_nothing_is_read_but_when_a_seed_is_complete_and_seldom(clock: Any) -> None:
    sweep = Sweep(clock, num_seeds=5, groups=("g", "h"))
    reads = sweep.num_reads
    for _ in range(100):
        sweep.verdicts.news()
    sweep.end("none", 0, group="g")
    clock.now_s += 59.0
    assert (sweep.verdicts.news(), sweep.num_reads) == ([], reads)
    assert [each.group for each in sweep.end_seed(0, group="g")] == ["g"]
    for arm in ("none", "a", "b"):
        sweep.end(arm, 0, group="h")
    clock.now_s += 4.9
    assert (sweep.verdicts.news(), sweep.num_reads) == ([], reads + 1)
    clock.now_s += 0.2
    assert [each.group for each in sweep.verdicts.news()] == ["h"]


def test_a_long_computation_is_made_up_for(clock: Any) -> None:
    sweep = Sweep(clock, num_seeds=5)
    read = sweep.read

    def slowly() -> tuple[TrialRecord, ...]:
        clock.now_s += 2.0
        return read()

    sweep.verdicts._read = slowly
    assert len(sweep.end_seed(0)) == 1
    for arm in ("none", "a", "b"):
        sweep.end(arm, 1)
    clock.now_s += 37.0  # it took 2 s, a twentieth of 40
    assert sweep.verdicts.news() == []
    clock.now_s += 2.0
    assert len(sweep.verdicts.news()) == 1


def test_what_an_earlier_run_has_completed_is_not_told_again(clock: Any) -> None:
    sweep = Sweep(clock, num_seeds=5)
    sweep.end_seed(0)
    again = FormingVerdicts(sweep.read, sweep.verdicts._info, clock=clock)
    clock.now_s += 60.0
    assert again.news() == []
    sweep.verdicts = again
    assert sweep.end_seed(1)[0].sentences[0].startswith("2 of 5 seeds complete: ")


def test_where_seeds_grow_the_looks_decide(clock: Any) -> None:
    growth = {"start": 4, "most": 6, "looks": [4, 6], "method": "sequential", "first": 0}
    sweep = Sweep(clock, num_seeds=6, growth=growth)
    sweep.end_seed(0)
    sweep.end_seed(1)
    assert sweep.end_seed(2)[0].sentences[0].startswith("3 of 6 seeds complete: no verdict before 4")
    (look,) = sweep.end_seed(3)
    assert look.sentences[0].startswith("4 of 6 seeds complete, so far: mIoU is better with a: +")


def test_a_group_without_an_arm_says_so(clock: Any) -> None:
    sweep = Sweep(clock, num_seeds=5)
    sweep.records = {key: record for key, record in sweep.records.items() if record.trial.role is Role.BASELINE}
    verdicts = FormingVerdicts(sweep.read, sweep.verdicts._info, clock=clock)
    sweep.verdicts = verdicts
    sweep.end("none", 0)
    clock.now_s += 60.0
    assert verdicts.news()[0].sentences == (
        "first seed complete (seed 0), one of 5: no verdict: there is no arm to compare.",
    )
