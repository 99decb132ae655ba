"""What a reader can tell of a driver: by its lock on this machine, elsewhere by how long it has been silent."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import fsspec
import pytest

from orchestrator.storage.driver import Driver, find_driver, is_in_use
from orchestrator.storage.ledger_mirror import POINTER_NAME
from orchestrator.storage.remote_folder import RemoteFolder
from orchestrator.storage.remote_lock import LOCK_NAME
from orchestrator.storage.results_folder import results_folder

pytestmark = pytest.mark.usefixtures("machine")

OTHER = {"token": "other", "host": "elsewhere", "pid": 7, "since": "noon", "beat": 3, "period_s": 30.0}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "store" / "tiny"


@pytest.fixture
def store(folder: Path) -> RemoteFolder:
    return RemoteFolder(folder.as_uri())


def write_lock(folder: Path, *, ago_s: float) -> None:
    """Write a lock as a driver on another machine did so long ago."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / POINTER_NAME).touch()
    (folder / LOCK_NAME).write_text(json.dumps(OTHER))
    written_s = time.time() - ago_s
    os.utime(folder / LOCK_NAME, (written_s, written_s))


@pytest.mark.parametrize(
    ("ago_s", "is_running"), [(-3600.0, True), (0.0, True), (4 * 60.0, True), (6 * 60.0, False), (86400.0, False)]
)
def test_a_driver_elsewhere_runs_until_it_was_silent_for_ten_periods_of_its_lock(
    ago_s: float, is_running: bool, folder: Path, store: RemoteFolder
) -> None:
    write_lock(folder, ago_s=ago_s)
    driver = find_driver(store)
    assert driver is not None
    assert (driver.name, driver.is_running, driver.is_certain) == (
        "process 7 on elsewhere (since noon)",
        is_running,
        False,
    )
    assert driver.silent_s is not None
    assert 0 <= driver.silent_s - max(0.0, ago_s) < 30
    assert is_in_use(folder) is is_running


def test_on_the_machine_of_a_drivers_copy_its_lock_tells_at_once_and_elsewhere_its_last_sign_of_life(
    folder: Path, store: RemoteFolder, machine: Callable[[str], Path]
) -> None:
    assert find_driver(store) is None
    with results_folder(str(store.parent), "tiny"):
        text = (folder / LOCK_NAME).read_bytes()
        here = find_driver(store)
        machine("elsewhere")
        there = find_driver(store)
    assert find_driver(store) is None
    assert here is not None
    assert there is not None
    assert here.name == there.name
    assert [(each.is_running, each.is_certain) for each in (here, there)] == [(True, True), (True, False)]
    # Of a driver that is killed, just this stays.
    (folder / LOCK_NAME).write_bytes(text)
    assert (there := find_driver(store)) is not None
    assert (there.is_running, there.is_certain) == (True, False)
    machine("here")
    assert (here := find_driver(store)) is not None
    assert (here.is_running, here.is_certain) == (False, True)


def test_a_driver_of_which_the_store_knows_no_time_counts_as_running(
    folder: Path, store: RemoteFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def modified(_: str) -> None:
        raise NotImplementedError

    write_lock(folder, ago_s=86400.0)
    monkeypatch.setattr(fsspec.core.url_to_fs(store.url)[0], "modified", modified)
    assert find_driver(store) == Driver("process 7 on elsewhere (since noon)", True, False, None)


def test_a_store_in_memory_knows_the_time() -> None:
    store = RemoteFolder(f"memory://{uuid4().hex}/tiny")
    assert store.modified_at(LOCK_NAME) is None
    store.put_bytes(LOCK_NAME, json.dumps(OTHER).encode())
    driver = find_driver(store)
    assert driver is not None
    assert driver.silent_s is not None
    assert driver.silent_s < 30
