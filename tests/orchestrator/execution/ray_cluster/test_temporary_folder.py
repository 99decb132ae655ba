from __future__ import annotations

import os
import socket
import tempfile

import pytest

from orchestrator.execution.capacity import ClusterError
from orchestrator.execution.ray_cluster.temporary_folder import (
    MAX_FOLDER_PATH,
    MAX_SOCKET_PATH,
    SHORT_FOLDER,
    shorten_temporary_folder,
)

LONGEST = "/" + "x" * (MAX_FOLDER_PATH - 1)


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_TMPDIR", "TMPDIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(tempfile, "tempdir", tempfile.tempdir)


def test_the_longest_path_of_a_socket_is_the_systems() -> None:
    with socket.socket(socket.AF_UNIX) as ours, pytest.raises(OSError, match="AF_UNIX path too long"):
        ours.bind("/" + "x" * MAX_SOCKET_PATH)
    with socket.socket(socket.AF_UNIX) as ours, pytest.raises(OSError, match="No such file"):
        ours.bind("/x/" + "x" * (MAX_SOCKET_PATH - 3))


@pytest.mark.parametrize("name", ["RAY_TMPDIR", "TMPDIR"])
def test_a_folder_that_is_short_enough_is_left_alone(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    shorten_temporary_folder()
    assert name not in os.environ
    monkeypatch.setenv(name, LONGEST)
    shorten_temporary_folder()
    assert os.environ[name] == LONGEST


@pytest.mark.parametrize("rays", ["", "/short"])
def test_in_place_of_a_long_tmpdir_a_short_folder_is_used_and_a_line_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, rays: str
) -> None:
    monkeypatch.setenv("TMPDIR", LONGEST + "x")
    monkeypatch.setenv("RAY_TMPDIR", rays)
    shorten_temporary_folder()
    assert (os.environ["TMPDIR"], os.environ["RAY_TMPDIR"]) == (str(SHORT_FOLDER), rays)
    assert tempfile.gettempdir() == str(SHORT_FOLDER)
    assert f"TMPDIR={LONGEST}x is too long for sockets (at most {MAX_FOLDER_PATH} bytes)" in caplog.text


def test_a_long_folder_that_was_asked_for_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = "/" + "é" * (MAX_FOLDER_PATH // 2 + 1)  # short in characters, not in bytes
    assert len(folder) < MAX_FOLDER_PATH
    monkeypatch.setenv("RAY_TMPDIR", folder)
    with pytest.raises(ClusterError, match=f"^RAY_TMPDIR must be a path of at most 39 bytes, .*, not {folder}$"):
        shorten_temporary_folder()


def test_without_a_short_folder_one_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", LONGEST + "x")
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(ClusterError, match=r"set TMPDIR or RAY_TMPDIR to a shorter path$"):
        shorten_temporary_folder()
