from __future__ import annotations

import gc
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from orchestrator.ledger.connection import connect_reader, connect_writer
from orchestrator.ledger.errors import LedgerError
from specvit.errors import SpecsweepError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite"


def _make(path: Path) -> None:
    connect_writer(path).close()


def test_writer_makes_the_file_and_its_folders_in_wal_mode(tmp_path: Path) -> None:
    path = tmp_path / "results" / "sweep" / "ledger.sqlite"
    _make(path)
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_new_ledger_comes_into_wal_mode_without_a_journal_that_a_killed_process_would_leave(path: Path) -> None:
    _make(path)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA journal_mode = DELETE").fetchone() == ("delete",)  # as it is when it is new
    longest = path.with_name("l" * (255 - len("-wal")))  # with "-journal" behind it, it is no name of a file
    path.rename(longest)
    with closing(connect_writer(longest)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_writer_waits_for_the_disk(path: Path) -> None:
    # 2 = FULL: in WAL mode neither the death of the process nor a power cut takes a transaction back.
    connection = connect_writer(path)
    assert connection.execute("PRAGMA synchronous").fetchone() == (2,)


@pytest.mark.parametrize("connect", [connect_reader, connect_writer])
def test_ledger_of_a_newer_schema_is_refused_naming_file_and_schema(path: Path, connect: object) -> None:
    _make(path)
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(LedgerError, match="schema 99, this specsweep reads schema 9") as caught:
        connect(path)  # type: ignore[operator]
    assert str(path) in str(caught.value)
    assert isinstance(caught.value, SpecsweepError)


@pytest.mark.parametrize("connect", [connect_reader, connect_writer])
def test_sqlite_file_of_another_program_is_refused_and_left_as_it_is(path: Path, connect: object) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE cookies (name TEXT)")
    before = path.read_bytes()
    with pytest.raises(LedgerError, match="not a ledger"):
        connect(path)  # type: ignore[operator]
    assert path.read_bytes() == before


@pytest.mark.parametrize("connect", [connect_reader, connect_writer])
def test_file_that_is_no_database_is_refused_naming_it(path: Path, connect: object) -> None:
    path.write_text("name: components\n" * 100)
    with pytest.raises(LedgerError, match=r"ledger\.sqlite"):
        connect(path)  # type: ignore[operator]


def test_ledger_with_overwritten_pages_is_refused_as_damaged(path: Path) -> None:
    connection = connect_writer(path)
    rows = [(str(number), "x" * 200) for number in range(500)]
    connection.executemany("INSERT INTO groups (group_id, data_fingerprint) VALUES (?, ?)", rows)
    connection.close()
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(size // 2)
        file.write(os.urandom(size // 4))
    with pytest.raises(LedgerError, match=r"ledger\.sqlite"):
        connect_writer(path)


def test_reader_without_a_file_says_so_and_makes_none(path: Path) -> None:
    with pytest.raises(LedgerError, match="no ledger"):
        connect_reader(path)
    assert not path.exists()


def test_reader_of_an_empty_file_says_so(path: Path) -> None:
    path.touch()
    with pytest.raises(LedgerError, match="empty"):
        connect_reader(path)


def test_writer_of_an_empty_file_makes_a_ledger_of_it(path: Path) -> None:
    path.touch()
    _make(path)
    connect_reader(path).close()


def test_reader_cannot_write(path: Path) -> None:
    _make(path)
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        connect_reader(path).execute("DELETE FROM trials")


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser can write to any folder")
def test_reader_works_in_a_folder_that_is_read_only(path: Path) -> None:
    _make(path)
    path.parent.chmod(0o555)
    try:
        assert connect_reader(path).execute("SELECT COUNT(*) FROM trials").fetchone()[0] == 0
    finally:
        path.parent.chmod(0o755)


@pytest.mark.parametrize("connect", [connect_reader, connect_writer])
@pytest.mark.parametrize("content", ["cut off", "no database", "of another program", "of a newer schema"])
def test_refused_file_is_not_held_open(path: Path, connect: object, content: str) -> None:
    _make(path)
    if content == "cut off":
        os.truncate(path, path.stat().st_size - 100)
    elif content == "no database":
        path.write_text("name: components\n" * 100)
    else:
        field = {"of another program": "application_id", "of a newer schema": "user_version"}[content]
        with closing(sqlite3.connect(path)) as connection:
            connection.execute(f"PRAGMA {field} = 99")
    gc.collect()
    gc.disable()
    try:
        with pytest.raises(LedgerError):
            connect(path)  # type: ignore[operator]
        assert not [link for link in _open_files() if link.startswith(str(path))]
    finally:
        gc.enable()


def _open_files() -> Iterator[str]:
    for number in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # the one through which the folder is listed
            yield str(number.readlink())
