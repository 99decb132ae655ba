"""What a sweep would do: its groups, arms and trials, and the time they will take."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Group as RichGroup
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from orchestrator.checkpoints import pin_checkpoints
from orchestrator.forecast import Forecast, Lengths, forecast, format_seconds
from orchestrator.grid import expand
from orchestrator.ledger import Ledger
from orchestrator.plain_text import one_line
from orchestrator.records import State, TrialRecord
from orchestrator.run import LEDGER_NAME
from orchestrator.sweep_schema import Sweep
from orchestrator.trials import Trial

MAX_SHOWN = 1000
"""Arms that a rendered plan shows: more than anyone reads, and few enough to be printed within seconds."""


@dataclass(frozen=True)
class PlannedArm:
    """Hold one row of a plan."""

    group: str
    arm: str
    role: str
    num_parameters: int
    extra_parameters_percent: float
    num_trials: int
    num_pending: int
    seconds_per_trial: float | None


@dataclass(frozen=True)
class Plan:
    """Hold what a sweep would do."""

    name: str
    question: str
    arms: tuple[PlannedArm, ...]
    num_groups: int
    num_trials: int
    seeds: tuple[int, ...]
    forecast: Forecast

    def to_json(self) -> dict[str, Any]:
        """Return the plan as JSON values."""
        return {
            "name": self.name,
            "question": self.question,
            "groups": self.num_groups,
            "arms": [asdict(arm) for arm in self.arms],
            "trials": self.num_trials,
            "pending": self.forecast.num_pending,
            "seeds": list(self.seeds),
            "slots": self.forecast.num_slots,
            "forecast_seconds": self.forecast.seconds,
            "forecast_from_trials": self.forecast.num_measured,
        }


def make_plan(sweep: Sweep, *, results_root: Path, num_slots: int | None = None) -> Plan:
    """Plan a sweep.

    The forecast rests on trials that have been measured: this sweep's own, and those of other sweeps under
    the same results folder that ran the same group.

    Args:
        sweep: The sweep.
        results_root: Folder that holds one folder per sweep.
        num_slots: Slots to forecast for; None = what this machine's cores allow.

    Raises:
        SpecsweepError: If a checkpoint cannot be used, or a data source needs a package that is not installed.
    """
    for group in sweep.groups:
        group.data.check_installed()
    trials = expand(pin_checkpoints(sweep))
    own_path = results_root / sweep.name / LEDGER_NAME
    own = _read_records(own_path)
    with_result = _read_with_result(own_path)
    pending = [trial for trial in trials if trial.trial_id not in with_result]
    groups = {trial.group_id for trial in trials}
    measured = [record for record in own if record.state is State.DONE]
    if not groups <= {record.group_id for record in measured}:
        for path in sorted(results_root.glob(f"*/{LEDGER_NAME}")):
            if path.parent.name != sweep.name:
                measured += [
                    r for r in _read_records(path) if r.state is State.DONE and r.group_id in groups
                ]
    if num_slots is None:
        cpus_per_trial = sweep.resources.cpus * sweep.resources.processes
        num_slots = max(1, math.floor((os.cpu_count() or 1) / cpus_per_trial))
    return Plan(
        name=sweep.name,
        question=sweep.question,
        arms=_arms(trials, {trial.trial_id for trial in pending}, measured),
        num_groups=len(groups),
        num_trials=len(trials),
        seeds=sweep.seeds,
        forecast=forecast(
            [(trial.group_id, trial.role) for trial in pending], measured, num_slots=num_slots
        ),
    )


def render_plan(plan: Plan) -> RenderableType:
    """Render a plan: a table of arms by group, and a line with the forecast. Of very many arms the first are shown."""
    parts: list[RenderableType] = [Text(one_line(plan.name), style="bold")]
    if plan.question:
        parts.append(Text(one_line(plan.question), style="italic"))
    for group, arms in itertools.groupby(plan.arms[:MAX_SHOWN], key=lambda arm: arm.group):
        table = Table(title=Text(one_line(group)) if group else None, title_justify="left")
        table.add_column("arm")
        for name in ("parameters", "extra %", "trials", "to run", "time each"):
            table.add_column(name, justify="right")
        for arm in arms:
            table.add_row(*_cells(arm))
        parts.append(table)
    if len(plan.arms) > MAX_SHOWN:
        parts.append(Text(f"and {len(plan.arms) - MAX_SHOWN} more arms, which --json lists"))
    parts.append(
        Text(
            f"{plan.num_groups} group{'s' * (plan.num_groups != 1)}, {len(plan.arms)} arms with baseline and "
            f"floors, {len(plan.seeds)} seed{'s' * (len(plan.seeds) != 1)}, {plan.num_trials} trials, "
            f"{plan.forecast.num_pending} to run"
        )
    )
    parts.append(Text(_forecast_text(plan.forecast)))
    return RichGroup(*parts)


def _cells(arm: PlannedArm) -> list[Text]:
    name = f"{arm.arm} (baseline)" if arm.role == "baseline" else arm.arm
    values = (
        f"{arm.num_parameters:,}" if arm.num_parameters else "",
        f"+{arm.extra_parameters_percent:.2f}" if arm.role == "arm" else "",
        str(arm.num_trials),
        str(arm.num_pending),
        format_seconds(arm.seconds_per_trial),
    )
    return [Text(one_line(name), style="dim" if arm.role == "floor" else ""), *map(Text, values)]


def _forecast_text(made: Forecast) -> str:
    if made.num_pending == 0:
        return "nothing to run"
    if made.seconds is None:
        return "no forecast: no trial of this sweep has been measured yet"
    return (
        f"forecast: {format_seconds(made.seconds)} on {made.num_slots} "
        f"slot{'s' * (made.num_slots != 1)}, from {made.num_measured} measured trials"
    )


def _arms(
    trials: Sequence[Trial], pending: set[str], measured: Sequence[TrialRecord]
) -> tuple[PlannedArm, ...]:
    lengths = Lengths(measured)
    by_arm: dict[str, list[Trial]] = {}
    for trial in trials:
        by_arm.setdefault(trial.arm_id, []).append(trial)
    groups: dict[str, int] = {}
    for trial in trials:
        groups.setdefault(trial.group_id, len(groups))
    roles = ("baseline", "arm", "floor")
    ordered = sorted(by_arm.values(), key=lambda t: (groups[t[0].group_id], roles.index(t[0].role)))
    return tuple(
        PlannedArm(
            group=first.group,
            arm=first.arm,
            role=first.role,
            num_parameters=first.num_parameters,
            extra_parameters_percent=first.extra_parameters_percent,
            num_trials=len(of_arm),
            num_pending=sum(trial.trial_id in pending for trial in of_arm),
            seconds_per_trial=lengths.of(first.group_id, first.role),
        )
        for of_arm in ordered
        for first in of_arm[:1]
    )


def _read_records(path: Path) -> list[TrialRecord]:
    if not path.exists():
        return []
    with Ledger.read(path) as ledger:
        return list(ledger.records())


def _read_with_result(path: Path) -> frozenset[str]:
    if not path.exists():
        return frozenset()
    with Ledger.read(path) as ledger:
        return ledger.with_result()
