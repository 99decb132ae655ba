"""A sweep as Optuna's studies, one for each group, as plain data; ``orchestrator.scheduling.pruning`` writes them.

A study has one objective, since Optuna keeps intermediate values for such studies only. It is the metric asked for,
or the first one of the first rung probe, by which pruning judges unless the sweep file names another.

* State: done is COMPLETE, pruned PRUNED, failed FAIL, running RUNNING; a trial that waits or was left out is WAITING.
  A trial that is done without the metric, or with one that is not finite, is FAIL, since Optuna refuses NaN and would
  take an infinity for the best; ``no_value_because`` says so.
* Value: the final metric; of a pruned trial the one of its last rung that has a finite one.
* Parameters: ``arm``, ``seed``, and, where they differ within the group, ``role`` and the fields of the trials'
  configurations, by their paths, e.g. ``treatment.specialize``. All are categorical; lists are JSON text.
* Intermediate values: the metric at the rungs, by optimizer step. Rungs score training images, final metrics the
  reported split: compare rungs with rungs.
* User attributes: ``trial_id``, ``label``, ``group``, ``role``, ``state``, ``attempts``,
  ``extra_parameters_percent``, ``seconds``, every final metric as ``metric:NAME``, and of failed and left out trials
  ``error``, ``cause``, ``left_out``. What is not finite is text there, ``"nan"``, ``"inf"``, ``"-inf"``.
* Times: of the newest attempt, from when a worker took it up.
"""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from orchestrator.ledger.encoding import decode_config
from orchestrator.ledger.registration import SweepInfo
from orchestrator.trials.records import State, TrialRecord
from specvit.errors import SpecsweepError
from specvit.probes import METRICS, PROBES

Choice = str | int | float | bool | None
OptunaState = Literal["COMPLETE", "PRUNED", "FAIL", "RUNNING", "WAITING"]

_MAX_NAME = 512
"""Characters that Optuna's tables have room for in a name."""
_STATES: Mapping[State, OptunaState] = {
    State.DONE: "COMPLETE",
    State.PRUNED: "PRUNED",
    State.FAILED: "FAIL",
    State.RUNNING: "RUNNING",
    State.WAITING: "WAITING",
    State.LEFT_OUT: "WAITING",
}
_OWN_TABLES = {"studies", "trials", "trial_values", "version_info"}


@dataclass(frozen=True)
class ExportedTrial:
    """Hold a trial as Optuna is told of it.

    Attributes:
        state: Name of Optuna's state.
        value: The objective, or None.
        params: Parameter to value.
        attributes: Of Optuna's user attributes; every value is JSON.
        intermediate_values: Optimizer step to the objective; may hold NaN and infinities.
        started_at: In UTC, or None for a trial that waits.
        ended_at: In UTC, or None for a trial that has not ended.
    """

    state: OptunaState
    value: float | None
    params: Mapping[str, Choice]
    attributes: Mapping[str, Any]
    intermediate_values: Mapping[int, float]
    started_at: datetime | None
    ended_at: datetime | None


@dataclass(frozen=True)
class ExportedStudy:
    """Hold a group as a study of Optuna's.

    Attributes:
        name: The sweep and the group.
        metric: Name of the objective.
        higher_is_better: Which way is up.
        choices: Parameter to the values that it takes.
        attributes: The study's user attributes.
        trials: In the order of the sweep.
    """

    name: str
    metric: str
    higher_is_better: bool
    choices: Mapping[str, tuple[Choice, ...]]
    attributes: Mapping[str, Any]
    trials: tuple[ExportedTrial, ...]


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


def read_studies(
    connection: sqlite3.Connection, info: SweepInfo, records: Sequence[TrialRecord], *, metric: str | None = None
) -> tuple[ExportedStudy, ...]:
    """Make the studies of a sweep.

    Args:
        connection: To its ledger, with rows by name, inside a transaction; for configurations and times.
        info: The sweep.
        records: Its trials, in its order, with their rungs.
        metric: Name of the objective; None = the first metric of the first rung probe, or else of the sweep.

    Returns:
        A study for each group, in the order of the sweep.

    Raises:
        SpecsweepError: If the sweep has no such metric, or none at all.
    """
    configs = {row[0]: decode_config(row[1]) for row in connection.execute("SELECT trial_id, config FROM trials")}
    query = "SELECT trial_id, COALESCE(started_at, submitted_at), ended_at FROM newest_attempts"
    times = {trial_id: (began, ended) for trial_id, began, ended in connection.execute(query)}
    return make_studies(info, records, configs=configs, times=times, metric=metric)


def make_studies(
    info: SweepInfo,
    records: Sequence[TrialRecord],
    *,
    configs: Mapping[str, Mapping[str, Any]],
    times: Mapping[str, tuple[str, str | None]],
    metric: str | None = None,
) -> tuple[ExportedStudy, ...]:
    """Make the studies of a sweep from what was read of it.

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
) -> ExportedStudy:
    group, group_id = records[0].trial.group, records[0].trial.group_id
    name = f"{info.name}: {group}" if group else info.name
    if len(name) > _MAX_NAME:
        name = f"{name[: _MAX_NAME - 20]}... {group_id[:12]}"
    params = _params(records, configs)
    choices = {key: tuple(dict.fromkeys(param[key] for param in params)) for key in params[0]}
    return ExportedStudy(
        name=name,
        metric=objective,
        higher_is_better=METRICS[objective].higher_is_better,
        choices=choices,
        attributes={
            "sweep": info.name, "question": info.question, "group": group, "group_id": group_id, "metric": objective
        },
        trials=tuple(
            _trial(record, param, objective, times.get(record.trial.trial_id))
            for record, param in zip(records, params, strict=True)
        ),
    )


def _trial(
    record: TrialRecord, params: Mapping[str, Choice], objective: str, times: tuple[str, str | None] | None
) -> ExportedTrial:
    state = _STATES[record.state]
    rungs = {report.step: report.metrics[objective] for report in record.reports if objective in report.metrics}
    attributes = _attributes(record)
    value = None
    if state == "COMPLETE":
        value = record.metrics.get(objective)
        if value is None or not math.isfinite(value):
            attributes["no_value_because"] = f"{objective} is {'missing' if value is None else value}"
            state, value = "FAIL", None
    elif state == "PRUNED":
        value = next((rungs[step] for step in sorted(rungs, reverse=True) if math.isfinite(rungs[step])), None)
    began, ended = times or (None, None)
    has_ended = state in ("COMPLETE", "PRUNED", "FAIL")
    return ExportedTrial(
        state=state,
        value=value,
        params=params,
        attributes=attributes,
        intermediate_values=rungs,
        started_at=datetime.fromisoformat(began) if began and state != "WAITING" else None,
        ended_at=datetime.fromisoformat(ended) if ended and has_ended else None,
    )


def _attributes(record: TrialRecord) -> dict[str, Any]:
    known = {
        "trial_id": record.trial.trial_id,
        "label": record.trial.label,
        "group": record.trial.group,
        "role": str(record.trial.role),
        "state": str(record.state),
        "attempts": record.num_attempts,
        "extra_parameters_percent": record.trial.extra_parameters_percent,
        "seconds": record.seconds,
        "error": record.error,
        "cause": None if record.cause is None else str(record.cause),
        "left_out": record.left_out,
    }
    attributes = known | {f"metric:{name}": value for name, value in record.metrics.items()}
    return {
        name: str(value) if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in attributes.items()
        if value is not None
    }


def _params(
    records: Sequence[TrialRecord], configs: Mapping[str, Mapping[str, Any]]
) -> list[dict[str, Choice]]:
    """Return the parameters of each trial, all with the same keys."""
    flat = [_leaves(configs.get(record.trial.trial_id, {})) for record in records]
    paths = dict.fromkeys(path for leaves in flat for path in leaves if path != "seed")
    columns: dict[str, list[Choice]] = {
        "arm": [record.trial.arm for record in records],
        "seed": [record.trial.seed for record in records],
    }
    varying: dict[str, list[Choice]] = {"role": [str(record.trial.role) for record in records]}
    varying |= {path[:_MAX_NAME]: _comparable([leaves.get(path) for leaves in flat]) for path in paths}
    columns |= {name: values for name, values in varying.items() if len(set(values)) > 1}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _leaves(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the values of a nested mapping by their paths: ``treatment.specialize``."""
    leaves: dict[str, Any] = {}
    for key, inner in value.items():
        leaves |= _leaves(inner, f"{prefix}{key}.") if isinstance(inner, Mapping) else {f"{prefix}{key}": inner}
    return leaves


def _comparable(values: Sequence[Any]) -> list[Any]:
    """Return values as choices of one kind: 1 and True, which are equal, and lists become JSON text."""
    kinds = {type(value) for value in values} - {type(None)}
    if kinds <= {str} or kinds <= {int} or kinds <= {float} or kinds <= {bool}:
        return list(values)
    return [None if value is None else json.dumps(value) for value in values]


def _is_optunas(path: Path) -> bool:
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as connection:
            names = {row[0] for row in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    except sqlite3.Error:
        return False
    return names >= _OWN_TABLES
