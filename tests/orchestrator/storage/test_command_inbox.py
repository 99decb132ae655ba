from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest

from orchestrator.storage.command_inbox import FOLDER_NAME, Cancel, Command, CommandInbox, Prune, Retry, send
from specvit.errors import SpecsweepError

from ...waiting import LIMIT_S


@pytest.fixture
def box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CommandInbox:
    """Make a box that looks at every call."""
    monkeypatch.setattr("orchestrator.storage.command_inbox._PERIOD_S", 0.0)
    return CommandInbox(tmp_path)


def put(folder: Path, content: bytes | str | object, name: str = "5-x.json") -> Path:
    path = folder / FOLDER_NAME / name
    path.parent.mkdir(exist_ok=True)
    if not isinstance(content, bytes | str):
        content = json.dumps(content)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize("command", [Cancel(), Prune(("a", "b")), Retry(("c",)), Prune(())])
def test_an_order_arrives_as_it_was_given_once_and_its_file_is_gone(
    command: Command, box: CommandInbox, tmp_path: Path
) -> None:
    path = send(tmp_path, command)
    assert path.exists()
    assert list(box.receive()) == [command]
    assert not path.exists()
    assert list(box.receive()) == []


def test_commands_are_taken_in_the_order_in_which_they_were_given(box: CommandInbox, tmp_path: Path) -> None:
    commands = [Prune((str(number),)) for number in range(20)] + [Cancel()]
    for command in commands:
        send(tmp_path, command)
    assert list(box.receive()) == commands


def test_commands_that_nobody_took_are_dropped_by_the_next_run(tmp_path: Path) -> None:
    path = send(tmp_path, Cancel())
    CommandInbox(tmp_path)
    assert not path.exists()


def test_without_commands_there_is_no_folder(box: CommandInbox, tmp_path: Path) -> None:
    assert list(box.receive()) == []
    assert list(tmp_path.iterdir()) == []
    send(tmp_path, Cancel())
    box.clear()
    assert list(tmp_path.iterdir()) == []


def test_the_folder_is_looked_at_no_more_than_twice_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 100.0
    monkeypatch.setattr("orchestrator.storage.command_inbox.time.monotonic", lambda: now_s)
    box = CommandInbox(tmp_path)
    send(tmp_path, Cancel())
    now_s = 100.4
    assert list(box.receive()) == []
    now_s = 100.6
    assert list(box.receive()) == [Cancel()]
    send(tmp_path, Cancel())
    now_s = 101.0
    assert list(box.receive()) == []
    now_s = 101.2
    assert list(box.receive()) == [Cancel()]


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        b"\xff\xfe\x00",
        "null",
        "[]",
        '["cancel"]',
        "3",
        '"cancel"',
        {},
        {"command": "stop"},
        {"command": ["cancel"]},
        {"command": None},
        {"command": {"cancel": 1}},
        {"command": "prune"},
        {"command": "prune", "trial_ids": None},
        {"command": "prune", "trial_ids": 3},
        {"command": "prune", "trial_ids": "abc"},
        {"command": "prune", "trial_ids": {"abc": 1}},
        {"command": "prune", "trial_ids": [1, 2]},
        {"command": "retry", "trial_ids": ["a", None]},
        {"command": "retry", "trial_ids": [["a"]]},
        "[" * 100_000,
        '{"command":' * 100_000,
        "1" * 10_000,
        b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x04true\x85R.",
    ],
    ids=lambda content: repr(content)[:30],
)
def test_a_file_that_holds_no_order_is_dropped_and_those_beside_it_are_obeyed(
    content: object, box: CommandInbox, tmp_path: Path
) -> None:
    path = put(tmp_path, content)
    send(tmp_path, Cancel())
    assert list(box.receive()) == [Cancel()]
    assert not path.exists()


def test_more_than_is_asked_for_in_a_file_is_ignored(box: CommandInbox, tmp_path: Path) -> None:
    put(tmp_path, {"command": "cancel", "trial_ids": ["a"], "why": "so"}, "1.json")
    put(tmp_path, {"command": "prune", "trial_ids": ["a"], "__class__": "x"}, "2.json")
    assert list(box.receive()) == [Cancel(), Prune(("a",))]


def test_what_is_not_a_file_of_ours_is_left_alone_and_waited_for_by_nobody(box: CommandInbox, tmp_path: Path) -> None:
    other = put(tmp_path, "cancel", "notes.txt")
    (other.parent / "1.json").mkdir()
    os.mkfifo(other.parent / "2.json")
    send(tmp_path, Cancel())
    found: list[Command] = []
    taking = threading.Thread(target=lambda: found.extend(box.receive()), daemon=True)
    taking.start()
    taking.join(LIMIT_S)
    assert found == [Cancel()]
    assert other.exists()


def test_an_order_that_is_being_written_is_not_seen(
    box: CommandInbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Command] = []
    replace = Path.replace

    def look_first(self: Path, target: Path) -> Path:
        assert json.loads(self.read_text())  # all of it is written, under another name
        seen.extend(box.receive())
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", look_first)
    send(tmp_path, Cancel())
    assert seen == []
    assert list(box.receive()) == [Cancel()]


def test_an_order_that_cannot_be_given_is_an_error_that_names_the_place(tmp_path: Path) -> None:
    (tmp_path / FOLDER_NAME).write_text("a file")
    with pytest.raises(SpecsweepError, match=FOLDER_NAME):
        send(tmp_path, Cancel())
    with pytest.raises(SpecsweepError, match=f"{FOLDER_NAME}: cannot be made"):
        send(tmp_path / "absent", Cancel())


def test_an_order_whose_file_cannot_be_deleted_is_not_obeyed_again_and_again(
    box: CommandInbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path, missing_ok: bool = False) -> None:
        raise PermissionError(13, "Permission denied")

    send(tmp_path, Prune(("a",)))
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", refuse)
        assert list(box.receive()) == []
    assert list(box.receive()) == [Prune(("a",))]
