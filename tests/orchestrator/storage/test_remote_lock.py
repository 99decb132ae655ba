from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.storage.folder_lock import LockedError
from orchestrator.storage.remote_folder import RemoteError, RemoteFolder
from orchestrator.storage.remote_lock import LOCK_NAME, RemoteLock, read_holder

from ...waiting import PATIENCE_S, wait_for

PERIOD_S = 0.3


@pytest.fixture
def folder(tmp_path: Path) -> RemoteFolder:
    return RemoteFolder((tmp_path / "store").as_uri())


@pytest.fixture
def lock(folder: RemoteFolder) -> Iterator[RemoteLock]:
    lock = RemoteLock(folder, period_s=PERIOD_S)
    yield lock
    lock.release()


def write(folder: RemoteFolder, **values: Any) -> None:
    """Write a lock as a driver would that runs elsewhere."""
    other = {"token": "other", "host": "elsewhere", "pid": 7, "since": "noon", "beat": 3, "period_s": PERIOD_S}
    folder.put_bytes(LOCK_NAME, json.dumps(other | values).encode())


def wait_for_beat(folder: RemoteFolder, beat: int) -> None:
    wait_for(lambda: (holder := read_holder(folder)) is not None and holder.beat >= beat)


def test_a_lock_is_there_while_it_is_held_and_its_beat_goes_on(folder: RemoteFolder, lock: RemoteLock) -> None:
    lock.acquire()
    wait_for_beat(folder, 2)
    assert lock.is_ours()
    lock.release()
    assert read_holder(folder) is None
    lock.release()


def test_a_second_driver_is_refused_and_told_who_holds_the_lock(folder: RemoteFolder) -> None:
    lock = RemoteLock(folder, period_s=1.0)
    lock.acquire()
    holder = read_holder(folder)
    with pytest.raises(LockedError, match=f"{folder} is in use by process .* on .*; wait for it or stop it") as caught:
        RemoteLock(folder, period_s=PERIOD_S).acquire()
    assert str(holder) in str(caught.value)
    assert lock.is_ours()
    lock.release()


def test_a_lock_without_life_is_taken_over(
    folder: RemoteFolder, lock: RemoteLock, caplog: pytest.LogCaptureFixture
) -> None:
    write(folder)
    lock.acquire()
    assert lock.is_ours()
    assert "is held by process 7 on elsewhere (since noon); watching" in caplog.text
    assert "is taken over, for it showed no life" in caplog.text


@pytest.mark.long
def test_a_lock_that_is_given_back_while_it_is_watched_is_free(folder: RemoteFolder, lock: RemoteLock) -> None:
    write(folder, period_s=PATIENCE_S)
    timer = threading.Timer(0.2, folder.delete, (LOCK_NAME,))
    started = time.monotonic()
    timer.start()
    lock.acquire()
    assert lock.is_ours()
    assert time.monotonic() - started < PATIENCE_S


def test_a_lock_of_a_process_that_is_known_to_be_dead_is_not_watched(
    folder: RemoteFolder, lock: RemoteLock, caplog: pytest.LogCaptureFixture
) -> None:
    write(folder)
    lock.acquire(dead_token="other")
    assert lock.is_ours()
    assert not caplog.records


def test_who_was_taken_over_notices_and_leaves_the_lock_alone(folder: RemoteFolder, lock: RemoteLock) -> None:
    lock.acquire()

    def is_noticed() -> bool:
        write(folder)  # a beat of ours may have come in between
        return lock.taken_by is not None

    wait_for(is_noticed)
    assert str(lock.taken_by) == "process 7 on elsewhere (since noon)"
    lock.release()
    holder = read_holder(folder)
    assert holder is not None
    assert holder.token == "other"


@pytest.mark.parametrize("beat", [b"", b"[]", b"{}", b"\xff", b'{"token": "x"}'])
def test_a_lock_that_cannot_be_read_is_watched_like_any(
    beat: bytes, folder: RemoteFolder, lock: RemoteLock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.storage.remote_lock.WATCHED_PERIODS", 0.01)
    folder.put_bytes(LOCK_NAME, beat)
    lock.acquire()
    assert lock.is_ours()


def test_control_characters_of_a_lock_are_not_shown(folder: RemoteFolder) -> None:
    write(folder, host="\x1b[2J")
    assert "\x1b" not in str(read_holder(folder))


def test_a_beat_that_fails_is_told_of_and_the_next_one_is_tried(
    folder: RemoteFolder, lock: RemoteLock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise RemoteError("the store is away")

    lock.acquire()
    with monkeypatch.context() as patch:
        patch.setattr(RemoteFolder, "put_bytes", fail)
        wait_for(lambda: "the store is away; the lock is renewed later" in caplog.text)
    holder = read_holder(folder)
    wait_for_beat(folder, (holder.beat if holder else 0) + 1)
    assert lock.is_ours()


def test_a_refused_driver_does_not_take_the_lock_away(folder: RemoteFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    def found_nothing(_: RemoteFolder) -> None:
        write(folder)

    lock = RemoteLock(folder, period_s=PERIOD_S)
    with monkeypatch.context() as patch:
        patch.setattr("orchestrator.storage.remote_lock.read_holder", found_nothing)
        with pytest.raises(LockedError):
            lock.acquire()
    assert read_holder(folder) is not None
