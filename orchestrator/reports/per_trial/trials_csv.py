"""``trials.csv``: a row a trial, with all that tables take of it; written from records, and read back as records.

A row has the group, arm, role, seed and state, then a column for each final metric, those of the table first, then
what the trial cost, where it was computed, why it failed or was pruned, what computed it, and addresses. ``weights``
is the file that probes looked at; ``added_later`` is a JSON list, ``versions`` and ``code`` are JSON objects, ``{}``
where it is not known. Not in it are tracebacks and logs, which say more of a machine than of a trial.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import PurePosixPath

from pydantic import TypeAdapter, ValidationError

from orchestrator.reports.per_trial.csv_rows import Row, read_rows, render_rows
from orchestrator.sweep.schema import MAX_TRIALS
from orchestrator.trials.computation import Computation
from orchestrator.trials.records import Cause, State, TrialRecord
from orchestrator.trials.trial import Role, TrialInfo
from specvit.kept_weights import WeightsFile
from specvit.training.cost import TrainingCost

CSV_NAME = "trials.csv"

_FIRST = ("group", "arm", "role", "seed", "state")
_COSTS = ("seconds", "core_seconds")
_TRAINING_COSTS = ("training_s", "training_images_per_s", "peak_memory_gib", "peak_gpu_memory_gib")
_COMPUTED = ("device", "attempts", "step", "steps", "weights", "weights_sha256", "trained_by", "added_later")
_WHY = ("cause", "reason")
_NAMES = ("label", "num_parameters", "extra_parameters_percent", "versions", "code")
_ADDRESSES = ("trial_id", "training_id", "arm_id", "group_id")
COLUMNS = (*_FIRST, *_COSTS, *_TRAINING_COSTS, *_COMPUTED, *_WHY, *_NAMES, *_ADDRESSES)
"""All columns but those of metrics, which stand behind ``state``."""

INTEGER_COLUMNS = ("seed", "attempts", "step", "steps", "num_parameters")
TEXT_COLUMNS = (
    *("group", "arm", "role", "state", "device", "weights", "weights_sha256", "trained_by", "added_later"),
    *(*_WHY, "label", "versions", "code", *_ADDRESSES),
)
"""Kinds of columns; all others hold numbers."""

METRIC_PREFIX = "metric:"
"""What a metric's column begins with if the metric's name alone would be taken for another column."""

_TEXTS = TypeAdapter(dict[str, str])
_LIST = TypeAdapter(tuple[str, ...])


def render_trials(
    records: Sequence[TrialRecord], metrics: Sequence[str], training_ids: Mapping[str, str] | None = None
) -> str:
    """Return the trials of a sweep as CSV.

    Args:
        records: All trials of the sweep, in its order.
        metrics: Names of the table's metrics, whose columns come first.
        training_ids: Trial id to what decides its backbone, from ``Ledger.training_ids``, as far as it is known.
    """
    header, rows = trial_rows(records, metrics, training_ids or {})
    return render_rows(header, rows)


def trial_rows(
    records: Sequence[TrialRecord], metrics: Sequence[str], training_ids: Mapping[str, str]
) -> tuple[list[str], list[list[object]]]:
    """Return the header and the rows, with None where a cell is empty; likewise."""
    names = metric_names(records, metrics)
    header = [*_FIRST, *map(column_of, names), *COLUMNS[len(_FIRST) :]]
    return header, [_cells(record, names, training_ids) for record in records]


def metric_names(records: Sequence[TrialRecord], metrics: Sequence[str]) -> list[str]:
    """Return the names of all final metrics: those of the table, then the others that a trial has."""
    others = ([name for name in record.metrics if name not in metrics] for record in records)
    return [*metrics, *order_metrics(others)]


def order_metrics(lists: Iterable[Iterable[str]]) -> list[str]:
    """Return all names, each once, in an order that is that of every list, as far as the lists agree.

    The order in which a trial has its metrics decides in which order tables speak of what it has not learnt.
    """
    names: list[str] = []
    for each in dict.fromkeys(map(tuple, lists)):
        place = 0
        for name in each:
            if name in names:
                place = max(place, names.index(name) + 1)
            else:
                names.insert(place, name)
                place += 1
    return names


def column_of(metric: str) -> str:
    """Return the column of a metric."""
    return f"{METRIC_PREFIX}{metric}" if metric in COLUMNS or metric.startswith(METRIC_PREFIX) else metric


def read_trials(content: bytes, name: str = CSV_NAME) -> tuple[tuple[TrialRecord, ...], dict[str, str]]:
    """Read what ``render_trials`` wrote, or a stranger.

    Args:
        content: The file's bytes.
        name: What messages call the file.

    Returns:
        The records, without tracebacks, rungs and files of weights that no probe looked at; and trial id to training
        id, as far as it is known.

    Raises:
        SpecsweepError: If a value is not what its column is for; the text names file, line, column, rule and value.
    """
    header, rows = read_rows(content, name, required=COLUMNS, most_rows=MAX_TRIALS)
    metrics = {column: column.removeprefix(METRIC_PREFIX) for column in header if column not in COLUMNS}
    records: dict[str, TrialRecord] = {}
    training_ids = {}
    for row in rows:
        record = _record(row, metrics)
        if record.trial.trial_id in records:
            row.refuse("trial_id", "another one than in the rows above")
        records[record.trial.trial_id] = record
        if training_id := row.text("training_id"):
            training_ids[record.trial.trial_id] = training_id
    return tuple(records.values()), training_ids


def _cells(record: TrialRecord, names: Sequence[str], training_ids: Mapping[str, str]) -> list[object]:
    trial, cost = record.trial, record.cost
    weights = next((file for file in record.weights if file.is_probed), None)
    return [
        *(trial.group, trial.arm, str(trial.role), trial.seed, str(record.state)),
        *(record.metrics.get(name) for name in names),
        *(record.seconds, record.core_seconds),
        *((None,) * 4 if cost is None else (cost.seconds, cost.images_per_s)),
        *(() if cost is None else (cost.peak_memory_gib, cost.peak_gpu_memory_gib)),
        *(record.computation.device, record.num_attempts, record.step, record.steps),
        *((None, None) if weights is None else (weights.path, weights.sha256)),
        *(record.trained_by, _json(sorted(record.added_later)) if record.added_later else None),
        *(record.cause and str(record.cause), record.skip_reason if record.state is State.SKIPPED else record.error),
        *(trial.label, trial.num_parameters, trial.extra_parameters_percent),
        *(_json(record.computation.versions), _json(record.computation.code)),
        *(trial.trial_id, training_ids.get(trial.trial_id), trial.arm_id, trial.group_id),
    ]


def _json(value: object) -> str:
    value = dict(value) if isinstance(value, Mapping) else value
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _record(row: Row, metrics: Mapping[str, str]) -> TrialRecord:
    state, reason = row.one_of("state", State), row.text("reason")
    trial = TrialInfo(
        **{name: row.text(name) for name in ("trial_id", "group_id", "arm_id", "group", "arm", "label")},
        role=row.one_of("role", Role),
        seed=row.integer("seed"),
        num_parameters=row.integer("num_parameters", least=0),
        extra_parameters_percent=row.number("extra_parameters_percent"),
    )
    is_skipped = state is State.SKIPPED
    return TrialRecord(
        trial,
        state,
        num_attempts=row.integer("attempts", least=0),
        metrics={name: row.any_number(column) for column, name in metrics.items() if row.text(column)},
        steps=row.integer("steps", least=0) if row.text("steps") else None,
        step=row.integer("step", least=0),
        seconds=row.number_or_none("seconds"),
        core_seconds=row.number_or_none("core_seconds"),
        cost=_cost(row),
        error=None if is_skipped else reason or None,
        skip_reason=reason if is_skipped else None,
        cause=row.one_of("cause", Cause) if row.text("cause") else None,
        computation=_computation(row),
        weights=_weights(row),
        trained_by=row.text_or_none("trained_by"),
        added_later=_added_later(row),
    )


def _cost(row: Row) -> TrainingCost | None:
    seconds, images_per_s, memory, gpu_memory = (row.number_or_none(column, least=0) for column in _TRAINING_COSTS)
    if seconds is None or images_per_s is None:
        return None
    return TrainingCost(seconds, images_per_s, memory, gpu_memory)


def _computation(row: Row) -> Computation:
    found = {}
    for column in ("code", "versions"):
        try:
            found[column] = _texts(row.text(column))
        except ValidationError:
            row.refuse(column, "a JSON object of texts")
    return Computation(found["code"], found["versions"], row.text("device"))


def _weights(row: Row) -> tuple[WeightsFile, ...]:
    path = row.text("weights")
    if not path:
        return ()
    place = PurePosixPath(path)
    if place.is_absolute() or ".." in place.parts or not place.parts:
        row.refuse("weights", "a path below the folder of weights")
    return (WeightsFile(path, row.text("weights_sha256"), is_probed=True),)


def _added_later(row: Row) -> frozenset[str]:
    if not row.text("added_later"):
        return frozenset()
    try:
        return frozenset(_LIST.validate_json(row.text("added_later"), strict=True))
    except ValidationError:
        row.refuse("added_later", "a JSON list of texts")


@lru_cache(maxsize=256)
def _texts(text: str) -> dict[str, str]:
    """Read a JSON object of texts; trials share a few."""
    return _TEXTS.validate_json(text, strict=True)
