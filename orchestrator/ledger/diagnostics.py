"""What diagnostics measured, in a ledger."""

from __future__ import annotations

import math
import sqlite3
from collections import defaultdict

from orchestrator.trials.events import Finished
from specvit.diagnostics.measurement import Measurement

_SELECT = """
SELECT d.trial_id, d.block, d.site, d.quantity, d.value
FROM diagnostics AS d JOIN newest_attempts AS a USING (trial_id, attempt) JOIN trials AS t USING (trial_id)
WHERE t.position IS NOT NULL AND a.state = 'done' ORDER BY t.position, d.block, d.site, d.quantity
"""


def insert_measurements(connection: sqlite3.Connection, event: Finished) -> None:
    """Record the readings of a trial that is done, inside the caller's transaction."""
    connection.executemany(
        "INSERT INTO diagnostics (trial_id, attempt, block, site, quantity, value) VALUES (?, ?, ?, ?, ?, ?)",
        [
            (event.trial_id, event.attempt, reading.block, reading.site, reading.quantity, reading.value)
            for reading in event.diagnostics
        ],
    )


def select_measurements(connection: sqlite3.Connection) -> dict[str, tuple[Measurement, ...]]:
    """Read what ``insert_measurements`` wrote of the sweep's trials."""
    found: defaultdict[str, list[Measurement]] = defaultdict(list)
    for trial_id, block, site, quantity, value in connection.execute(_SELECT):
        found[trial_id].append(Measurement(block, site, quantity, math.nan if value is None else value))
    return {trial_id: tuple(readings) for trial_id, readings in found.items()}
