"""A ledger with a history: its files, and what it held after every transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from orchestrator.ledger.errors import LedgerError
from orchestrator.ledger.ledger import Ledger
from orchestrator.ledger.provenance import Provenance
from orchestrator.ledger.registration import SweepInfo
from orchestrator.ledger.schema import PROTECTED_TABLES
from orchestrator.trials.events import Event, Failed, Finished, Logged, Pruned, Reported, Started
from orchestrator.trials.resources import ResourceFloor
from orchestrator.trials.trial import Role, Trial
from specvit.config import ModelSettings, RungSettings, Treatment, TrialConfig
from specvit.data import DATA_SOURCES
from specvit.diagnostics.measurement import Measurement
from specvit.recipes import RECIPES

NAME = "ledger.sqlite"
LOG_NAME = f"{NAME}-wal"

Content = tuple[object, ...]
"""All that a ledger says, in values that compare."""

INFO = SweepInfo("sweep", "Which?", "name: sweep\n", ("knn_top1", "miou"), (0, 1), {"group": "f00d"})
PROVENANCE = Provenance(
    started_at="2026-01-01T00:00:00+00:00", argv=("specsweep", "run"), host="node", git_sha="abc", git_dirty=False,
    versions={"python": "3.11"}, platform="Linux", cpu="cpu", num_cores=2, memory_gib=8.0, gpus=(),
)


def make_trial(seed: int) -> Trial:
    config = TrialConfig(
        treatment=Treatment(), model=ModelSettings(), data=DATA_SOURCES["scenes"](), objective=RECIPES["dinov2"](),
        probes=(), rungs=RungSettings(), seed=seed,
    )
    label = f"none seed {seed}"
    return Trial(f"{seed:064x}", "group", "arm", "", "none", Role.BASELINE, label, seed, 1000, 0.0, config)


TRIALS = tuple(make_trial(seed) for seed in range(6))


@dataclass(frozen=True)
class Files:
    """Hold the bytes of a ledger and of its log, and what the ledger held after every transaction."""

    ledger: bytes
    log: bytes
    states: tuple[Content, ...]

    def lay(self, folder: Path, *, ledger: bytes | None = None, log: bytes | None = None) -> Path:
        """Write the files into an empty folder, other bytes in their place where there are some."""
        for left in folder.iterdir():
            left.unlink()
        path = folder / NAME
        path.write_bytes(self.ledger if ledger is None else ledger)
        log = self.log if log is None else log
        if log:
            (folder / LOG_NAME).write_bytes(log)
        return path


def content_of(ledger: Ledger) -> Content:
    """Return what a ledger says, and every row of its tables."""
    said = ledger.records(), ledger.diagnostics(), ledger.resource_floors()
    with ledger.snapshot() as connection:  # which checks what a reader has not checked yet
        rows = [
            tuple(map(tuple, connection.execute(f"SELECT * FROM {table} ORDER BY 1, 2").fetchall()))
            for table in PROTECTED_TABLES
        ]
    registered = (ledger.sweep(), ledger.provenance()) if rows[0] else ()
    return (*said, *registered, *rows)


def open_both_ways(path: Path) -> Iterator[Content | LedgerError]:
    """Open a ledger for reading, then for writing; yield what it says, or the message with which it is refused."""
    for open_ledger in (Ledger.read, Ledger.open):
        try:
            with open_ledger(path) as ledger:
                yield content_of(ledger)
        except LedgerError as error:
            yield error


def _events(trial: Trial, attempt: int) -> list[Event]:
    key = (trial.trial_id, attempt)
    ends: list[Event] = [
        Finished(*key, {"knn_top1": 50.25 + trial.seed, "miou": 31.5}, 12.5, 11.0,
                 tuple(Measurement(block, "norm1.in", "cls_norm", block + 0.5) for block in range(4))),
        Failed(*key, "RuntimeError: boom", "Traceback ...\n", 3.0),
        Pruned(*key, 10, 2.0),
    ]
    return [
        Started(*key, "node:1"),
        Reported(*key, 5, {"knn_top1": 40.125 + trial.seed, "miou": 20.5}),
        Logged(*key, "WARNING", "the loss is high"),
        Reported(*key, 10, {"knn_top1": 45.75, "miou": 25.0625}),
        ends[(trial.seed % 4) // 2 * (trial.seed % 2 + 1)],
    ]


def make_files(folder: Path, *, checkpoint_after: int | None = None, close: bool = False) -> Files:
    """Write a ledger, transaction by transaction.

    Args:
        folder: Where.
        checkpoint_after: Fold the log into the ledger after that transaction (-1 = after the last); the log stays.
        close: Close the ledger, which leaves no log; otherwise the files are those of a ledger in use.
    """
    path = folder / NAME
    states: list[Content] = []
    ledger = Ledger.open(path)

    def note() -> None:
        with Ledger.read(path) as reader:
            states.append(content_of(reader))
        if len(states) == checkpoint_after:
            _checkpoint(path)

    note()
    for write in _history(ledger):
        write()
        note()
    if checkpoint_after == -1:
        _checkpoint(path)
    if close:
        ledger.close()
    log = folder / LOG_NAME
    files = Files(path.read_bytes(), log.read_bytes() if log.exists() else b"", tuple(states))
    ledger.close()
    return files


def _history(ledger: Ledger) -> Iterator[Callable[[], object]]:
    yield partial(ledger.register, INFO, TRIALS, PROVENANCE)
    for trial in TRIALS[:-1]:
        yield partial(ledger.begin_attempt, trial.trial_id)
        for event in _events(trial, 1):
            yield partial(ledger.record, event)
    yield partial(ledger.write_resource_floor, "nano", ResourceFloor(0.5, 2.0, 8))
    yield partial(ledger.skip, [TRIALS[-1].trial_id], "the budget is spent")


def _checkpoint(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        busy, in_log, folded = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    assert (busy, in_log) == (0, folded)
