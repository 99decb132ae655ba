"""The ablation tables: one row per arm, every metric as a mean and as a difference to the group's baseline.

Made from the ledger's records alone, at any time, also of an unfinished sweep. These are the numbers as values;
``cell_text`` makes them readable, ``result_files`` writes them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from orchestrator.ledger.registration import SweepInfo
from orchestrator.reports.comparisons import BASELINE, Claims, Difference, GroupComparison, compare_group, with_q_values
from orchestrator.reports.controls import with_controls
from orchestrator.reports.factorial import FactorialReading, read_factorials
from orchestrator.reports.growth import GroupGrowth
from orchestrator.reports.mixed import Mixture, find_mixture
from orchestrator.reports.skipped_images import SkippedImages, collect_skipped
from orchestrator.reports.unlearnt import UnlearntMetric, collect_unlearnt, count_unlearnt
from orchestrator.statistics import Comparison, mean, sample_sd
from orchestrator.sweep.declared.comparison import DEFAULT, ComparisonSettings
from orchestrator.trials.records import State, TrialRecord
from orchestrator.trials.trial import Role
from specvit.probes import METRICS
from specvit.training.learnt import is_learning_metric


@dataclass(frozen=True)
class MetricCell:
    """A metric of an arm.

    Attributes:
        mean: Over the trials that are done and have it; None if there are none.
        sd: Sample standard deviation over the same; None with fewer than two.
        n: Number of these trials.
        difference: To the baseline; None for the baseline itself, and for external backbones, which are not paired.
    """

    mean: float | None
    sd: float | None
    n: int
    difference: Difference | None


@dataclass(frozen=True)
class ArmRow:
    """An arm's row of a table.

    Attributes:
        arm: Human-readable text of the arm.
        role: What it is to its group.
        metrics: The table's metrics by name, in the order of their columns.
        extra_parameters_percent: Parameters of its backbone beyond the baseline's, in % of the baseline's.
        num_parameters: Parameters of its backbone.
        seeds: Trials planned.
        done: Trials of them that are done; the next four count the others.
        pruned: Likewise.
        failed: Likewise.
        unfinished: Likewise: they wait or run.
        left_out: Likewise: the budget has no room for them.
        seconds: Mean wall time of the trials that are done; None if there are none.
        core_seconds: Mean CPU time, likewise.
        training_s: Mean wall time of the training alone, over the trials of which it is known; None if there are none.
        training_images_per_s: Mean number of images that a second of it learnt from, likewise.
        peak_memory_gib: Mean of the most memory that the process held while it trained, likewise.
        peak_gpu_memory_gib: Mean of the most that torch had allocated on the GPU, likewise.
        not_learnt: Trials that are done but have not learnt what their recipe says (``specvit.training.learnt``); None
            if it was not recorded of any of them.
        mixed: In what its trials were computed otherwise than the baseline's of the same seeds; empty = in nothing.
        is_no_op: Whether it has the baseline's numbers to the last bit, or its weights: the arm changes nothing.
    """

    arm: str
    role: Role
    metrics: Mapping[str, MetricCell]
    extra_parameters_percent: float
    num_parameters: int
    seeds: int
    done: int
    pruned: int
    failed: int
    unfinished: int
    left_out: int
    seconds: float | None
    core_seconds: float | None
    training_s: float | None = None
    training_images_per_s: float | None = None
    peak_memory_gib: float | None = None
    peak_gpu_memory_gib: float | None = None
    not_learnt: int | None = None
    mixed: Mixture = field(default_factory=dict)
    is_no_op: bool = False


@dataclass(frozen=True)
class AblationTable:
    """The table of a group.

    Attributes:
        metrics: Names of the metrics that it shows, in the order of their columns.
        rows: The baseline first, the arms in the order of the sweep, controls, floors, external backbones last; also of
            arms of which no trial is done.
        failures: Label and error of every failed trial.
        left_out: The reasons for which trials were left out, each once.
        unlearnt: By what trials have not learnt.
        skipped: Bad images that trials have left out.
        added_later: Names of the metrics that some trial was asked for only after it was done.
        primary: Name of the metric whose verdicts are the table's claims; empty if there is none.
        smallest_effect: Smallest difference of interest in it; None if none is declared.
        comparisons: Metric to what was found of all arms together, where there is a baseline and an arm.
        compared: What that of the primary metric is of: text of the arm, of the baseline ``BASELINE``, to its value at
            each seed.
        factorials: What its components add on average, where its arms are all combinations of some.
        growth: Where the looks of a sweep stand whose seeds grow; None if they are fixed.
        rounding: Metric to the standard deviation, over seeds, of the differences of the control ``repeat``.
        declared: By which model and variance its arms are compared.
        family: All its rows in the order of the sweep, where ``rows`` are some of them or in another order; else empty.
        order: By what ``rows`` are sorted, human-readable; empty = as in the sweep.
    """

    metrics: tuple[str, ...]
    rows: tuple[ArmRow, ...]
    failures: tuple[tuple[str, str], ...]
    left_out: tuple[str, ...]
    unlearnt: tuple[UnlearntMetric, ...] = ()
    skipped: SkippedImages | None = None
    added_later: tuple[str, ...] = ()
    primary: str = ""
    smallest_effect: float | None = None
    comparisons: Mapping[str, Comparison] = field(default_factory=dict, compare=False)
    growth: GroupGrowth | None = None
    compared: Mapping[str, Mapping[int, float]] = field(default_factory=dict)
    factorials: tuple[FactorialReading, ...] = ()
    rounding: Mapping[str, float] = field(default_factory=dict)
    declared: ComparisonSettings = DEFAULT
    family: tuple[ArmRow, ...] = ()
    order: str = ""

    @property
    def every_row(self) -> tuple[ArmRow, ...]:
        """Return all rows of the group in the order of the sweep, also those that are not to be shown."""
        return self.family or self.rows


def build_tables(
    records: Sequence[TrialRecord], metrics: Sequence[str] = (), claims: Claims | None = None
) -> dict[str, AblationTable]:
    """Build the table of every group.

    Args:
        records: All trials of the sweep, in its order.
        metrics: Names of the metrics to show, in the order of their columns; none = those that a trial has, but for
            those that say what it has learnt.
        claims: What the sweep is judged by; None = the first dense metric, without a smallest effect.

    Returns:
        Text of the group to its table, in the order of the sweep.
    """
    groups: dict[str, list[TrialRecord]] = {}
    for record in records:
        groups.setdefault(record.trial.group, []).append(record)
    names = tuple(metrics) or measured_metrics(records)
    arms = {group: _by_arm(of_group) for group, of_group in groups.items()}
    claims = claims or Claims()
    found = {
        group: with_controls(compare_group(of_group, names, claims), of_group, claims)
        for group, of_group in arms.items()
    }
    compared = with_q_values(found)
    return {
        group: _table(groups[group], arms[group], names, compared[group], claims.comparison) for group in groups
    }


def tables_of(records: Sequence[TrialRecord], info: SweepInfo) -> dict[str, AblationTable]:
    """Build the tables of a sweep as its file says: its metrics, and what it is judged by."""
    return build_tables(records, info.metrics, Claims.of(info))


def measured_metrics(records: Iterable[TrialRecord]) -> tuple[str, ...]:
    """Return the names of the final metrics that some trial has: those of the probes first, then ``loss`` and the like.

    Terms of the loss and what else says what was learnt are no columns: an arm is not ablated by them.
    """
    found = {name for record in records for name in record.metrics if not is_learning_metric(name)}
    return (*(name for name in METRICS if name in found), *sorted(found - METRICS.keys()))


def _by_arm(records: Sequence[TrialRecord]) -> dict[str, list[TrialRecord]]:
    """Return the trials of a group by arm, in the order of the rows."""
    arms: dict[str, list[TrialRecord]] = {}
    for record in sorted(records, key=lambda record: record.trial.role.rank):
        arms.setdefault(record.trial.arm_id, []).append(record)
    return arms


def _table(
    records: Sequence[TrialRecord],
    arms: Mapping[str, Sequence[TrialRecord]],
    metrics: Sequence[str],
    compared: GroupComparison,
    declared: ComparisonSettings,
) -> AblationTable:
    baseline = [record for record in records if record.trial.role is Role.BASELINE]
    return AblationTable(
        metrics=tuple(metrics),
        rows=tuple(_row(arm, of_arm, baseline, metrics, compared) for arm, of_arm in arms.items()),
        failures=tuple((record.trial.label, record.error or "") for record in records if record.state is State.FAILED),
        left_out=tuple(dict.fromkeys(record.skip_reason for record in records if record.skip_reason is not None)),
        unlearnt=collect_unlearnt(records),
        skipped=collect_skipped(records),
        added_later=tuple(name for name in metrics if any(name in record.added_later for record in records)),
        primary=compared.primary,
        smallest_effect=compared.smallest_effect,
        comparisons=compared.by_metric,
        growth=compared.growth,
        compared={arms[arm][0].trial.arm if arm else BASELINE: of_arm for arm, of_arm in compared.judged.items()},
        factorials=read_factorials(arms, compared),
        rounding=compared.rounding,
        declared=declared,
    )


def _row(
    arm: str,
    records: Sequence[TrialRecord],
    baseline: Sequence[TrialRecord],
    metrics: Sequence[str],
    compared: GroupComparison,
) -> ArmRow:
    trial = records[0].trial
    states = [record.state for record in records]
    done = [record for record in records if record.state is State.DONE]
    costs = [record.cost for record in done if record.cost is not None]
    return ArmRow(
        arm=trial.arm,
        role=trial.role,
        metrics={name: _cell(records, name, compared.differences.get(name, {}).get(arm)) for name in metrics},
        is_no_op=arm in compared.no_ops,
        extra_parameters_percent=trial.extra_parameters_percent,
        num_parameters=trial.num_parameters,
        seeds=len(records),
        done=len(done),
        pruned=states.count(State.PRUNED),
        failed=states.count(State.FAILED),
        unfinished=sum(states.count(state) for state in (State.WAITING, State.PENDING, State.RUNNING)),
        left_out=states.count(State.SKIPPED),
        seconds=_known_mean(record.seconds for record in done),
        core_seconds=_known_mean(record.core_seconds for record in done),
        training_s=_known_mean(cost.seconds for cost in costs),
        training_images_per_s=_known_mean(cost.images_per_s for cost in costs),
        peak_memory_gib=_known_mean(cost.peak_memory_gib for cost in costs),
        peak_gpu_memory_gib=_known_mean(cost.peak_gpu_memory_gib for cost in costs),
        not_learnt=count_unlearnt(records),
        mixed=find_mixture(records, baseline) if trial.role.is_paired else {},
    )


def _known_mean(values: Iterable[float | None]) -> float | None:
    return mean([value for value in values if value is not None])


def _cell(records: Sequence[TrialRecord], metric: str, difference: Difference | None) -> MetricCell:
    measured = [record.metrics[metric] for record in records if record.state is State.DONE and metric in record.metrics]
    return MetricCell(mean(measured), sample_sd(measured), len(measured), difference)
