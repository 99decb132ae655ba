"""Which arms of a sweep whose seeds grow are decided, and which get more: from records alone, so that all runs agree.

At each look the arms in question are judged by the boundaries of all declared looks. A look is reached once every trial
of these arms and of the baseline, up to that many seeds, has come to an end; what comes in between decides nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from orchestrator.statistics import Decision, confirm, decide, design_looks, forecast_looks, screen
from orchestrator.statistics.confirmation import SCREEN_LEVEL
from orchestrator.statistics.decisions import Action
from orchestrator.statistics.verdicts import Verdict
from orchestrator.sweep.declared.growing_seeds import GrowingSeeds
from orchestrator.trials.records import State, TrialRecord
from orchestrator.trials.trial import Role
from specvit.probes import METRICS

_ENDED = (State.DONE, State.PRUNED, State.FAILED)

_VERDICTS = {
    Action.BETTER: Verdict.BETTER,
    Action.WORSE: Verdict.WORSE,
    Action.EQUIVALENT: Verdict.EQUIVALENT,
}


@dataclass(frozen=True)
class GroupGrowth:
    """Where a group stands.

    Attributes:
        look: Seeds of the last look that was reached; 0 = none was.
        decisions: Arm id to its last decision; of arms that were not looked at yet, none.
        open_arms: Ids of the arms that get the seeds of the next look.
        next_look: Seeds up to which these run, and the baseline; None = the group is complete.
        seeks_better: Whether an arm is futile that is not likely to turn out better, whatever else it may.
    """

    look: int
    decisions: Mapping[str, Decision] = field(default_factory=dict)
    open_arms: frozenset[str] = frozenset()
    next_look: int | None = None
    seeks_better: bool = False


@dataclass(frozen=True)
class Stage:
    """What a sweep whose seeds grow is to run, by the ids of its trials.

    Attributes:
        now: Those of the looks that come next.
        not_needed: Those of arms that are decided, or stopped as futile.
    """

    now: frozenset[str]
    not_needed: frozenset[str]


def stage_of(records: Sequence[TrialRecord], growth: GrowingSeeds, metric: str, smallest_effect: float | None) -> Stage:
    """Return what is to run now, and what never is, as the records stand.

    Args:
        records: All trials of the sweep.
        growth: The declared looks.
        metric: The primary metric.
        smallest_effect: Smallest difference of interest in it; None: none is declared.
    """
    groups: dict[str, list[TrialRecord]] = {}
    for record in records:
        groups.setdefault(record.trial.group_id, []).append(record)
    now, not_needed = set(), set()
    for group in groups.values():
        stands = follow_group(group, growth, metric, smallest_effect)
        last = growth.first + (stands.next_look or 0)
        # No look waits for a control: it may have seeds to run when all arms are decided.
        last_of_controls = growth.first + (stands.next_look or stands.look)
        for record in group:
            trial = record.trial
            is_open = trial.role is Role.BASELINE or trial.arm_id in stands.open_arms
            if trial.role is Role.CONTROL:
                if trial.seed < last_of_controls:
                    now.add(trial.trial_id)
                elif stands.next_look is None:
                    not_needed.add(trial.trial_id)
            elif not trial.role.is_ablated or (is_open and trial.seed < last):
                now.add(trial.trial_id)
            elif stands.next_look is None or not is_open:
                not_needed.add(trial.trial_id)
    return Stage(frozenset(now), frozenset(not_needed))


def expected_trials(num_arms: int, growth: GrowingSeeds, *, num_controls: int = 0) -> float:
    """Return how many trials of the baseline and of so many arms run on average where no arm has an effect.

    Controls run as long as the baseline does, which runs as long as any arm. By simulation of the looks; of a
    confirmation, by the level at which arms are chosen.
    """
    if growth.method == "confirm":
        of_arms = num_arms * (growth.start + (growth.most - growth.start) * SCREEN_LEVEL)
        return of_arms + growth.most * (1 + num_controls)
    design = design_looks(growth.all_looks, num_arms)
    forecast = forecast_looks(design, [0.0] * num_arms, sd_difference=1.0, seek=growth.seek or "both")
    return forecast.mean_trials + num_controls * (forecast.mean_trials - sum(forecast.mean_seeds))


def critical_of(stands: GroupGrowth, growth: GrowingSeeds, num_arms: int, df: float) -> float | None:
    """Return what |t| must exceed at the look that a group has come to; None where no look judges by one of its own."""
    if growth.method != "sequential" or not stands.look:
        return None
    design = design_looks(growth.all_looks, num_arms)
    return design.critical_at(design.looks.index(stands.look), df)


def verdict_of(decision: Decision) -> Verdict:
    """Return the verdict that a decision is; a futile arm, and one that goes on, is undecided."""
    return _VERDICTS.get(decision.action, Verdict.UNDECIDED)


def follow_group(
    records: Sequence[TrialRecord], growth: GrowingSeeds, metric: str, smallest_effect: float | None = None
) -> GroupGrowth:
    """Go from look to look as far as the records of a group reach.

    Args:
        records: All trials of the group.
        growth: The declared looks.
        metric: The primary metric.
        smallest_effect: Smallest difference of interest in it; None: none is declared.
    """
    judged = [record for record in records if record.trial.role.is_ablated]
    baseline = next((record.trial.arm_id for record in judged if record.trial.role is Role.BASELINE), None)
    arms = list(dict.fromkeys(record.trial.arm_id for record in judged if record.trial.role is Role.ARM))
    open_arms = set(arms) - {record.trial.arm_id for record in judged if record.state is State.PRUNED}
    decisions: dict[str, Decision] = {}
    if baseline is None or not arms:
        return GroupGrowth(0, decisions, frozenset(), growth.start)
    looks, reached, seeks_better = growth.all_looks, 0, growth.seek == "better"
    for look in looks:
        last = growth.first + look
        awaited = [r for r in judged if r.trial.seed < last and r.trial.arm_id in (open_arms | {baseline})]
        if not all(record.state in _ENDED for record in awaited):
            return GroupGrowth(reached, decisions, frozenset(open_arms), look, seeks_better)
        reached = look
        values: dict[str, dict[int, float]] = {arm: {} for arm in (baseline, *arms)}
        for record in judged:
            if record.state is State.DONE and record.trial.seed < last and metric in record.metrics:
                values[record.trial.arm_id][record.trial.seed] = record.metrics[metric]
        # In the order of the sweep: that of a set is another in every process.
        judged_arms = [arm for arm in arms if arm in open_arms]
        decisions |= _decide(values, baseline, judged_arms, look, growth, metric, smallest_effect)
        open_arms = {arm for arm in open_arms if decisions[arm].action is Action.CONTINUE}
        if not open_arms:
            break
    return GroupGrowth(reached, decisions, frozenset(), None, seeks_better)


def _decide(
    values: Mapping[str, Mapping[int, float]],
    baseline: str,
    open_arms: Sequence[str],
    look: int,
    growth: GrowingSeeds,
    metric: str,
    smallest_effect: float | None,
) -> dict[str, Decision]:
    is_up = METRICS[metric].higher_is_better if metric in METRICS else True
    if growth.method == "sequential":
        design = design_looks(growth.all_looks, len(values) - 1)
        found = decide(
            design, look, values, baseline=baseline, arms=open_arms, higher_is_better=is_up,
            smallest_effect=smallest_effect, seek=growth.seek or "both",
        )
        return {arm: found[arm] for arm in open_arms}
    if look == growth.start:
        chosen = screen(values, baseline=baseline)
        return {
            arm: Decision(Action.CONTINUE if arm in chosen else Action.FUTILE, None, None, None, len(values[arm]))
            for arm in open_arms
        }
    screened = range(growth.first, growth.first + growth.start)
    comparison = confirm(
        values, baseline=baseline, arms=open_arms, screened_seeds=screened, higher_is_better=is_up,
        smallest_effect=smallest_effect,
    )
    actions = {verdict: action for action, verdict in _VERDICTS.items()} | {Verdict.UNDECIDED: Action.UNDECIDED}
    return {
        arm: Decision(actions[result.verdict], result.estimate, result.low, result.high, result.num_seeds)
        for arm, result in comparison.arms.items()
    }
