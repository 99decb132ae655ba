"""Ledgers, and the files that SQLite keeps beside them, that are links, pipes or journals of another's making."""

from __future__ import annotations

import os
import sqlite3
import struct
from contextlib import closing
from pathlib import Path

import pytest

from .hostile_results import Command, look, run_sweep


@pytest.mark.parametrize("kind", ["", "-wal", "-shm", "-journal"])
@pytest.mark.parametrize("target", ["thesis.tex", "new.sqlite"])
def test_a_ledger_or_a_file_beside_it_that_is_a_link_is_not_written_to(
    kind: str, target: str, command: Command, results: Path, victims: Path
) -> None:
    path = results / f"ledger.sqlite{kind}"
    path.unlink(missing_ok=True)
    path.symlink_to(victims / target)
    assert run_sweep(command).returncode == 2
    for ended in look(command, results):
        assert ended.returncode == 2 or ended.args[0] == "plan"


@pytest.mark.parametrize("kind", ["", "-wal", "-shm", "-journal"])
def test_a_ledger_or_a_file_beside_it_that_is_a_pipe_is_refused_and_nobody_waits_for_it(
    kind: str, command: Command, results: Path
) -> None:
    path = results / f"ledger.sqlite{kind}"
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    assert run_sweep(command).returncode == 2
    assert command("status", results).returncode == 2


def hot_journal(super_journal: Path) -> bytes:
    """Make a rollback journal that is to be played back, and names a file to be deleted after that.

    Source: SQLite's file format, section 3, and ``pager.c``: readSuperJournal, pager_delsuper.
    """
    name = str(super_journal).encode()
    header = bytes.fromhex("d9d505f920a163d7") + struct.pack(">5I", 0, 7, 3, 512, 4096)
    lock_page = struct.pack(">I", (1 << 30) // 4096 + 1)
    trailer = name + struct.pack(">2I", len(name), sum(name)) + bytes.fromhex("d9d505f920a163d7")
    return header.ljust(512, b"\0") + lock_page + trailer


def test_sqlite_deletes_the_file_that_a_journal_names(tmp_path: Path) -> None:
    """What the next test's journal would do, where nobody looks out for it."""
    with closing(sqlite3.connect(tmp_path / "x.sqlite")) as connection:
        connection.execute("CREATE TABLE x (y)")
    (tmp_path / "victim").write_text("years of work")
    (tmp_path / "x.sqlite-journal").write_bytes(hot_journal(tmp_path / "victim"))
    with closing(sqlite3.connect(tmp_path / "x.sqlite")) as connection:
        connection.execute("SELECT * FROM sqlite_schema").fetchall()
    assert not (tmp_path / "victim").exists()


def test_a_rollback_journal_beside_a_ledger_is_not_played_back(
    command: Command, results: Path, victims: Path
) -> None:
    (results / "ledger.sqlite-journal").write_bytes(hot_journal(victims / "thesis.tex"))
    assert "-journal: is no file of a ledger" in run_sweep(command).stderr
    assert all(ended.returncode == 2 for ended in look(command, results) if ended.args[0] != "plan")
