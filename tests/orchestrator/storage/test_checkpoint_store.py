from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.storage.checkpoint_store import CheckpointStore, RemoteCheckpoints, StateFile
from orchestrator.storage.remote_folder import RemoteFolder
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
    states = CheckpointStore(Path("checkpoints"), every_s=5.0, max_share=0.25)
    path = tmp_path.resolve() / "checkpoints" / f"{A}.safetensors"
    assert states.file_of(A) == StateFile(path, every_s=5.0, max_share=0.25)
    assert not (tmp_path / "checkpoints").exists()


def test_where_states_are_not_kept_there_is_no_file(folder: Path) -> None:
    assert CheckpointStore(folder, every_s=0.0).file_of(A) is None


@pytest.mark.parametrize(
    "end",
    [
        lambda: Finished(A, 1, metrics={}, seconds=1.0, core_seconds=1.0),
        lambda: Pruned(A, 1, step=2, seconds=1.0),
    ],
)
def test_a_trial_that_has_ended_loses_its_state_and_what_was_half_written(
    end: Callable[[], Event], states: CheckpointStore, folder: Path
) -> None:
    states.ended(end())
    assert names(folder) == {f"{B}.safetensors", "mine.safetensors"}


@pytest.mark.parametrize("cause", Cause)
def test_a_trial_that_failed_keeps_its_state(cause: Cause, states: CheckpointStore, folder: Path) -> None:
    states.ended(Failed(A, 1, error="x", traceback="", cause=cause))
    assert f"{A}.safetensors" in names(folder)


def test_pruning_leaves_the_states_that_are_wanted_and_what_is_not_ours(
    states: CheckpointStore, folder: Path
) -> None:
    states.prune(keep={B})
    assert names(folder) == {f"{B}.safetensors", "mine.safetensors"}
    (folder / "mine.safetensors").unlink()
    states.prune(keep=())
    assert not folder.exists()
    states.prune(keep=())
    states.ended(Pruned(A, 1, step=2, seconds=1.0))


def test_a_state_that_cannot_be_deleted_is_told_of_and_stops_nothing(
    states: CheckpointStore, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / f"{A}.safetensors").unlink()
    (folder / f"{A}.safetensors").mkdir()
    with caplog.at_level(logging.WARNING):
        states.ended(Pruned(A, 1, step=2, seconds=1.0))
    assert [f"{A}.safetensors: cannot be deleted" in record.message for record in caplog.records] == [True]


def test_pruning_takes_what_safetensors_was_writing_when_its_process_was_killed(
    states: CheckpointStore, folder: Path
) -> None:
    for name in (".tmpn5A4o0", ".tmp", ".tmp-mine", "x.tmpn5A4o0"):
        (folder / name).write_bytes(b"x")
    states.prune(keep={A, B})
    assert names(folder) >= {f"{A}.safetensors", f"{B}.safetensors", ".tmp", ".tmp-mine", "x.tmpn5A4o0"}
    assert ".tmpn5A4o0" not in names(folder)


@pytest.fixture
def store(tmp_path: Path) -> RemoteFolder:
    """Make a store with the states of two trials, and a file of the user's."""
    store = RemoteFolder((tmp_path / "store").as_uri())
    for name in (f"{A}.safetensors", f"{B}.safetensors", "mine.safetensors"):
        store.put_bytes(name, b"x")
    return store


@pytest.fixture
def shared(store: RemoteFolder) -> RemoteCheckpoints:
    return RemoteCheckpoints(store)


@pytest.fixture
def remote_states(shared: RemoteCheckpoints, tmp_path: Path) -> CheckpointStore:
    return CheckpointStore(tmp_path / "checkpoints", every_s=60.0, shared=shared)


def test_a_trial_is_told_where_in_the_store_its_state_is(remote_states: CheckpointStore, store: RemoteFolder) -> None:
    file = remote_states.file_of(A)
    assert file is not None
    assert file.location == store / f"{A}.safetensors"


def test_the_state_of_an_ended_trial_may_go_but_not_at_once(
    remote_states: CheckpointStore, shared: RemoteCheckpoints, store: RemoteFolder
) -> None:
    remote_states.ended(Finished(A, 1, metrics={}, seconds=1.0, core_seconds=1.0))
    assert f"{A}.safetensors" in store.names()
    shared.delete(shared.pending_deletes())
    assert store.names() == (f"{B}.safetensors", "mine.safetensors")
    assert shared.pending_deletes() == frozenset()


def test_a_lost_trial_keeps_its_state_in_a_store(remote_states: CheckpointStore, shared: RemoteCheckpoints) -> None:
    remote_states.ended(Failed(A, 1, error="x", traceback="", cause=Cause.WORKER))
    assert shared.pending_deletes() == frozenset()


def test_a_trial_that_was_pruned_and_is_tried_again_begins_anew_and_its_new_state_stays(
    remote_states: CheckpointStore, shared: RemoteCheckpoints, store: RemoteFolder
) -> None:
    remote_states.ended(Pruned(A, 1, step=2, seconds=1.0))
    pending_deletes = shared.pending_deletes()
    remote_states.file_of(A)
    assert f"{A}.safetensors" not in store.names()
    store.put_bytes(f"{A}.safetensors", b"new")
    shared.delete(pending_deletes)
    assert store.get_bytes(f"{A}.safetensors") == b"new"


def test_pruning_schedules_the_states_that_are_not_wanted_and_not_what_is_not_ours(
    remote_states: CheckpointStore, shared: RemoteCheckpoints
) -> None:
    remote_states.prune(keep={B})
    assert shared.pending_deletes() == {f"{A}.safetensors"}


def test_a_store_that_is_away_is_told_of_and_stops_nothing(
    remote_states: CheckpointStore, shared: RemoteCheckpoints, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "store").rename(tmp_path / "away")
    (tmp_path / "store").write_text("no folder")
    remote_states.ended(Pruned(A, 1, step=2, seconds=1.0))
    shared.delete(shared.pending_deletes())
    assert "cannot be deleted" in caplog.text
    assert remote_states.file_of(A) is not None
    remote_states.prune(keep=())
    (tmp_path / "store").unlink()
    (tmp_path / "away").rename(tmp_path / "store")
