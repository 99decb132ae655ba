"""Counting what is not read: names in folders, texts in a file, and no longer than is allowed."""

from __future__ import annotations

from itertools import count
from pathlib import Path

import pytest

from specvit.data.reading import counting
from specvit.data.reading.counting import Deadline


def test_names_of_images_are_counted(tmp_path: Path) -> None:
    for name in ("a/1.jpg", "a/2.JPEG", "a/.3.png", "a/4.txt", "b/5.webp", "b/below/6.png", ".c/7.png", "8.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    deadline = Deadline()
    assert {folder.name for folder in deadline.folders(tmp_path)} == {"a", "b"}
    assert deadline.count(deadline.folders(tmp_path)) == 3
    assert deadline.count([tmp_path / "a"], (".txt",)) == 1
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    found = sorted(str(path.relative_to(tmp_path)) for path in deadline.tree(tmp_path))
    assert found == ["8.png", "a/1.jpg", "a/2.JPEG", "a/4.txt", "a/up", "b/5.webp", "b/below/6.png"]


def test_texts_are_counted_where_parts_of_a_file_meet_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_bytes(b'x"name"' * 20 + b'"nam')
    for size in range(1, 15):
        monkeypatch.setattr(counting, "_PART_BYTES", size)
        assert Deadline().count_text(tmp_path / "a", b'"name"') == 20


def test_what_takes_too_long_is_not_counted(tmp_path: Path) -> None:
    (tmp_path / "1.jpg").touch()
    (tmp_path / "a").write_text("a")
    seconds = count()
    assert Deadline(1.0, clock=lambda: next(seconds)).count([tmp_path]) == 1
    restarted = Deadline(1.5, clock=lambda: next(seconds))
    for _ in range(3):  # seconds that are not counted
        next(seconds)
        restarted.restart()
    assert restarted.count([tmp_path]) == 1
    for late in (Deadline(0.5, clock=lambda: next(seconds)), Deadline(-1.0)):
        with pytest.raises(TimeoutError):
            late.count([tmp_path])
        with pytest.raises(TimeoutError):
            late.count_text(tmp_path / "a", b"a")
