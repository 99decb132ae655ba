"""Records of a sweep with every kind of row, from which tables are made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from orchestrator.ledger.registration import SweepInfo
from orchestrator.trials.records import State, TrialRecord
from orchestrator.trials.trial import Role, TrialInfo
from specvit.training.cost import TrainingCost

METRICS = ("knn_top1", "linear_top1", "miou")
INFO = SweepInfo("components", "Which component gains?", "", METRICS, (0, 1, 2))


def make_trial(arm: str, seed: int, *, role: str = "arm", group: str = "") -> TrialInfo:
    return TrialInfo(
        trial_id=f"{group} {arm} {seed}",
        group_id=group,
        arm_id=f"{group} {arm}",
        group=group,
        arm=arm,
        role=Role(role),
        label=f"{arm} seed {seed}",
        seed=seed,
        num_parameters=1000,
        extra_parameters_percent=2.5,
    )


def make_records(
    arm: str, *offsets: float | None, role: str = "arm", group: str = "", error: str | None = None
) -> list[TrialRecord]:
    """Make a done trial per offset from (50, 60, 30); None = it failed with ``error``, or was pruned."""
    records = []
    for seed, offset in enumerate(offsets):
        state = State.DONE if offset is not None else State.FAILED if error else State.PRUNED
        base = dict(zip(METRICS, (50.0, 60.0, 30.0), strict=True))
        records.append(
            TrialRecord(
                make_trial(arm, seed, role=role, group=group),
                state=state,
                metrics={} if offset is None else {name: value + offset for name, value in base.items()},
                seconds=None if offset is None else 40.0,
                error=error if state is State.FAILED else None,
            )
        )
    return records


RECORDS = [
    *make_records("none", 0.0, 1.0, 2.0, role="baseline"),
    *make_records("norm@all", 3.0, 4.1, 5.2),
    *make_records("norm@first-third+qkv@first-third+mlp@first-third", 0.0, 2.0, None),
    *make_records("a|b", 0.0, None, None, error="RuntimeError: [red]x[/red] | `y`\nsecond line"),
    *make_records("random init", -9.0, -8.0, -7.0, role="floor"),
]


DECIDED = [
    *make_records("none", 0.0, 1.0, 2.0, 0.5, 1.5, role="baseline"),
    *make_records("norm@all", 3.0, 4.1, 5.2, 3.6, 4.6),
]
"""One arm with differences 3.0, 3.1, 3.2, 3.1, 3.1: mean 3.1, sd .0707, t interval 2.776 x .0707 / sqrt(5) = .088."""


def with_costs(records: Sequence[TrialRecord], *, gpu: float | None = None) -> list[TrialRecord]:
    """Give trials that are done and no floors a cost: 30.25 s at 1234.4 images/s, 0.756 GiB."""
    cost = TrainingCost(30.25, 1234.4, 0.756, gpu)
    return [
        replace(record, cost=cost) if record.state is State.DONE and record.trial.role is not Role.FLOOR else record
        for record in records
    ]
