"""A sweep's files without a ledger, as a stranger may have sent them: a table or one message, never a trace."""

from __future__ import annotations

import csv
import io
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.reports.per_trial.sweep_data import SweepData
from orchestrator.reports.result_files import table_texts
from specvit.errors import SpecsweepError

from ...long_run import IS_LONG
from .hostile_results import HOSTILE, Command

EXAMPLES = settings(max_examples=2_000 if IS_LONG else 40, deadline=None)
STUDY = Path(__file__).parents[3] / "results" / "studies" / "learning"
FILES = {name: (STUDY / name).read_bytes() for name in ("trials.csv", "sweep.json", "curves.csv")}
NUMBERS = ("1e308", "-1e308", "5e-324", "-0.0", "nan", "inf", "-inf", "1e999", "9" * 400, str(2**63 - 1), "-1", "0")
TEXTS = ("", HOSTILE, "none", "=1+1", "\r\n", '"', "{}", "[]", "[" * 2000, "baseline", "arm", "failed", "\x00", "../x")


@pytest.fixture
def study(tmp_path: Path) -> Path:
    return shutil.copytree(STUDY, tmp_path / "sent")


def change(text: bytes, line: int, column: int, value: str) -> bytes:
    """Return a CSV with another value in a cell, or in a whole column where ``line`` is 0."""
    rows = list(csv.reader(io.StringIO(text.decode(), newline="")))
    for row in rows[1:] if line == 0 else [rows[line % len(rows)]]:
        row[column % len(row)] = value
    changed = io.StringIO()
    csv.writer(changed, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows(rows)
    return changed.getvalue().encode()


def tabulate(files: dict[str, bytes]) -> str | None:
    """Make the tables of files; return the message where they are refused."""
    try:
        data = SweepData.of_files(files)
    except SpecsweepError as error:
        message = str(error)
    else:
        assert "table.md" in table_texts(data)
        return None
    assert message.isprintable()
    return message


@EXAMPLES
@given(
    st.lists(
        st.tuples(st.integers(0, 15), st.integers(0, 40), st.sampled_from((*NUMBERS, *TEXTS))), min_size=1, max_size=4
    )
)
def test_whatever_stands_in_a_cell_is_refused_or_makes_a_table(changes: list[tuple[int, int, str]]) -> None:
    trials = FILES["trials.csv"]
    for line, column, value in changes:
        trials = change(trials, line, column, value)
    refusal = tabulate(FILES | {"trials.csv": trials})
    assert refusal is None or refusal.startswith(("trials.csv:", "curves.csv:"))


@EXAMPLES
@given(st.sampled_from(sorted(FILES)), st.integers(0), st.binary(max_size=3), st.integers(0, 200))
def test_damaged_files_are_refused_or_make_a_table(name: str, place: int, added: bytes, removed: int) -> None:
    content = FILES[name]
    place %= len(content)
    tabulate(FILES | {name: content[:place] + added + content[place + removed :]})


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize("name", sorted(FILES))
@pytest.mark.parametrize("make", [_pipe, _endless])
def test_a_file_that_is_none_is_refused_and_nobody_waits_for_it(
    make: Callable[[Path], None], name: str, study: Path, command: Command
) -> None:
    (study / name).unlink()
    make(study / name)
    ended = command("table", study)
    assert ended.returncode == 2


def test_texts_of_a_study_are_harmless_on_a_terminal(study: Path, command: Command) -> None:
    (study / "trials.csv").write_bytes(change(FILES["trials.csv"], 0, 1, HOSTILE))
    (study / "curves.csv").unlink()
    ended = command("table", study)
    assert ended.returncode == 0
    assert "[red]x[/red]" in ended.stdout
    assert not set("\x1b\x9b\x07\u202e") & set(ended.stdout)
    (study / "trials.csv").write_bytes(change(FILES["trials.csv"], 1, 3, HOSTILE))
    ended = command("table", study)
    assert ended.returncode == 2
    assert "sent/trials.csv:2: seed: must be a whole number" in ended.stderr
    assert not set("\x1b\x9b\x07\u202e") & set(ended.stderr)
