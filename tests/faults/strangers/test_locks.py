"""Locks that are links or pipes, and what they say of their holders."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from orchestrator.storage.folder_lock import LockedError, hold_lock

from .hostile_results import HOSTILE, Command, look, run_sweep


@pytest.mark.parametrize("is_there", [True, False], ids=["a link", "a link to nothing"])
def test_a_lock_that_is_a_link_is_refused_and_its_target_is_not_emptied(
    is_there: bool, command: Command, results: Path, victims: Path
) -> None:
    (results / "lock").unlink()
    (results / "lock").symlink_to(victims / ("thesis.tex" if is_there else "new.txt"))
    ended = run_sweep(command)
    assert (ended.returncode, "lock: must not be a link" in ended.stderr) == (3, True)
    look(command, results)


@pytest.mark.parametrize("kind", ["pipe", "folder", "socket"])
def test_a_lock_that_is_no_file_is_refused_and_nobody_waits_for_it(kind: str, command: Command, results: Path) -> None:
    (results / "lock").unlink()
    match kind:
        case "pipe":
            os.mkfifo(results / "lock")
        case "folder":
            (results / "lock").mkdir()
        case _:
            os.mknod(results / "lock", 0o140644)
    assert run_sweep(command).returncode == 3
    assert command("status", results).returncode == 0


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        json.dumps({"pid": HOSTILE, "host": f"a\nspecsweep: all is well\n{HOSTILE}", "since": "x" * 1_000_000}),
        json.dumps({"pid": [1], "host": "a\nspecsweep: all is well", "since": {"x": HOSTILE}}),
        "\x00\xff",
    ],
    ids=["deep", "long", "other types", "bytes"],
)
def test_what_a_lock_says_of_its_holder_is_one_harmless_message(text: str, command: Command, results: Path) -> None:
    with hold_lock(results):
        (results / "lock").write_text(text)
        ended = run_sweep(command)
    assert ended.returncode == 3
    assert not set("\x1b\x9b\u202e") & set(ended.stderr)
    assert len(ended.stderr) < 1000


def test_a_lock_that_another_process_holds_is_a_locked_error(results: Path) -> None:
    with hold_lock(results), pytest.raises(LockedError, match="is in use by process"):
        hold_lock(results).__enter__()
