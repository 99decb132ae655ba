"""What happened in a sweep, as JSON lines for other tools: everything so far, and then what is new.

Every event is one JSON object on one line, in ASCII. All have these keys:

* ``kind``: see below.
* ``at``: when, as ISO 8601 in UTC; null for ``left_out``, of which no time is kept.
* ``trial_id``, ``label``, ``group``, ``arm``, ``role`` (``baseline``, ``arm``, ``control``, ``floor``, ``external``),
  ``seed``: the trial; null for ``registered``. ``group`` is empty if the sweep has one group only.
* ``attempt``: number of the attempt, from 1; null for ``registered`` and ``left_out``.

And keys of their own:

* ``registered``: a run of the driver began. ``sweep``, its name; ``run``, its number; ``trials``, how many trials
  the sweep has now.
* ``begun``: an attempt was handed to an executor, and is pending. ``share``, what it occupies; ``gpus``, its GPUs in
  all.
* ``started``: a worker took it up; it runs. ``worker``; ``device``, kind and name, or null.
* ``log``: its code logged or warned. ``number``, from 1 in each attempt; ``level``, as Python's logging names it;
  ``text``.
* ``rung``: it reported. ``step``; ``metrics``, by name.
* ``done``: ``metrics``; ``step``, the last one; ``seconds`` (wall time) and ``core_seconds``, with those of attempts it
  went on from; of the training alone ``training_s``, ``training_images_per_s``, ``peak_memory_gib`` and
  ``peak_gpu_memory_gib``, or null. Another attempt may follow, if the trial was done again.
* ``pruned``: ``step``, ``seconds``; ``why``, in one line, or null where older versions did not say.
* ``failed``: ``cause`` (``raised``, ``io``, ``device``, ``diverged``, ``invalid``, ``gpu_memory``, ``host_memory``,
  ``worker``, ``stalled``, ``node``, or null), ``error`` in one line, ``seconds``. The traceback: ``specsweep logs``.
* ``lost``: its driver ended before it did; the trial waits again. ``step``, the last one heard of.
* ``left_out``: the sweep's budget has no room for the trial, as things are now. ``reason``.

A metric that is not finite is the text ``"NaN"``, ``"Infinity"`` or ``"-Infinity"``, which JSON has no numbers for.

Events come by time; those of one trial come in causal order also where a clock went back. Trials that the sweep
file no longer has are not told of.
"""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from orchestrator.ledger.encoding import decode_metrics, decode_share
from orchestrator.ledger.schema import COST_COLUMNS

EventRow = dict[str, Any]
"""An event as it is written: key to value."""

_NOT_FINITE = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}
_TRIAL_KEYS = ("trial_id", "attempt", "label", "group", "arm", "role", "seed")
_TOLD = "t.position IS NOT NULL AND (a.rowid > :last OR a.rowid IN (SELECT value FROM json_each(:open)))"
_ATTEMPTS = f"""
SELECT a.rowid AS place, t.trial_id, a.attempt, t.label, t.group_name AS "group", t.arm, t.role, t.seed,
       a.state, a.submitted_at, a.started_at, a.ended_at, a.worker, a.device, a.share, a.gpus, a.step, a.metrics,
       a.seconds, a.core_seconds, a.error, a.cause, {", ".join(f"a.{column}" for column in COST_COLUMNS.values())}
FROM attempts AS a JOIN trials AS t USING (trial_id) WHERE {_TOLD} ORDER BY a.rowid
"""
_REPORTS = f"""
SELECT a.rowid AS place, r.step AS number, r.reported_at AS at, r.step, r.metrics
FROM attempts AS a JOIN trials AS t USING (trial_id) JOIN reports AS r USING (trial_id, attempt) WHERE {_TOLD}
"""
_LOGS = f"""
SELECT a.rowid AS place, l.position AS number, l.logged_at AS at, l.level, l.text
FROM attempts AS a JOIN trials AS t USING (trial_id) JOIN logs AS l USING (trial_id, attempt) WHERE {_TOLD}
"""
_RUNS = """
SELECT r.run, r.started_at, s.name, (SELECT COUNT(*) FROM trials WHERE position IS NOT NULL) AS trials
FROM runs AS r, sweep AS s WHERE r.run > ? ORDER BY r.run
"""
_LEFT_OUT = """
SELECT t.trial_id, t.label, t.group_name AS "group", t.arm, t.role, t.seed, o.reason
FROM skipped AS o JOIN trials AS t USING (trial_id) WHERE t.position IS NOT NULL ORDER BY t.position
"""


def encode(happening: EventRow) -> str:
    """Write an event as one line of JSON, without the line end."""
    return json.dumps(happening, allow_nan=False)


@dataclass
class _Open:
    """What was returned of an attempt that has not ended: kinds, rungs by step and log lines by position."""

    told: set[tuple[str, int]] = field(default_factory=set)


class EventReader:
    """Reader of the events of a ledger, each once.

    It remembers how far the runs and attempts were told, and the running attempts; nothing can be added to one that
    has ended, so that asking again costs what runs, not what there is.
    """

    def __init__(self, *, reads_logs: bool = True) -> None:
        """Begin before the first event.

        Args:
            reads_logs: Whether ``log`` events are among them, which are most of a ledger.
        """
        self._queries = {"rung": _REPORTS, **({"log": _LOGS} if reads_logs else {})}
        self._last_run = 0
        self._last_place = 0
        self._open: dict[int, _Open] = {}
        self._left_out: dict[str, str] = {}
        self._latest: dict[str, str] = {}

    def poll(self, connection: sqlite3.Connection) -> list[EventRow]:
        """Return the events that were not returned before, in order.

        Args:
            connection: To the ledger, with rows by name, inside a transaction (``Ledger.snapshot``).
        """
        timed = [*self._runs(connection), *self._attempts(connection)]
        # Stable: what happens at one time stays in causal order.
        timed.sort(key=lambda pair: pair[0])
        return [*(happening for _, happening in timed), *self._omissions(connection)]

    def _runs(self, connection: sqlite3.Connection) -> Iterator[tuple[str, EventRow]]:
        for run, at, name, trials in connection.execute(_RUNS, (self._last_run,)):
            self._last_run = run
            yield at, _happening("registered", at, {}, sweep=name, run=run, trials=trials)

    def _attempts(self, connection: sqlite3.Connection) -> Iterator[tuple[str, EventRow]]:
        which = {"last": self._last_place, "open": json.dumps(list(self._open))}
        between: dict[int, list[tuple[str, EventRow]]] = {}
        for kind, query in self._queries.items():
            for row in connection.execute(query, which):
                between.setdefault(row["place"], []).append((kind, dict(row)))
        for row in connection.execute(_ATTEMPTS, which).fetchall():
            self._last_place = max(self._last_place, row["place"])
            still = self._open.setdefault(row["place"], _Open())
            trial = {key: row[key] for key in _TRIAL_KEYS}
            for (kind, number), at, fields in _told_in_order(row, between.get(row["place"], ())):
                if (kind, number) in still.told:
                    continue
                still.told.add((kind, number))
                effective = max(at, self._latest.get(row["trial_id"], at))
                self._latest[row["trial_id"]] = effective
                yield effective, _happening(kind, at, trial, **fields)
            if row["state"] != "running":
                del self._open[row["place"]]

    def _omissions(self, connection: sqlite3.Connection) -> Iterator[EventRow]:
        before, self._left_out = self._left_out, {}
        for row in connection.execute(_LEFT_OUT):
            self._left_out[row["trial_id"]] = row["reason"]
            if before.get(row["trial_id"]) != row["reason"]:
                trial = {key: row[key] for key in _TRIAL_KEYS if key != "attempt"}
                yield _happening("left_out", None, trial, reason=row["reason"])


def _told_in_order(
    row: sqlite3.Row, between: Iterable[tuple[str, EventRow]]
) -> Iterator[tuple[tuple[str, int], str, EventRow]]:
    """Yield key, time and fields of all events of an attempt, in causal order."""
    yield ("begun", 0), row["submitted_at"], {"share": decode_share(row["share"]), "gpus": row["gpus"]}
    if row["started_at"] is not None:
        yield ("started", 0), row["started_at"], {"worker": row["worker"], "device": row["device"]}
    for kind, found in sorted(between, key=lambda pair: (pair[1]["at"], pair[1]["number"])):
        own = ("number", "level", "text") if kind == "log" else ("step", "metrics")
        fields = {key: found[key] for key in own}
        if kind == "rung":
            fields["metrics"] = _jsonable(decode_metrics(found["metrics"]))
        yield (kind, found["number"]), found["at"], fields
    if row["state"] != "running":
        end = "done" if row["state"] == "superseded" else row["state"]
        yield (end, 0), row["ended_at"], _end_fields(row, end)


def _end_fields(row: sqlite3.Row, end: str) -> EventRow:
    own = {
        "done": ("step", "seconds", "core_seconds", *COST_COLUMNS.values()),
        "pruned": ("step", "seconds"),
        "failed": ("cause", "error", "seconds"),
        "lost": ("step",),
    }[end]
    metrics = {"metrics": _jsonable(decode_metrics(row["metrics"]))} if end == "done" else {}
    why = {"why": row["error"]} if end == "pruned" else {}
    return metrics | {key: row[key] for key in own} | why


def _happening(kind: str, at: str | None, trial: Mapping[str, Any], **fields: Any) -> EventRow:
    return {"kind": kind, "at": at, **{key: trial.get(key) for key in _TRIAL_KEYS}, **fields}


def _jsonable(metrics: Mapping[str, float]) -> dict[str, float | str]:
    return {name: value if math.isfinite(value) else _NOT_FINITE[str(value)] for name, value in metrics.items()}

