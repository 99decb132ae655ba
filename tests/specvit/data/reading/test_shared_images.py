"""Images that are in both splits: found under any name, by their content alone."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from specvit.data.reading import shared_images
from specvit.data.reading.shared_images import Encoded, check_unshared
from specvit.errors import DataError

LONG = 3 * 4096


def check(root: Path, most: int = 0) -> None:
    train, val = ([Encoded.of_file(path) for path in sorted((root / split).iterdir())] for split in ("train", "val"))
    check_unshared(train, val, most=most)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Write files of equal lengths: some differ at their ends, some in front of them."""
    for number, split in enumerate(("train", "val")):
        (tmp_path / split).mkdir()
        for name in "abc":
            content = bytearray(LONG)
            content[0], content[-1] = ord(name) + 10 * number, ord(name)
            (tmp_path / split / name).write_bytes(content)
    return tmp_path


def test_files_of_one_length_that_differ_anywhere_are_not_shared(root: Path) -> None:
    check(root)


@pytest.mark.parametrize("share", [os.symlink, os.link, shutil.copy])
def test_a_file_under_another_name_is_shared(share: object, root: Path) -> None:
    share(root / "train" / "b", root / "val" / "other")  # type: ignore[operator]
    with pytest.raises(DataError, match=r"1 of 4 images .* the first '.*val/other', which is '.*train/b': metrics"):
        check(root)
    check(root, most=1)


def test_folder_that_is_a_link_shares_every_file(root: Path) -> None:
    shutil.rmtree(root / "val")
    (root / "val").symlink_to("train")
    with pytest.raises(DataError, match=r"3 of 3 images .* '.*val/a', which is '.*train/a': .*at most 2 may be"):
        check(root, most=2)


def test_empty_and_missing_files_are_left_to_whoever_reads_them(root: Path) -> None:
    for split in ("train", "val"):
        (root / split / "empty").touch()
        (root / split / "lost").symlink_to(root / "nowhere")
    check(root)


def test_only_files_of_one_length_are_opened(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "val" / "longer").write_bytes(bytes(LONG + 1))
    (root / "train" / "shorter").write_bytes(bytes(LONG - 1))
    opened: list[str] = []
    real = shared_images.open_regular

    def spy(path: Path, flags: int) -> int:
        opened.append(path.name)
        return real(path, flags)

    monkeypatch.setattr(shared_images, "open_regular", spy)
    check(root)
    assert set(opened) == {"a", "b", "c"}
