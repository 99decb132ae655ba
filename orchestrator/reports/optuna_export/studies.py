"""A sweep as Optuna's studies, one for each group.

A study has one objective, since Optuna keeps intermediate values for such studies only. It is the metric asked for,
or the first one of the first rung probe, by which pruning judges unless the sweep file names another.

* Trials: one for each arm and seed. Floors are none, since they have no axes, and importances are of parameters that
  all trials share. They are user attributes of the study, ``floor:ARM``: ``mean``, ``std_over_seeds``, ``num_seeds``
  and ``by_seed`` of the metric, and ``no_value_because``. So are external backbones, ``external:ARM``.
* Value of a trial that is done: the mean of the final metric over all seeds of its arm, the same for each of them, so
  that the best trial is one of the best arm, not the luckiest seed. Its own value is ``metric:NAME``.
* State: done is COMPLETE, pruned PRUNED, failed FAIL, running RUNNING; a trial that waits or was left out is WAITING.
  Where not all seeds of an arm have a finite metric there is no mean, and those that are done are FAIL if another one
  failed or is done without, else PRUNED if one was pruned, else RUNNING; ``no_value_because`` says why. So the best arm
  is none whose bad seeds were pruned away.
* Value of PRUNED trials: the metric of their last rung that has a finite one.
* Parameters: one for each ablated axis; see ``orchestrator.reports.optuna_export.parameters``. All are categorical.
* Intermediate values: the metric at the rungs, by optimizer step, of the trial itself. Rungs score training images,
  final metrics the reported split: compare rungs with rungs.
* User attributes: ``trial_id``, ``label``, ``group``, ``arm``, ``seed``, ``role``, ``state``, ``attempts``,
  ``extra_parameters_percent``, ``seconds``, ``num_seeds`` and ``std_over_seeds`` of the value (the sample standard
  deviation), every final metric as ``metric:NAME``, and of failed and left out trials ``error``, ``cause``,
  ``left_out``. What is not finite is text there, ``"nan"``, ``"inf"``, ``"-inf"``.
* Times: of the newest attempt, from when a worker took it up.
"""

from __future__ import annotations

import math
import sqlite3
import warnings
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from orchestrator.ledger.attempts import select_configs, select_times
from orchestrator.ledger.reader import LedgerReader
from orchestrator.ledger.registration import SweepInfo
from orchestrator.reports.arm_value import ArmValue, arm_value
from orchestrator.reports.optuna_export.parameters import Choice, arm_parameters
from orchestrator.trials.records import State, TrialRecord
from specvit.errors import SpecsweepError
from specvit.probes import METRICS, PROBES

_MAX_NAME = 512
"""Characters that Optuna's tables have room for in a name."""
_STATES: Mapping[State, TrialState] = {
    State.DONE: TrialState.COMPLETE,
    State.PRUNED: TrialState.PRUNED,
    State.FAILED: TrialState.FAIL,
    State.PENDING: TrialState.WAITING,
    State.RUNNING: TrialState.RUNNING,
    State.WAITING: TrialState.WAITING,
    State.SKIPPED: TrialState.WAITING,
}
_OWN_TABLES = {"studies", "trials", "trial_values", "version_info"}


@dataclass(frozen=True)
class GroupStudy:
    """A group as a study of Optuna's.

    Attributes:
        name: The sweep and the group.
        metric: Name of the objective.
        attributes: The study's user attributes.
        trials: In the order of the sweep, without controls and floors.
    """

    name: str
    metric: str
    attributes: Mapping[str, Any]
    trials: tuple[FrozenTrial, ...]


def check_target(path: Path, *, force: bool) -> None:
    """Refuse to write over a file that is there, unless it is one of Optuna's and ``force`` is given.

    Raises:
        SpecsweepError: If ``path`` must not be written.
    """
    if not path.parent.is_dir():
        raise SpecsweepError(f"{path}: there is no folder {path.parent}")
    if not path.exists():
        return
    if not path.is_file() or not _is_optunas(path):
        raise SpecsweepError(f"{path}: is there already, and is no file of Optuna's; give another name")
    if not force:
        raise SpecsweepError(f"{path}: is there already; --force replaces it")


def read_studies(ledger: LedgerReader, *, metric: str | None = None) -> tuple[GroupStudy, ...]:
    """Return the studies of a sweep.

    Args:
        ledger: Its ledger.
        metric: Name of the objective; None = the first metric of the first rung probe, or else of the sweep.

    Returns:
        A study for each group, in the order of the sweep.

    Raises:
        SpecsweepError: If the sweep has no such metric, or none at all.
    """
    info, records = ledger.sweep(), ledger.records()
    with ledger.snapshot(reads_logs=False) as connection:
        configs, times = select_configs(connection), select_times(connection)
    return make_studies(info, records, configs=configs, times=times, metric=metric)


def write_studies(path: Path, studies: Sequence[GroupStudy]) -> None:
    """Write studies into a new SQLite file of Optuna's, for ``optuna.load_study`` and ``optuna-dashboard``.

    Args:
        path: The file; nothing is there yet.
        studies: What to write.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what is experimental
        # A file that is not done yet needs no protection against a power cut, which would take most of the time.
        # The connection is made here also since a path may hold characters that mean something in a URL.
        storage = optuna.storages.RDBStorage(
            "sqlite:///export", engine_kwargs={"creator": lambda: _connect_unprotected(path)}
        )
        try:
            for group in studies:
                is_up = METRICS[group.metric].higher_is_better
                study = optuna.create_study(
                    storage=storage, study_name=group.name, direction="maximize" if is_up else "minimize"
                )
                study.set_metric_names([group.metric])
                for key, value in group.attributes.items():
                    study.set_user_attr(key, value)
                study.add_trials(group.trials)
        finally:
            storage.remove_session()
            storage.engine.dispose()


def make_studies(
    info: SweepInfo,
    records: Sequence[TrialRecord],
    *,
    configs: Mapping[str, Mapping[str, Any]],
    times: Mapping[str, tuple[str, str | None]],
    metric: str | None = None,
) -> tuple[GroupStudy, ...]:
    """Return the studies of a sweep from what was read of it.

    Args:
        info: The sweep.
        records: Its trials, in its order, with their rungs.
        configs: Trial id to its configuration, as JSON.
        times: Trial id to when its newest attempt began and ended; ISO times in UTC.
        metric: Name of the objective, as of ``read_studies``.

    Raises:
        SpecsweepError: If the sweep has no such metric, or none at all.
    """
    objective = _objective(info, records, configs, metric)
    groups: dict[str, list[TrialRecord]] = {}
    for record in records:
        groups.setdefault(record.trial.group_id, []).append(record)
    return tuple(
        _study(info, group, objective=objective, configs=configs, times=times) for group in groups.values()
    )


def _objective(
    info: SweepInfo, records: Sequence[TrialRecord], configs: Mapping[str, Mapping[str, Any]], asked: str | None
) -> str:
    reported = {name for record in records for report in record.reports for name in report.metrics}
    # Only of what probes report is it known which way is up.
    known = [name for name in (*info.metrics, *sorted(reported - set(info.metrics))) if name in METRICS]
    if asked is not None:
        if asked not in known:
            raise SpecsweepError(
                f"--metric: no probe of this sweep reports {asked!r}; they report {', '.join(known) or 'nothing'}"
            )
        return asked
    of_rungs = [config.get("rungs", {}).get("probes", ()) for config in configs.values()]
    probes = [name for names in of_rungs for name in names if name in PROBES]
    names = [metric.name for name in probes[:1] for metric in PROBES[name].metrics]
    chosen = next((name for name in (*names, *known) if name in known), None)
    if chosen is None:
        raise SpecsweepError(f"{info.name}: the sweep has no metric that could be the value of Optuna's studies")
    return chosen


def _study(
    info: SweepInfo,
    records: Sequence[TrialRecord],
    *,
    objective: str,
    configs: Mapping[str, Mapping[str, Any]],
    times: Mapping[str, tuple[str, str | None]],
) -> GroupStudy:
    group, group_id = records[0].trial.group, records[0].trial.group_id
    arms: dict[str, list[TrialRecord]] = {}
    for record in records:
        arms.setdefault(record.trial.arm_id, []).append(record)
    values = {arm: arm_value(own, objective) for arm, own in arms.items()}
    trained = {arm: own[0].trial for arm, own in arms.items() if own[0].trial.role.is_ablated}
    rows = arm_parameters([(trial, configs.get(trial.trial_id, {})) for trial in trained.values()])
    params = dict(zip(trained, rows, strict=True))
    names = rows[0] if rows else ()
    distributions: dict[str, BaseDistribution] = {
        name: CategoricalDistribution(tuple(dict.fromkeys(row[name] for row in rows))) for name in names
    }
    attributes: dict[str, Any] = {
        "sweep": info.name, "question": info.question, "group": group, "group_id": group_id, "metric": objective
    }
    for arm, own in arms.items():
        if arm not in trained:
            attributes[f"{own[0].trial.role}:{own[0].trial.arm}"[:_MAX_NAME]] = _untrained_attribute(values[arm])
    return GroupStudy(
        name=_study_name(info.name, group, group_id),
        metric=objective,
        attributes=attributes,
        trials=tuple(
            _trial(
                record,
                values[record.trial.arm_id],
                params[record.trial.arm_id],
                distributions,
                objective,
                times.get(record.trial.trial_id),
            )
            for record in records
            if record.trial.arm_id in trained
        ),
    )


def _study_name(sweep: str, group: str, group_id: str) -> str:
    name = f"{sweep}: {group}" if group else sweep
    return name if len(name) <= _MAX_NAME else f"{name[: _MAX_NAME - 20]}... {group_id[:12]}"


def _trial(
    record: TrialRecord,
    of_arm: ArmValue,
    params: dict[str, Choice],
    distributions: dict[str, BaseDistribution],
    objective: str,
    times: tuple[str, str | None] | None,
) -> FrozenTrial:
    is_done = record.state is State.DONE
    state = _STATES[of_arm.state if is_done else record.state]
    rungs = {report.step: report.metrics[objective] for report in record.reports if objective in report.metrics}
    attributes = _attributes(record) | (_value_attributes(of_arm) if is_done else {})
    value = None
    if state is TrialState.COMPLETE:
        value = of_arm.mean
    elif state is TrialState.PRUNED:
        value = next((rungs[step] for step in sorted(rungs, reverse=True) if math.isfinite(rungs[step])), None)
    trial = create_trial(
        state=state,
        value=value,
        params=params,
        distributions=distributions,
        user_attrs=attributes,
        intermediate_values=rungs,
    )
    began, ended = times or (None, None)
    if began and state is not TrialState.WAITING:
        trial.datetime_start = _local_time(began)
    if ended and state.is_finished():
        trial.datetime_complete = _local_time(ended)
    return trial


def _local_time(text: str) -> datetime:
    """Return a time as Optuna keeps it: of this machine's zone, without saying so."""
    return datetime.fromisoformat(text).astimezone().replace(tzinfo=None)


def _attributes(record: TrialRecord) -> dict[str, Any]:
    known = {
        "trial_id": record.trial.trial_id,
        "label": record.trial.label,
        "group": record.trial.group,
        "arm": record.trial.arm,
        "seed": record.trial.seed,
        "role": str(record.trial.role),
        "state": str(record.state),
        "attempts": record.num_attempts,
        "extra_parameters_percent": record.trial.extra_parameters_percent,
        "seconds": record.seconds,
        "error": record.error,
        "cause": None if record.cause is None else str(record.cause),
        "left_out": record.skip_reason,
    }
    return _as_json(known | {f"metric:{name}": value for name, value in record.metrics.items()})


def _value_attributes(value: ArmValue) -> dict[str, Any]:
    num_seeds = None if value.mean is None else len(value.by_seed)
    return _as_json({"num_seeds": num_seeds, "std_over_seeds": value.std_over_seeds, "no_value_because": value.missing})


def _untrained_attribute(value: ArmValue) -> dict[str, Any]:
    by_seed = {str(seed): own for seed, own in value.by_seed.items()}
    return _as_json({"mean": value.mean}) | _value_attributes(value) | {"by_seed": _as_json(by_seed)}


def _as_json(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return what JSON can hold: without None, and what is not finite as text."""
    return {
        name: str(value) if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in values.items()
        if value is not None
    }


def _connect_unprotected(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, check_same_thread=False)
    connection.execute("PRAGMA synchronous = OFF")
    connection.execute("PRAGMA journal_mode = MEMORY")
    return connection


def _is_optunas(path: Path) -> bool:
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as connection:
            names = {row[0] for row in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    except sqlite3.Error:
        return False
    return names >= _OWN_TABLES
