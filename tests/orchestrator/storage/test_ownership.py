"""Two sweep files of one name: the second does not take the first one's place unless it is told to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.ledger.ledger import LEDGER_NAME, Ledger
from orchestrator.run import prepare_run
from orchestrator.sweep.loading import load_sweep
from orchestrator.sweep.resolved import Sweep
from specvit.errors import SpecsweepError

WriteSweep = Callable[..., Path]
Register = Callable[..., int]


@pytest.fixture
def register(tmp_path: Path) -> Register:
    """Prepare a run of a sweep in one and the same folder; return the number of its trials."""

    def prepare(sweep: Sweep, *, replace: bool = False) -> int:
        with prepare_run(sweep, tmp_path / "results", load_data=lambda _: {}, replace=replace) as run:
            return len(run.ledger.records())

    return prepare


@pytest.fixture
def first(write_sweep: WriteSweep, tmp_path: Path) -> Path:
    (tmp_path / "first").mkdir()
    return write_sweep(tmp_path / "first")


@pytest.fixture
def second(write_sweep: WriteSweep, tmp_path: Path) -> Path:
    (tmp_path / "second").mkdir()
    return write_sweep(tmp_path / "second", ablate={"components": ["none", "qkv"]})


def test_another_file_of_the_same_name_is_refused_and_nothing_changes(
    register: Register, first: Path, second: Path, tmp_path: Path
) -> None:
    assert register(load_sweep(first)) == 8
    with pytest.raises(SpecsweepError) as caught:
        register(load_sweep(second))
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'results'}: holds the results of another sweep file, {first}, with 8 ")
    assert "of which 6 are among the 8 of" in message  # all but the two of norm
    assert "--name" in message
    assert "--replace" in message
    with Ledger.read(tmp_path / "results" / LEDGER_NAME) as ledger:
        assert {record.trial.arm for record in ledger.records()} == {"none", "norm@all", "random init", "raw pixels"}
        assert len(ledger.provenance()) == 1
    assert register(load_sweep(second), replace=True) == 8
    assert register(load_sweep(second)) == 8  # it is the second one's now


def test_the_same_file_may_say_something_else_from_run_to_run(
    register: Register, first: Path, second: Path
) -> None:
    register(load_sweep(first))
    first.write_text(second.read_text())
    assert register(load_sweep(first)) == 8


def test_a_file_that_was_moved_or_that_loses_no_trial_goes_on(
    register: Register, first: Path, write_sweep: WriteSweep, tmp_path: Path
) -> None:
    register(load_sweep(first))
    assert register(load_sweep(first.rename(tmp_path / "tiny.yaml"))) == 8
    (tmp_path / "wider").mkdir()
    wider = write_sweep(tmp_path / "wider", ablate={"components": ["none", "norm", "qkv"]})
    assert register(load_sweep(wider)) == 10


def test_a_ledger_that_does_not_know_its_file_is_anybodys(
    ledger: Ledger, second: Path, tmp_path: Path
) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / LEDGER_NAME).rename(tmp_path / "results" / LEDGER_NAME)
    ledger.close()
    with prepare_run(load_sweep(second), tmp_path / "results", load_data=lambda _: {}) as run:
        assert len(run.ledger.records()) == 8
