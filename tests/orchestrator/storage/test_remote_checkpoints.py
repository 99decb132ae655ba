from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.storage.checkpoint_store import CheckpointStore
from orchestrator.storage.remote_checkpoints import RemoteCheckpoints
from orchestrator.storage.remote_folder import RemoteFolder
from orchestrator.trials.events import Failed, Finished
from orchestrator.trials.records import Cause

A, B = "a" * 64, "b" * 64


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
def states(shared: RemoteCheckpoints, tmp_path: Path) -> CheckpointStore:
    return CheckpointStore(tmp_path / "checkpoints", every_s=60.0, shared=shared)


def test_a_trial_is_told_the_url_of_its_state(states: CheckpointStore, store: RemoteFolder) -> None:
    file = states.file_of(A)
    assert file is not None
    assert file.url == f"{store}/{A}.safetensors"
    assert file.path.name == f"{A}.safetensors"


def test_the_state_of_an_ended_trial_may_go_but_not_at_once(
    states: CheckpointStore, shared: RemoteCheckpoints, store: RemoteFolder
) -> None:
    states.ended(Finished(A, 1, metrics={}, seconds=1.0, core_seconds=1.0))
    assert f"{A}.safetensors" in store.names()
    shared.delete(shared.pending_deletes())
    assert store.names() == (f"{B}.safetensors", "mine.safetensors")
    assert shared.pending_deletes() == frozenset()


def test_a_lost_trial_keeps_its_state(states: CheckpointStore, shared: RemoteCheckpoints) -> None:
    states.ended(Failed(A, 1, error="x", traceback="", cause=Cause.WORKER))
    assert shared.pending_deletes() == frozenset()


def test_a_trial_that_is_tried_again_begins_anew_and_its_new_state_stays(
    states: CheckpointStore, shared: RemoteCheckpoints, store: RemoteFolder
) -> None:
    states.ended(Failed(A, 1, error="x", traceback=""))
    pending_deletes = shared.pending_deletes()
    states.file_of(A)
    assert f"{A}.safetensors" not in store.names()
    store.put_bytes(f"{A}.safetensors", b"new")
    shared.delete(pending_deletes)
    assert store.get_bytes(f"{A}.safetensors") == b"new"


def test_cleaning_dooms_the_states_that_are_not_wanted_and_not_what_is_not_ours(
    states: CheckpointStore, shared: RemoteCheckpoints
) -> None:
    states.clean(keep={B})
    assert shared.pending_deletes() == {f"{A}.safetensors"}


def test_a_store_that_is_away_is_told_of_and_stops_nothing(
    states: CheckpointStore, shared: RemoteCheckpoints, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "store").rename(tmp_path / "away")
    (tmp_path / "store").write_text("no folder")
    states.ended(Failed(A, 1, error="x", traceback=""))
    shared.delete(shared.pending_deletes())
    assert "cannot be deleted" in caplog.text
    assert states.file_of(A) is not None
    states.clean(keep=())
    (tmp_path / "store").unlink()
    (tmp_path / "away").rename(tmp_path / "store")
