from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from orchestrator.storage.folder_lock import LockedError, hold_lock, is_held
from specvit.errors import SpecsweepError

HOLD = """
import sys, time
from pathlib import Path
from orchestrator.storage.folder_lock import hold_lock
with hold_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_lock_writes_who_holds_it(tmp_path: Path) -> None:
    with hold_lock(tmp_path / "new" / "folder"):
        holder = json.loads((tmp_path / "new" / "folder" / "lock").read_text())
    assert (holder["pid"], holder["host"]) == (os.getpid(), socket.gethostname())


def test_lock_can_be_taken_again_after_it_was_released(tmp_path: Path) -> None:
    for _ in range(2):
        with hold_lock(tmp_path):
            holder = json.loads((tmp_path / "lock").read_text())
    assert holder["pid"] == os.getpid()


def test_lock_is_released_when_its_context_raises(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="boom"), hold_lock(tmp_path):
        raise RuntimeError("boom")
    with hold_lock(tmp_path):
        assert (tmp_path / "lock").exists()


def test_lock_of_another_process_is_refused_naming_it_and_free_once_that_is_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(LockedError, match=f"process {other.pid} on {socket.gethostname()}") as caught:
            hold_lock(tmp_path).__enter__()
        assert isinstance(caught.value, SpecsweepError)
        assert str(tmp_path) in str(caught.value)
        other.send_signal(signal.SIGKILL)
        other.wait()
    with hold_lock(tmp_path):
        assert json.loads((tmp_path / "lock").read_text())["pid"] == os.getpid()


def test_lock_in_place_of_a_folder_is_refused_naming_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LockedError, match="file"):
        hold_lock(tmp_path / "file").__enter__()


def test_a_folder_is_held_as_long_as_a_process_holds_it_and_asking_changes_nothing(tmp_path: Path) -> None:
    assert not is_held(tmp_path)
    with hold_lock(tmp_path):
        assert is_held(tmp_path)
        assert is_held(tmp_path)
    assert not is_held(tmp_path)
    with hold_lock(tmp_path):
        pass


def test_a_folder_that_somebody_asks_about_at_this_moment_can_be_held(tmp_path: Path) -> None:
    with hold_lock(tmp_path):
        pass
    asking = os.open(tmp_path / "lock", os.O_RDONLY)
    fcntl.flock(asking, fcntl.LOCK_SH)  # as is_held does
    timer = threading.Timer(0.05, os.close, [asking])
    timer.start()
    with hold_lock(tmp_path):
        assert is_held(tmp_path)
    timer.join()
