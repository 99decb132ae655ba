"""Optuna's files: which may be written, and which are never replaced."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from orchestrator.reports.optuna_export.studies import check_target, write_studies
from orchestrator.trials.records import TrialRecord
from specvit.errors import SpecsweepError

from .studies import Make


def test_a_path_may_hold_what_means_something_in_a_url(make: Make, records: list[TrialRecord], tmp_path: Path) -> None:
    folder = tmp_path / "new"
    folder.mkdir()
    write_studies(folder / "a?b%20 c.db", make(records))
    assert [entry.name for entry in folder.iterdir()] == ["a?b%20 c.db"]


def test_a_new_name_and_with_force_a_file_of_optunas_may_be_written(
    make: Make, records: list[TrialRecord], tmp_path: Path
) -> None:
    path = tmp_path / "out.db"
    check_target(path, force=False)
    write_studies(path, make(records))
    check_target(path, force=True)
    with pytest.raises(SpecsweepError, match=r"out\.db: is there already; --force replaces it"):
        check_target(path, force=False)


@pytest.mark.parametrize("kind", ["text", "empty", "folder", "sqlite"])
def test_what_is_no_file_of_optunas_is_never_replaced(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "out.db"
    match kind:
        case "text":
            path.write_text("precious")
        case "empty":
            path.touch()
        case "folder":
            path.mkdir()
        case "sqlite":
            with sqlite3.connect(path) as connection:
                connection.execute("CREATE TABLE trials (x)")
    with pytest.raises(SpecsweepError, match="is no file of Optuna's"):
        check_target(path, force=True)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SpecsweepError, match=r"there is no folder .*absent"):
        check_target(tmp_path / "absent" / "out.db", force=False)
