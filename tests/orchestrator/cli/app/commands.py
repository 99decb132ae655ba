"""Commands in processes of their own, how they ended, and what they left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from orchestrator.ledger.errors import LedgerError
from orchestrator.ledger.ledger import Ledger
from orchestrator.run import LEDGER_NAME
from orchestrator.trials.records import State, TrialRecord
from orchestrator.trials.trial import Role

from ....measured_columns import MEASURED
from ....waiting import run_to_end, wait_for

PROGRAM = str(Path(sys.executable).with_name("specsweep"))
REPOSITORY = Path(__file__).parents[4]


@dataclass(frozen=True)
class Ended:
    """Hold how a command ended and what it printed."""

    code: int
    out: str
    err: str


def environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in ("FORCE_COLOR", "COLUMNS")}
    return kept | {"PYTHONPATH": os.pathsep.join([str(REPOSITORY), kept.get("PYTHONPATH", "")])}


def in_a_process(folder: Path, *command: str) -> Ended:
    """Run a command as a user does, its output going into pipes."""
    done = run_to_end(command, cwd=folder, env=environment())
    return Ended(done.returncode, done.stdout, done.stderr)


@contextmanager
def started(folder: Path, *command: str, runs: Role) -> Iterator[subprocess.Popen[str]]:
    """Start a run of ``tiny.yaml`` in ``folder``; give it when a trial is done and one of a role runs."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=folder, env=environment(), preexec_fn=_heed_signals, **pipes) as process:

        def is_under_way() -> bool:
            assert process.poll() is None, process.communicate()
            states = {(record.state, record.trial.role) for record in records_in(folder / "results" / "tiny")}
            return {(State.DONE, Role.BASELINE), (State.RUNNING, runs)} <= states

        try:
            wait_for(is_under_way)
            yield process
        finally:
            process.kill()


def _heed_signals() -> None:
    """Have a program heed signals that its parent ignores, as under nohup: it would inherit that."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


@dataclass(frozen=True)
class FinishedSweep:
    """Hold a sweep that one command has run to its end."""

    folder: Path
    file: Path
    ended: Ended

    @property
    def results(self) -> Path:
        return self.folder / "results"

    def table(self) -> pd.DataFrame:
        return read_table(self.results / "tiny")


def read_table(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "table.csv").drop(columns=MEASURED)


def records_in(folder: Path) -> tuple[TrialRecord, ...]:
    try:
        with Ledger.read(folder / LEDGER_NAME) as ledger:
            return ledger.records()
    except LedgerError:
        return ()


def ended_without_a_reader(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command whose output is a pipe that is closed at its other end."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        return subprocess.run(
            command, cwd=folder, env=environment(), stdout=writer, stderr=subprocess.PIPE, text=True, check=False
        )
    finally:
        os.close(writer)
