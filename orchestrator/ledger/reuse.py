"""Results that are given up for others, and results that hold for several trials. Inside the caller's transaction."""

from __future__ import annotations

import math
import sqlite3
from collections import defaultdict
from collections.abc import Iterable

from orchestrator.ledger.encoding import decode_config, decode_cost, decode_metrics, decode_weights
from orchestrator.ledger.schema import COST_COLUMNS
from orchestrator.trials.stored import StoredResult, read_config
from specvit.diagnostics.measurement import Measurement

_COPY = """
INSERT INTO attempts (trial_id, attempt, run, state, worker, device, submitted_at, started_at, ended_at,
                      steps, step, images_per_s, metrics, seconds, core_seconds, share,
                      training_s, training_images_per_s, peak_memory_gib, peak_gpu_memory_gib, weights)
SELECT :target, COALESCE((SELECT MAX(b.attempt) FROM attempts AS b WHERE b.trial_id = :target), 0) + 1,
       a.run, a.state, a.worker || ' for ' || t.label, a.device, :now, :now, :now,
       a.steps, a.step, a.images_per_s, a.metrics, a.seconds, a.core_seconds, a.share,
       a.training_s, a.training_images_per_s, a.peak_memory_gib, a.peak_gpu_memory_gib, a.weights
FROM newest_attempts AS a JOIN trials AS t USING (trial_id)
WHERE a.trial_id = :source AND a.state = 'done' AND NOT EXISTS (
    SELECT 1 FROM newest_attempts AS b WHERE b.trial_id = :target AND b.state IN ('running', 'done', 'pruned'))
"""
_COPY_DIAGNOSTICS = """
INSERT INTO diagnostics (trial_id, attempt, block, site, quantity, value)
SELECT b.trial_id, b.attempt, d.block, d.site, d.quantity, d.value
FROM newest_attempts AS a JOIN diagnostics AS d USING (trial_id, attempt), newest_attempts AS b
WHERE a.trial_id = :source AND b.trial_id = :target
"""
_RESULTS = f"""
SELECT t.trial_id, t.label, t.config, g.data_fingerprint, a.metrics, a.weights,
       {", ".join(f"a.{column}" for column in COST_COLUMNS.values())}
FROM newest_attempts AS a JOIN trials AS t USING (trial_id) JOIN groups AS g USING (group_id)
WHERE a.state = 'done' ORDER BY a.ended_at, t.trial_id
"""
_DIAGNOSTICS = """
SELECT d.trial_id, d.block, d.site, d.quantity, d.value
FROM newest_attempts AS a JOIN diagnostics AS d USING (trial_id, attempt)
WHERE a.state = 'done' ORDER BY d.block, d.site, d.quantity
"""
_COPY_REPORTS = """
INSERT OR IGNORE INTO reports (trial_id, attempt, step, reported_at, metrics)
SELECT b.trial_id, b.attempt, r.step, r.reported_at, r.metrics
FROM attempts AS b JOIN newest_attempts AS a ON a.trial_id = b.trained_by
JOIN reports AS r ON r.trial_id = a.trial_id AND r.attempt = a.attempt
WHERE b.trial_id = ? AND b.attempt = ?
"""
_ADD_TIMES = """
UPDATE attempts SET
    seconds = seconds
        + COALESCE((SELECT a.seconds FROM newest_attempts AS a WHERE a.trial_id = attempts.trained_by), 0),
    core_seconds = core_seconds
        + COALESCE((SELECT a.core_seconds FROM newest_attempts AS a WHERE a.trial_id = attempts.trained_by), 0)
WHERE trial_id = ? AND attempt = ? AND trained_by IS NOT NULL
"""


def select_results(connection: sqlite3.Connection) -> list[StoredResult]:
    """Return what trials that are done ended with, also of those that are not in the sweep now, the oldest first.

    Those whose configurations are of a version that computes something else are left out.
    """
    measured: defaultdict[str, list[Measurement]] = defaultdict(list)
    for trial_id, block, site, quantity, value in connection.execute(_DIAGNOSTICS):
        measured[trial_id].append(Measurement(block, site, quantity, math.nan if value is None else value))
    found = []
    for row in connection.execute(_RESULTS):
        config = read_config(decode_config(row["config"]), row["trial_id"])
        fingerprints = tuple(row["data_fingerprint"].split("+"))
        if config is None or len(fingerprints) != len(config.sources):
            continue
        found.append(
            StoredResult(
                row["trial_id"], row["label"], config, fingerprints, decode_metrics(row["metrics"]),
                decode_cost(row), tuple(measured[row["trial_id"]]), decode_weights(row["weights"]),
            )
        )
    return found


def add_training(connection: sqlite3.Connection, trial_id: str, attempt: int) -> None:
    """Give an attempt that rests on another trial's training that one's rungs, and add its times to its own.

    Inside the caller's transaction; other attempts are left as they are.
    """
    connection.execute(_COPY_REPORTS, (trial_id, attempt))
    connection.execute(_ADD_TIMES, (trial_id, attempt))


def supersede_results(connection: sqlite3.Connection, trial_ids: Iterable[str]) -> int:
    """Have trials that are done wait again; what they ended with stays, as that of an older attempt.

    Returns:
        The number of those that were done.
    """
    query = "UPDATE attempts SET state = 'superseded' WHERE trial_id = ? AND state = 'done'"
    return sum(connection.execute(query, (trial_id,)).rowcount for trial_id in trial_ids)


def copy_result(connection: sqlite3.Connection, source: str, target: str, *, now: str) -> bool:
    """Give a trial the result of another one that computes the same; it costs nothing.

    Returns:
        Whether that was possible: ``source`` is done, ``target`` waits or has failed.
    """
    values = {"source": source, "target": target, "now": now}
    if connection.execute(_COPY, values).rowcount != 1:
        return False
    connection.execute(_COPY_DIAGNOSTICS, values)
    return True
