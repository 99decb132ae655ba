"""What a sweep would do: its groups, arms and trials, and the time they will take."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from orchestrator.execution.capacity import Node, count_slots
from orchestrator.execution.simulated import Conditions
from orchestrator.ledger.ledger import LEDGER_NAME, Ledger
from orchestrator.noise import OtherSweeps
from orchestrator.power import SweepPower, expected_trials, measure_power
from orchestrator.scheduling.allocation import Allocator
from orchestrator.scheduling.durations import TrialDurations
from orchestrator.scheduling.forecast import Forecast, forecast
from orchestrator.scheduling.kept_trainings import Division, divide
from orchestrator.scheduling.shared_floors import find_followers
from orchestrator.storage.remote_folder import Location, RemoteFolder, is_url
from orchestrator.storage.views import folder_of_view, sweep_view
from orchestrator.sweep.grid import expand, start_order
from orchestrator.sweep.pretrained import pin_checkpoints
from orchestrator.sweep.resolved import Sweep
from orchestrator.trials.records import State, TrialRecord
from orchestrator.trials.resources import ResourceFloor, ResourceRequest, gpus_in_vain, usable_cores, visible_gpus
from orchestrator.trials.trial import Role, Trial
from specvit.data import Counts, DataSource
from specvit.footprint import Footprint, footprint
from specvit.kept_weights import FOLDER_NAME
from specvit.memory import GIB

_SIZES = frozenset({"image_size", "probe_size"})
"""Fields of data that say nothing of the number of images."""


@dataclass(frozen=True)
class PlannedArm:
    """A row of a plan; ``specialize`` is the canonical text of its places, whatever name the arm goes by."""

    group: str
    arm: str
    specialize: str
    role: Role
    num_parameters: int
    extra_parameters_percent: float
    num_trials: int
    num_pending: int
    seconds_per_trial: float | None


@dataclass(frozen=True)
class PlannedMemory:
    """What a process of a trial takes at most, by arithmetic, in GiB: the most of all trials of a scale.

    ``gpu_gib`` is 0 where trials compute on CPUs; what is not known, of a recipe of another package or of images that
    are not counted in a second or two, is None. ``features_gib`` is a part of ``machine_gib``. ``reserved_gib`` is
    what ``resources.memory_gib`` says; 0 = nothing is reserved.
    """

    scale: str
    gpu_gib: float | None
    machine_gib: float | None
    features_gib: float | None
    reserved_gib: float

    @property
    def exceeds(self) -> bool:
        """Return whether more is needed than is reserved."""
        return 0 < self.reserved_gib < (self.machine_gib or 0.0)


@dataclass(frozen=True)
class Plan:
    """What a sweep would do.

    Attributes:
        name: Its name.
        question: What it asks.
        arms: Its arms, group by group.
        num_groups: Number of its groups.
        num_trials: Number of its trials.
        seeds: The seeds of every arm.
        forecast: Of those that are trained, or built anew.
        gpus_in_vain: A line on GPUs that no trial asks for; empty where that is not so.
        num_evaluated: Trials of which probes run on kept weights and nothing is trained; the forecast is without them.
        num_taken: Trials that get their results from others of the same trainings, at no cost.
        num_without_weights: Trials that are left out, since their new probes have no weights to look at.
        expected_trials: Of a sweep whose seeds grow, trials that run on average where no arm has an effect; else None.
        memory: What trials of each scale take.
        power: What it could see.
    """

    name: str
    question: str
    arms: tuple[PlannedArm, ...]
    num_groups: int
    num_trials: int
    seeds: tuple[int, ...]
    forecast: Forecast
    gpus_in_vain: str = ""
    num_evaluated: int = 0
    num_taken: int = 0
    num_without_weights: int = 0
    expected_trials: float | None = None
    memory: tuple[PlannedMemory, ...] = ()
    power: SweepPower | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the plan as JSON values."""
        made = self.forecast
        return {
            "name": self.name,
            "question": self.question,
            "groups": self.num_groups,
            "arms": [asdict(arm) for arm in self.arms],
            "trials": self.num_trials,
            "pending": made.num_pending,
            "evaluated_only": self.num_evaluated,
            "taken_over": self.num_taken,
            "without_weights": self.num_without_weights,
            "expected_trials": self.expected_trials,
            "seeds": list(self.seeds),
            "slots": made.num_slots,
            "gpus_in_vain": self.gpus_in_vain,
            "memory": [asdict(each) for each in self.memory],
            "power": None if self.power is None else self.power.to_json(),
            "forecast_seconds": made.seconds,
            "rough_seconds": made.rough_s,
            "forecast_range_seconds": None if made.range_s is None else list(made.range_s),
            "forecast_from_trials": made.num_measured,
            "forecast_failure_rate": made.failure_rate,
            "busy_percent": None if made.middle is None else 100 * made.middle.busy,
            "gpu_hours": None if made.middle is None else made.middle.gpu_hours,
            "first_seed_complete_seconds": made.first_seed_s,
            "left_out_trials": None if made.middle is None else len(made.middle.skipped),
            "left_out_seeds": None if made.middle is None else list(made.skipped_seeds),
            "left_out_reason": None if made.middle is None else made.middle.reason,
        }


def make_plan(sweep: Sweep, *, results_root: str | Path, num_slots: int | None = None) -> Plan:
    """Plan a sweep.

    The forecast is a simulation of the run. It rests on trials that have been measured: this sweep's own, and those of
    other sweeps under the same results folder that ran the same group; of these, what cannot be read is passed over,
    with a warning.

    Args:
        sweep: The sweep.
        results_root: Folder that holds one folder per sweep, a path or a URL.
        num_slots: Slots to forecast for; None = what this machine's cores allow.

    Raises:
        SpecsweepError: If a checkpoint cannot be used, or a data source needs a package that is not installed.
    """
    for part in sweep.parts:
        if isinstance(part, DataSource):
            part.check_installed()
    trials = expand(pin_checkpoints(sweep))
    view = sweep_view(results_root, sweep.name)
    history = _read_history(view)
    decided = _decided(sweep, trials, history)
    known = history.with_result | decided
    pending = start_order(sweep, (trial for trial in trials if trial.trial_id not in known))
    division = Division(to_train=tuple(pending))
    if view is not None and pending:
        with Ledger.read(view / LEDGER_NAME) as ledger:
            division = divide(pending, ledger.results(), weights=_weights_of(view, results_root, sweep.name))
    pending, _ = find_followers(trials, division.to_train, {record.trial.trial_id for record in history.done})
    groups = {trial.group_id for trial in trials}
    measured, others = list(history.done), OtherSweeps(results_root, sweep.name)
    if not groups <= {record.trial.group_id for record in measured}:
        ran = [records for other in others.found for group, records in other.by_group.items() if group in groups]
        measured += [record for records in ran for record in records if record.state is State.DONE]
    allocator = Allocator(sweep.file.resources, history.resource_floors)
    nodes: tuple[Node, ...] = ()
    in_vain = ""
    if num_slots is None:
        requests = [allocator.request_for(trial) for trial in pending or trials]
        gpus = visible_gpus()
        num_slots, nodes = _this_machine(requests, gpus)
        in_vain = gpus_in_vain(gpus, requests)
    return Plan(
        name=sweep.name,
        question=sweep.file.question,
        arms=_arms(trials, {trial.trial_id for trial in pending}, measured),
        num_groups=len(groups),
        num_trials=len(trials),
        seeds=sweep.seeds,
        forecast=forecast(
            pending,
            measured,
            allocator=allocator,
            num_slots=num_slots,
            nodes=nodes,
            limits=sweep.limits,
            conditions=Conditions(failure_rate=history.failure_rate, checkpoint_every_s=sweep.file.checkpoint_every_s),
            gpu_hours_used=history.gpu_hours,
            complete_seeds=sorted(set(sweep.seeds) - {trial.seed for trial in pending}),
        ),
        gpus_in_vain=in_vain,
        num_evaluated=len(division.to_evaluate),
        num_taken=len(division.complete),
        num_without_weights=len(division.without_weights),
        expected_trials=expected_trials(sweep, trials),
        memory=_memory(trials, allocator),
        power=measure_power(sweep, trials, results_root=results_root, others=others),
    )


def _decided(sweep: Sweep, trials: Sequence[Trial], history: _History) -> frozenset[str]:
    """Return the ids of trials that a sweep whose seeds grow does not need any more, as its ledger stands."""
    if sweep.growth is None or not history.done:
        return frozenset()
    from orchestrator.reports.comparisons import Claims  # not at the top: they import NumPy
    from orchestrator.reports.growth import stage_of

    metrics = [metric.name for probe in sweep.file.probes for metric in probe.metrics]
    primary = Claims(sweep.file.primary_metric or sweep.file.pruning.metric or "").primary_of(metrics)
    of_ledger = {record.trial.trial_id: record for record in history.records}
    records = [of_ledger.get(trial.trial_id, TrialRecord(trial, State.WAITING)) for trial in trials]
    return stage_of(records, sweep.growth, primary, sweep.file.smallest_effect.get(primary)).not_needed


def _memory(trials: Sequence[Trial], allocator: Allocator) -> tuple[PlannedMemory, ...]:
    """Compute what trials take, scale by scale; those of an arm differ by their seeds alone."""
    of_scale: dict[str, list[Footprint]] = {}
    reserved: dict[str, float] = {}

    counted: dict[object, Counts | None] = {}

    def counting(source: DataSource) -> Counts | None:
        # Arms have the same images, and so have groups that differ in their size alone.
        about = (type(source), *(getattr(source, each.name) for each in fields(source) if each.name not in _SIZES))
        if about not in counted:
            counted[about] = source.count_images()
        return counted[about]

    for trial in {trial.arm_id: trial for trial in trials}.values():
        scale, share = trial.config.model.scale, allocator.request_for(trial)
        reserved[scale] = share.memory_gib
        of_scale.setdefault(scale, []).append(
            footprint(
                allocator.config_of(trial),
                num_parameters=trial.num_parameters,
                processes=share.processes,
                gpus=share.gpus,
                counting=counting,
            )
        )
    return tuple(
        PlannedMemory(
            scale=scale,
            gpu_gib=_most_gib(found.gpu for found in of_arms),
            machine_gib=_most_gib(found.machine for found in of_arms),
            features_gib=_most_gib(found.features for found in of_arms),
            reserved_gib=reserved[scale],
        )
        for scale, of_arms in of_scale.items()
    )


def _most_gib(sizes: Iterable[int | None]) -> float | None:
    """Return the largest of what is known, in GiB."""
    known = [size for size in sizes if size is not None]
    return max(known) / GIB if known else None


def _arms(
    trials: Sequence[Trial], pending: set[str], measured: Sequence[TrialRecord]
) -> tuple[PlannedArm, ...]:
    durations = TrialDurations(measured)
    by_arm: dict[str, list[Trial]] = {}
    for trial in trials:
        by_arm.setdefault(trial.arm_id, []).append(trial)
    groups: dict[str, int] = {}
    for trial in trials:
        groups.setdefault(trial.group_id, len(groups))
    ordered = sorted(by_arm.values(), key=lambda t: (groups[t[0].group_id], t[0].role.rank))
    return tuple(
        PlannedArm(
            group=first.group,
            arm=first.arm,
            specialize=first.config.treatment.specialize,
            role=first.role,
            num_parameters=first.num_parameters,
            extra_parameters_percent=first.extra_parameters_percent,
            num_trials=len(of_arm),
            num_pending=sum(trial.trial_id in pending for trial in of_arm),
            seconds_per_trial=durations.estimate(first.group_id, first.role, first.arm_id),
        )
        for of_arm in ordered
        for first in of_arm[:1]
    )


def _this_machine(requests: Sequence[ResourceRequest], gpus: int) -> tuple[int, tuple[Node, ...]]:
    """Return how many trials run at once here, those of the first kind, and this machine by its cores and GPUs.

    Where it has no GPU, trials that take some are taken to have them all the same.
    """
    cores = [share.cpus * share.processes for share in requests]
    num_cores = float(usable_cores())
    # A trial that wants more than there is is taken to run all the same, by itself.
    has = {"CPU": max(num_cores, *cores)}
    slots = math.floor(num_cores / cores[0])
    if gpus:
        has["GPU"] = float(math.ceil(max(gpus, *(math.ceil(share.gpus) * share.processes for share in requests))))
        first = ResourceRequest(cpus=requests[0].cpus, gpus=requests[0].gpus, processes=requests[0].processes)
        slots = min(slots, count_slots([Node("", has)], first, max_slots=max(1, slots)))
    return max(1, slots), (Node("this machine", has),)


@dataclass(frozen=True)
class _History:
    """What a ledger tells of the runs so far."""

    records: tuple[TrialRecord, ...] = ()
    done: tuple[TrialRecord, ...] = ()
    with_result: frozenset[str] = frozenset()
    resource_floors: Mapping[str, ResourceFloor] = field(default_factory=dict)
    failure_rate: float = 0.0
    gpu_hours: float = 0.0


def _weights_of(view: Path, results_root: str | Path, name: str) -> Location:
    """Return where a sweep's weights are; behind a URL nobody looks which are still there."""
    if is_url(str(results_root)):
        return RemoteFolder(f"{results_root}/{name}") / FOLDER_NAME
    return folder_of_view(view) / FOLDER_NAME


def _read_history(view: Path | None) -> _History:
    if view is None:
        return _History()
    with Ledger.read(view / LEDGER_NAME) as ledger:
        records = tuple(ledger.records())
        return _History(
            records=records,
            done=tuple(record for record in records if record.state is State.DONE),
            with_result=ledger.with_result(),
            resource_floors=ledger.resource_floors(),
            failure_rate=ledger.failure_rate(),
            gpu_hours=ledger.gpu_hours(),
        )
