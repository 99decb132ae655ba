"""Results that are given up for others, and results that hold for several trials. Inside the caller's transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

_COPY = """
INSERT INTO attempts (trial_id, attempt, run, state, worker, device, submitted_at, started_at, ended_at,
                      steps, step, images_per_s, metrics, seconds, core_seconds, share,
                      training_s, training_images_per_s, peak_memory_gib, peak_gpu_memory_gib)
SELECT :target, COALESCE((SELECT MAX(b.attempt) FROM attempts AS b WHERE b.trial_id = :target), 0) + 1,
       a.run, a.state, a.worker || ' for ' || t.label, a.device, :now, :now, :now,
       a.steps, a.step, a.images_per_s, a.metrics, a.seconds, a.core_seconds, a.share,
       a.training_s, a.training_images_per_s, a.peak_memory_gib, a.peak_gpu_memory_gib
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
