"""Paths that leave their folder, and files that both splits name."""

from __future__ import annotations

from pathlib import Path

import pytest

from specvit.data.reading.paths import check_disjoint, is_inside
from specvit.errors import DataError


@pytest.mark.parametrize("path", ["a", "a/b.png", "a..b", "...", "a/./b", "\udcff.png"])
def test_paths_that_stay_in_their_folder(path: str) -> None:
    assert is_inside(path)


@pytest.mark.parametrize("path", ["", ".", "/a", "//a", "..", "a/../b", "a/..", "a\0b", "\ud800.png"])
def test_paths_that_leave_their_folder(path: str) -> None:
    assert not is_inside(path)


def test_a_file_of_both_splits_is_found_under_another_name(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name).touch()
    (tmp_path / "link").symlink_to(tmp_path / "a")
    train = [tmp_path / "a", tmp_path / "b"]
    check_disjoint(train, [tmp_path / "c"], what="an image", place="both lists")
    with pytest.raises(DataError, match=r"both lists must not share an image, as they do '.*/link', and 1 more"):
        check_disjoint(train, [tmp_path / "link", tmp_path / "b"], what="an image", place="both lists")
    with pytest.raises(DataError, match=r"as they do '.*/x/\.\./b'$"):
        check_disjoint(train, [tmp_path / "x" / ".." / "b"], what="an image", place="both lists")
