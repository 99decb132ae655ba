"""Ledgers that are deleted, moved, replaced, locked or have no room while their writer runs.

SPECSWEEP_FAULTS=long (``make faults``) deletes one under a whole command too, where the tests of every day replace it.
"""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from orchestrator.cli.app import EXIT_STOPPED
from orchestrator.ledger.errors import LedgerError, LedgerWriteError
from orchestrator.ledger.ledger import Ledger
from orchestrator.trials.events import Finished, Progressed

from ..waiting import wait_for, wait_for_end
from .harness.ledger_history import INFO, LOG_NAME, NAME, PROVENANCE, TRIALS, content_of

PROGRAM = Path(sys.executable).with_name("specsweep")
SWEEP = {
    "question": "Does it stop?",
    "data": {"source": "scenes", "num_train": 32, "num_val": 16},
    "objective": {"recipe": "dinov2_cpu", "steps": 5000, "batch_size": 4},
    "probes": {"knn": {}},
    "rungs": {"count": 1000, "num_images": 16},
    "seeds": 1,
    "ablate": {"components": ["none", "norm"]},
    "floors": [],
}
A, B = TRIALS[0].trial_id, TRIALS[1].trial_id


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / NAME


@pytest.fixture
def ledger(path: Path) -> Iterator[Ledger]:
    """Open a ledger with one finished trial, whose log is not folded in."""
    with Ledger.open(path) as ledger:
        ledger.register(INFO, TRIALS, PROVENANCE)
        ledger.record(Finished(A, ledger.begin_attempt(A), {"knn_top1": 50.5}, 1.0, 1.0))
        yield ledger


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """Return the file of another ledger, closed."""
    path = tmp_path / "other" / NAME
    with Ledger.open(path) as ledger:
        ledger.register(INFO, TRIALS[:1], PROVENANCE)
    return path


def test_ledger_that_was_deleted_stops_its_writer(ledger: Ledger, path: Path) -> None:
    path.unlink()
    with pytest.raises(LedgerWriteError, match="was deleted or moved while the sweep was running") as caught:
        ledger.begin_attempt(B)
    assert str(path) in str(caught.value)
    ledger.close()
    assert not path.exists()


def test_ledger_that_was_replaced_stops_its_writer_and_the_other_is_left_alone(
    ledger: Ledger, path: Path, other: Path
) -> None:
    replacement = other.read_bytes()
    with Ledger.read(other) as reader:
        expected = content_of(reader)
    other.replace(path)
    with pytest.raises(LedgerWriteError, match="was replaced by another file"):
        ledger.begin_attempt(B)
    ledger.close()
    assert path.read_bytes() == replacement
    # The log of the one that is gone would be read into the one that is there now.
    for open_ledger in (Ledger.read, Ledger.open):
        with open_ledger(path) as opened:
            assert content_of(opened) == expected


def test_log_that_came_with_a_replacement_is_left_alone(ledger: Ledger, path: Path, tmp_path: Path) -> None:
    folder = tmp_path / "other"
    with Ledger.open(folder / NAME) as writer:
        writer.register(INFO, TRIALS[:2], PROVENANCE)
        for name in (NAME, LOG_NAME):
            (folder / f"copy of {name}").write_bytes((folder / name).read_bytes())
        expected = content_of(writer)
    for name in (NAME, LOG_NAME):
        (folder / f"copy of {name}").replace(path.with_name(name))
    log = path.with_name(LOG_NAME).read_bytes()
    with pytest.raises(LedgerWriteError, match="was replaced by another file"):
        ledger.begin_attempt(B)
    ledger.close()
    assert path.with_name(LOG_NAME).read_bytes() == log
    with Ledger.read(path) as opened:
        assert content_of(opened) == expected


def test_ledger_whose_log_was_deleted_stops_its_writer_and_keeps_all_that_was_recorded(
    ledger: Ledger, path: Path
) -> None:
    before = content_of(ledger)
    path.with_name(LOG_NAME).unlink()
    with pytest.raises(LedgerWriteError, match=f"{LOG_NAME}: was deleted"):
        ledger.begin_attempt(B)
    ledger.close()
    with Ledger.read(path) as reader:
        assert content_of(reader) == before


def test_ledger_that_is_replaced_in_the_middle_of_a_transaction_stops_its_writer(
    ledger: Ledger, path: Path, other: Path
) -> None:
    with pytest.raises(LedgerWriteError, match="was replaced"), ledger.transaction():  # noqa: PT012
        ledger.begin_attempt(B)
        other.replace(path)


def test_transaction_for_which_there_is_no_room_is_taken_back_and_those_before_stay(
    ledger: Ledger, path: Path
) -> None:
    before = content_of(ledger)
    (pages,) = ledger._connection.execute("PRAGMA page_count").fetchone()
    ledger._connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(LedgerWriteError, match="the disk is full; make room and run the same"), ledger.transaction():  # noqa: PT012
        ledger.record(Progressed(B, ledger.begin_attempt(B), 1, 20, 1.0))
        ledger.skip([TRIALS[2].trial_id], "x" * 5000)
    ledger.close()  # what is pending is not tried again: it would hide the error
    with Ledger.read(path) as reader:
        assert content_of(reader) == before


def test_ledger_that_another_program_keeps_locked_says_so(
    ledger: Ledger, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger._connection.execute("PRAGMA busy_timeout = 50")
    with closing(sqlite3.connect(path, isolation_level=None)) as locker:
        locker.execute("BEGIN IMMEDIATE")
        with pytest.raises(LedgerWriteError, match="another program keeps it locked"):
            ledger.begin_attempt(B)


def _delete(path: Path, _: Path) -> None:
    path.unlink()


def _replace(path: Path, other: Path) -> None:
    other.replace(path)


def _has_rungs(process: subprocess.Popen[str], path: Path) -> bool:
    assert process.poll() is None, process.communicate()
    try:
        with Ledger.read(path) as ledger:
            return any(record.reports for record in ledger.records())
    except LedgerError:
        return False  # not there yet


@pytest.mark.long
@pytest.mark.parametrize("happens", [_replace, _delete])
def test_command_whose_ledger_is_lost_stops_with_one_message(
    happens: Callable[[Path, Path], object], other: Path, tmp_path: Path
) -> None:
    sweep, path = tmp_path / "tiny.yaml", tmp_path / "tiny" / NAME
    sweep.write_text(json.dumps(SWEEP))
    replacement = other.read_bytes()
    command = [PROGRAM, "run", sweep, "--executor", "local", "--results", tmp_path]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        wait_for(lambda: _has_rungs(process, path), period_s=0.1)
        happens(path, other)
        out, message = wait_for_end(process)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == EXIT_STOPPED
    assert message.startswith(f"specsweep: {path}: was ")
    assert message.count("\n") == 1
    assert "Traceback" not in out
    assert not path.exists() or path.read_bytes() == replacement


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser can write to any file")
def test_ledger_that_is_read_only_cannot_be_written(path: Path) -> None:
    with Ledger.open(path) as ledger:
        ledger.register(INFO, TRIALS, PROVENANCE)
    path.chmod(0o444)
    with Ledger.open(path) as ledger, pytest.raises(LedgerWriteError, match="read-only"):
        ledger.begin_attempt(A)
