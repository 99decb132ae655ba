from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.storage.checkpoint_store import CheckpointStore, StateFile
from orchestrator.trials.events import Event, Failed, Finished, Pruned
from orchestrator.trials.records import Cause

A, B = "a" * 64, "b" * 64


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Make a folder with the states of two trials, one half written, and a file of the user's."""
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    for name in (f"{A}.safetensors", f".{A}.safetensors.123", f"{B}.safetensors", "mine.safetensors"):
        (folder / name).write_bytes(b"x")
    return folder


@pytest.fixture
def states(folder: Path) -> CheckpointStore:
    return CheckpointStore(folder, every_s=60.0)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_every_trial_has_a_file_whose_path_holds_in_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    states = CheckpointStore(Path("checkpoints"), every_s=5.0)
    assert states.file_of(A) == StateFile(tmp_path.resolve() / "checkpoints" / f"{A}.safetensors", every_s=5.0)
    assert not (tmp_path / "checkpoints").exists()


def test_where_states_are_not_kept_there_is_no_file(folder: Path) -> None:
    assert CheckpointStore(folder, every_s=0.0).file_of(A) is None


@pytest.mark.parametrize(
    "end",
    [
        lambda: Finished(A, 1, metrics={}, seconds=1.0, core_seconds=1.0),
        lambda: Pruned(A, 1, step=2, seconds=1.0),
        lambda: Failed(A, 1, error="DivergenceError: x", traceback=""),
    ],
)
def test_a_trial_that_has_ended_loses_its_state_and_what_was_half_written(
    end: Callable[[], Event], states: CheckpointStore, folder: Path
) -> None:
    states.ended(end())
    assert names(folder) == {f"{B}.safetensors", "mine.safetensors"}


def test_a_trial_that_was_lost_with_its_worker_keeps_its_state(states: CheckpointStore, folder: Path) -> None:
    states.ended(Failed(A, 1, error="the worker was lost: x", traceback="", cause=Cause.WORKER))
    assert f"{A}.safetensors" in names(folder)


def test_cleaning_leaves_the_states_that_are_wanted_and_what_is_not_ours(
    states: CheckpointStore, folder: Path
) -> None:
    states.clean(keep={B})
    assert names(folder) == {f"{B}.safetensors", "mine.safetensors"}
    (folder / "mine.safetensors").unlink()
    states.clean(keep=())
    assert not folder.exists()
    states.clean(keep=())
    states.ended(Pruned(A, 1, step=2, seconds=1.0))


def test_a_state_that_cannot_be_deleted_is_told_of_and_stops_nothing(
    states: CheckpointStore, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / f"{A}.safetensors").unlink()
    (folder / f"{A}.safetensors").mkdir()
    with caplog.at_level(logging.WARNING):
        states.ended(Pruned(A, 1, step=2, seconds=1.0))
    assert [f"{A}.safetensors: cannot be deleted" in record.message for record in caplog.records] == [True]


def test_cleaning_takes_what_safetensors_was_writing_when_its_process_was_killed(
    states: CheckpointStore, folder: Path
) -> None:
    for name in (".tmpn5A4o0", ".tmp", ".tmp-mine", "x.tmpn5A4o0"):
        (folder / name).write_bytes(b"x")
    states.clean(keep={A, B})
    assert names(folder) >= {f"{A}.safetensors", f"{B}.safetensors", ".tmp", ".tmp-mine", "x.tmpn5A4o0"}
    assert ".tmpn5A4o0" not in names(folder)
