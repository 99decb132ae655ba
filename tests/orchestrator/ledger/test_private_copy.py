"""Whoever reads a ledger leaves nothing beside it, and sees what is written to it later all the same."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.ledger.ledger import Ledger
from orchestrator.ledger.private_copy import copy_to_memory
from orchestrator.run import LEDGER_NAME
from orchestrator.trials.events import Finished
from orchestrator.trials.records import State
from orchestrator.trials.trial import Trial


@pytest.fixture
def path(ledger: Ledger, trials: tuple[Trial, ...], tmp_path: Path) -> Path:
    """Return a closed ledger in a folder of its own, with a trial that is done."""
    ledger.record(Finished(trials[0].trial_id, ledger.begin_attempt(trials[0].trial_id), {"knn_top1": 1.5}, 1.0, 1.0))
    ledger.close()
    folder = tmp_path / "alone"
    folder.mkdir()
    return Path(shutil.move(tmp_path / LEDGER_NAME, folder / LEDGER_NAME))


def names(path: Path) -> list[str]:
    return sorted(file.name for file in path.parent.iterdir())


def done(ledger: Ledger) -> int:
    return sum(record.state is State.DONE for record in ledger.records())


def test_a_reader_leaves_no_file_and_needs_no_right_to_write(path: Path) -> None:
    path.parent.chmod(0o555)
    try:
        with Ledger.read(path) as ledger:
            assert done(ledger) == 1
            assert names(path) == [LEDGER_NAME]
    finally:
        path.parent.chmod(0o755)
    assert names(path) == [LEDGER_NAME]


def test_a_reader_from_before_a_run_sees_what_the_run_writes_and_what_it_leaves(
    path: Path, trials: tuple[Trial, ...]
) -> None:
    with Ledger.read(path) as reader:
        versions = [reader.version()]
        assert (done(reader), reader.version()) == (1, versions[0])
        with Ledger.open(path) as writer:
            for number, trial in enumerate(trials[1:3], start=2):
                writer.record(Finished(trial.trial_id, writer.begin_attempt(trial.trial_id), {}, 1.0, 1.0))
                versions.append(reader.version())
                assert done(reader) == number
        versions.append(reader.version())
        assert done(reader) == 3
        assert len(set(versions[:3])) == 3
        with Ledger.open(path) as writer:
            writer.record(Finished(trials[3].trial_id, writer.begin_attempt(trials[3].trial_id), {}, 1.0, 1.0))
        assert (done(reader), reader.version() != versions[-1]) == (4, True)


def test_a_log_without_its_index_is_read_from_a_copy(path: Path, trials: tuple[Trial, ...], tmp_path: Path) -> None:
    target = tmp_path / "copied" / LEDGER_NAME
    target.parent.mkdir()
    with Ledger.open(path) as writer:
        writer.record(Finished(trials[1].trial_id, writer.begin_attempt(trials[1].trial_id), {}, 1.0, 1.0))
        for kind in ("", "-wal"):
            shutil.copy(f"{path}{kind}", f"{target}{kind}")
    before = {file.name: file.read_bytes() for file in target.parent.iterdir()}
    assert len(before[f"{LEDGER_NAME}-wal"]) > 0
    with Ledger.read(target) as ledger:
        assert done(ledger) == 2
    assert {file.name: file.read_bytes() for file in target.parent.iterdir()} == before


def test_a_ledger_that_a_writer_has_open_is_not_copied(path: Path) -> None:
    with Ledger.open(path):
        assert copy_to_memory(path) is None
    copy = copy_to_memory(path)
    assert copy is not None
    copy.close()


def test_a_ledger_that_changes_while_it_is_copied_is_copied_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from orchestrator.ledger import private_copy

    fill: Callable[..., None] = private_copy._fill
    times = []

    def changing(*arguments: object, **named: object) -> None:
        fill(*arguments, **named)
        times.append(len(times))
        if len(times) < 3:
            path.touch()

    monkeypatch.setattr(private_copy, "_fill", changing)
    copy = copy_to_memory(path)
    assert copy is not None
    copy.close()
    assert times == [0, 1, 2]
