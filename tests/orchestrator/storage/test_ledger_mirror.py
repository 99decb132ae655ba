from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from orchestrator.ledger.ledger import Ledger
from orchestrator.run import LEDGER_NAME
from orchestrator.storage.checkpoint_store import RemoteCheckpoints
from orchestrator.storage.ledger_mirror import POINTER_NAME, LedgerMirror, fetch_ledger, read_pointer
from orchestrator.storage.remote_folder import RemoteError, RemoteFolder
from orchestrator.trials.events import Finished
from specvit.errors import SpecsweepError


@pytest.fixture
def remote(tmp_path: Path) -> RemoteFolder:
    return RemoteFolder((tmp_path / "store").as_uri())


@pytest.fixture
def states(remote: RemoteFolder) -> RemoteCheckpoints:
    return RemoteCheckpoints(remote / "checkpoints")


@pytest.fixture
def mirror_of(remote: RemoteFolder, states: RemoteCheckpoints) -> Callable[..., LedgerMirror]:
    def make(folder: Path, is_ours: Callable[[], bool] = lambda: True) -> LedgerMirror:
        (folder / ".mirror").mkdir(parents=True, exist_ok=True)
        return LedgerMirror(remote, folder, is_ours=is_ours, states=states)

    return make


def write(folder: Path, value: int) -> None:
    """Add a row to a ledger, which here is any SQLite file in WAL mode."""
    folder.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(folder / LEDGER_NAME)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE IF NOT EXISTS rows (value INTEGER)")
        connection.execute("INSERT INTO rows VALUES (?)", (value,))
        connection.commit()


def read(path: Path) -> list[int]:
    with closing(sqlite3.connect(path)) as connection:
        return [value for (value,) in connection.execute("SELECT value FROM rows ORDER BY rowid")]


def fetched(remote: RemoteFolder, tmp_path: Path) -> list[int]:
    assert fetch_ledger(remote, tmp_path / "fetched.sqlite") is not None
    return read(tmp_path / "fetched.sqlite")


def test_a_snapshot_has_all_that_is_on_record_while_the_ledger_is_open(
    ledger: Ledger, remote: RemoteFolder, mirror_of: Callable[..., LedgerMirror], tmp_path: Path
) -> None:
    trial_id = ledger.records()[0].trial.trial_id
    attempt = ledger.begin_attempt(trial_id)
    ledger.record(Finished(trial_id, attempt, metrics={"knn_top1": 0.5}, seconds=1.0, core_seconds=1.0))
    mirror_of(tmp_path).mirror()
    assert fetch_ledger(remote, tmp_path / "fetched.sqlite") is not None
    with Ledger.read(tmp_path / "fetched.sqlite") as copy:
        assert copy.records() == ledger.records()
    assert [path.name for path in (tmp_path / ".mirror").iterdir()] == ["known.json"]


def test_a_ledger_is_uploaded_when_it_has_changed_and_old_snapshots_go(
    remote: RemoteFolder, mirror_of: Callable[..., LedgerMirror], tmp_path: Path
) -> None:
    here = tmp_path / "here"
    mirror = mirror_of(here)
    mirror.mirror()
    assert remote.names() == ()  # nothing to mirror yet
    for value in range(4):
        write(here, value)
        mirror.mirror()
        mirror.mirror()
        pointer = read_pointer(remote)
        assert pointer is not None
        assert pointer.generation == value + 1
        assert fetched(remote, tmp_path) == list(range(value + 1))
    assert len(remote.names()) == 3  # two snapshots and what names the newest


def test_a_new_machine_starts_with_the_mirrored_ledger_and_counts_on(
    remote: RemoteFolder, mirror_of: Callable[..., LedgerMirror], tmp_path: Path
) -> None:
    write(tmp_path / "a", 1)
    mirror_of(tmp_path / "a").mirror()
    other = mirror_of(tmp_path / "b")
    other.reconcile()
    assert read(tmp_path / "b" / LEDGER_NAME) == [1]
    write(tmp_path / "b", 2)
    other.mirror()
    pointer = read_pointer(remote)
    assert pointer is not None
    assert pointer.generation == 2


def test_a_ledger_that_is_ahead_of_its_mirror_goes_on(mirror_of: Callable[..., LedgerMirror], tmp_path: Path) -> None:
    here = tmp_path / "here"
    write(here, 1)
    mirror_of(here).mirror()
    write(here, 2)
    mirror_of(here).reconcile()
    assert read(here / LEDGER_NAME) == [1, 2]


def test_a_driver_that_died_right_after_its_upload_knows_its_own_ledger(
    mirror_of: Callable[..., LedgerMirror], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    write(here, 1)
    mirror = mirror_of(here)
    mirror.mirror()
    write(here, 2)
    noted = mirror._write_known

    def die(*given: object) -> None:
        if len(given) == 1:
            raise KeyboardInterrupt
        noted(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(mirror, "_write_known", die)
    with pytest.raises(KeyboardInterrupt):
        mirror.mirror()
    write(here, 3)
    mirror_of(here).reconcile()
    assert read(here / LEDGER_NAME) == [1, 2, 3]


def test_where_another_machine_has_gone_on_its_ledger_is_taken_and_records_of_here_are_put_aside(
    mirror_of: Callable[..., LedgerMirror], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    write(a, 1)
    mirror_of(a).mirror()
    other = mirror_of(b)
    other.reconcile()
    write(b, 2)
    other.mirror()
    write(a, 3)
    mirror_of(a).reconcile()
    assert read(a / LEDGER_NAME) == [1, 2]
    (aside,) = (a / ".mirror").glob("aside-*")
    assert str(aside) in caplog.text
    assert read(aside / LEDGER_NAME) == [1, 3]


def test_nothing_is_put_aside_where_all_was_mirrored(
    mirror_of: Callable[..., LedgerMirror], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    write(a, 1)
    mirror_of(a).mirror()
    other = mirror_of(b)
    other.reconcile()
    write(b, 2)
    other.mirror()
    mirror_of(a).reconcile()
    assert read(a / LEDGER_NAME) == [1, 2]
    assert list((a / ".mirror").glob("aside-*")) == []
    assert not caplog.records


def test_a_mirror_that_is_gone_is_neither_made_again_nor_begun_anew(
    remote: RemoteFolder, mirror_of: Callable[..., LedgerMirror], tmp_path: Path
) -> None:
    here = tmp_path / "here"
    write(here, 1)
    mirror_of(here).mirror()
    for name in remote.names():
        remote.delete(name)
    with pytest.raises(SpecsweepError, match="that was mirrored there is gone; to go on from the copy") as caught:
        mirror_of(here).reconcile()
    known = here / ".mirror" / "known.json"
    assert str(known) in str(caught.value)
    known.unlink()  # as the message says
    mirror_of(here).reconcile()
    assert read(here / LEDGER_NAME) == [1]


def test_who_has_lost_the_lock_uploads_nothing(
    remote: RemoteFolder, mirror_of: Callable[..., LedgerMirror], tmp_path: Path
) -> None:
    write(tmp_path / "here", 1)
    mirror_of(tmp_path / "here", is_ours=lambda: False).mirror()
    assert remote.names() == ()


def test_states_of_ended_trials_go_after_an_upload_and_stay_without_one(
    remote: RemoteFolder,
    states: RemoteCheckpoints,
    mirror_of: Callable[..., LedgerMirror],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object) -> None:
        raise RemoteError("the store is away")

    (remote / "checkpoints").put_bytes("a", b"x")
    write(tmp_path / "here", 1)
    mirror = mirror_of(tmp_path / "here")
    states.schedule_delete("a")
    with monkeypatch.context() as patch:
        patch.setattr(RemoteFolder, "put", fail)
        with pytest.raises(RemoteError):
            mirror.mirror()
    assert states.names() == ("a",)
    mirror.mirror()
    assert states.names() == ()


@pytest.mark.parametrize("damage", ["cut", "absent"])
def test_a_snapshot_that_is_damaged_or_missing_is_told_of_and_not_used(
    damage: str, remote: RemoteFolder, mirror_of: Callable[..., LedgerMirror], tmp_path: Path
) -> None:
    write(tmp_path / "here", 1)
    mirror_of(tmp_path / "here").mirror()
    pointer = read_pointer(remote)
    assert pointer is not None
    if damage == "cut":
        remote.put_bytes(pointer.snapshot_name, b"SQLite")
    else:
        remote.delete(pointer.snapshot_name)
    target = tmp_path / "fetched.sqlite"
    with pytest.raises(RemoteError, match=rf"{pointer.snapshot_name}: is (damaged|missing), which ledger.json names"):
        fetch_ledger(remote, target)
    assert not list(tmp_path.glob("*fetched*"))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"generation": 1, "sha256": "../x", "host": "h", "pid": 1, "at": ""}',
        '{"generation": "1/../../x", "sha256": "' + 64 * "0" + '", "host": "h", "pid": 1, "at": ""}',
    ],
)
def test_a_pointer_that_names_no_snapshot_is_refused(text: str, remote: RemoteFolder) -> None:
    remote.put_bytes(POINTER_NAME, text.encode())
    with pytest.raises(RemoteError, match=f"{remote}/{POINTER_NAME}: does not say where the ledger is"):
        read_pointer(remote)
