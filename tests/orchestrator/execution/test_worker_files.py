from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.execution.executor import Job
from orchestrator.execution.worker_files import LocalFiles, local_files
from orchestrator.storage.checkpoint_store import StateFile
from orchestrator.storage.remote_folder import RemoteError, RemoteFolder
from orchestrator.trials.trial import Trial

from ...waiting import LIMIT_S


@pytest.fixture
def store(tmp_path: Path) -> RemoteFolder:
    return RemoteFolder((tmp_path / "store").as_uri())


@pytest.fixture
def job(trials: tuple[Trial, ...], store: RemoteFolder) -> Job:
    state = StateFile(store / "a.safetensors", 5.0)
    return Job(trial_id="a", attempt=1, label="a", config=trials[0].config, state=state)


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setattr("orchestrator.execution.worker_files._TRIES_AFTER_S", (0.0, 0.0))
    return folder


def save(files: LocalFiles, content: bytes) -> None:
    """Save a state as a trial does: written beside, and moved."""
    assert files.state is not None
    beside = files.state.with_name("beside")
    beside.write_bytes(content)
    beside.replace(files.state)
    files.after_save(files.state)


def test_a_job_without_a_store_keeps_its_paths(job: Job) -> None:
    path = Path("/driver/checkpoints/a.safetensors")
    with local_files(replace(job, state=StateFile(path, 5.0), weights=Path("weights"))) as files:
        assert (files.state, files.weights) == (path, Path("weights"))
        files.after_save(path)
    with local_files(replace(job, state=None)) as files:
        assert files.state is None


def test_a_state_of_before_is_there_and_none_where_there_was_none(job: Job, store: RemoteFolder) -> None:
    with local_files(job) as files:
        assert files.state is not None
        assert not files.state.exists()
    store.put_bytes("a.safetensors", b"before")
    with local_files(job) as files:
        assert files.state is not None
        assert files.state.read_bytes() == b"before"


@pytest.mark.parametrize("will_resume", [True, False])
def test_the_last_state_is_uploaded_if_the_trial_is_to_go_on(
    will_resume: bool, job: Job, store: RemoteFolder, temporary: Path
) -> None:
    put = RemoteFolder.put
    begun, go = threading.Event(), threading.Event()

    def slowly(self: RemoteFolder, name: str, source: Path) -> None:
        begun.set()
        assert go.wait(LIMIT_S)
        put(self, name, source)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RemoteFolder, "put", slowly)
        with local_files(job, will_resume=lambda: will_resume) as files:
            save(files, b"first")
            assert begun.wait(LIMIT_S)
            save(files, b"second")  # returns though the first is on its way, and takes nothing away from it
            save(files, b"third")
            go.set()
    assert store.get_bytes("a.safetensors") in ({b"third"} if will_resume else {b"first", b"third"})
    assert store.names() == ("a.safetensors",)
    assert list(temporary.iterdir()) == []


def test_a_trial_that_raises_leaves_its_last_state(job: Job, store: RemoteFolder, temporary: Path) -> None:
    def fail() -> None:
        with local_files(job) as files:
            save(files, b"last")
            raise MemoryError

    with pytest.raises(MemoryError):
        fail()
    assert store.get_bytes("a.safetensors") == b"last"
    assert list(temporary.iterdir()) == []


@pytest.fixture
def is_away(store: RemoteFolder, tmp_path: Path) -> Callable[[], None]:
    """Return what makes the store fail from then on."""

    def go_away() -> None:
        (tmp_path / "store").write_text("no folder")

    return go_away


def test_a_store_that_is_away_costs_the_state_and_not_the_attempt(
    job: Job, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> bool:
        raise RemoteError("the store is away")

    monkeypatch.setattr(RemoteFolder, "get", fail)
    monkeypatch.setattr(RemoteFolder, "put", fail)
    with local_files(job, will_resume=lambda: True) as files:
        save(files, b"x")
    assert "the store is away; training begins anew" in caplog.text
    assert "the store is away; training goes on, and the next state is tried" in caplog.text


def test_weights_are_uploaded_also_if_the_trial_fails_later(job: Job, store: RemoteFolder) -> None:
    kept = replace(job, state=None, weights=store / "weights" / "a")

    def fail() -> None:
        with local_files(kept) as files:
            assert files.weights is not None
            files.weights.mkdir()
            (files.weights / "student.safetensors").write_bytes(b"x")
            raise RemoteError("a probe")

    with pytest.raises(RemoteError, match="a probe"):
        fail()
    assert (store / "weights" / "a").get_bytes("student.safetensors") == b"x"


def test_weights_that_cannot_be_uploaded_stay_on_the_machine(
    job: Job, store: RemoteFolder, is_away: Callable[[], None], temporary: Path, caplog: pytest.LogCaptureFixture
) -> None:
    is_away()
    with local_files(replace(job, state=None, weights=store / "weights" / "a")) as files:
        assert files.weights is not None
        files.weights.mkdir()
        (files.weights / "student.safetensors").write_bytes(b"x")
    (kept,) = temporary.rglob("student.safetensors")
    assert kept.read_bytes() == b"x"
    assert str(kept) in caplog.text


def test_what_a_killed_worker_has_left_behind_goes_and_what_is_in_use_stays(
    job: Job, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.execution.worker_files._LEFT_BEHIND_AFTER_S", -1.0)
    left = temporary / "specsweep-attempt-left"
    left.mkdir()
    (left / "lock").touch()
    other = temporary / "other"
    other.mkdir()
    with local_files(job) as first, local_files(job) as second:
        assert first.state is not None
        assert second.state is not None
        assert first.state.parent.is_dir()
        assert not left.exists()
        assert other.is_dir()
