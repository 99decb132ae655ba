"""An index of a tree of files: a second start lists none of them, until a folder has changed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from specvit.data import Dataset
from specvit.data.cache import folder_index
from specvit.data.encoded import EncodedImages
from specvit.data.sources import image_folder
from specvit.data.sources.image_folder import ImageFolder

from ..reading.test_pixels import encode, photograph


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write two classes of two images in both splits, as if some time ago, and a file that is passed over."""
    monkeypatch.setattr(folder_index, "LEAST_FILES", 1)
    root = tmp_path / "tree"
    for seed in range(8):
        place = root / ("train" if seed < 4 else "val") / "ab"[seed % 2]
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{seed}.jpg").write_bytes(encode(photograph(seed=seed)))
    (root / "train" / "a" / "note.txt").write_text("x")
    settle(root)
    return root


def settle(root: Path) -> None:
    for folder in (root, *root.rglob("*/")):
        os.utime(folder, (1e9, 1e9))


def load(root: Path, **fields: Any) -> Dataset:
    cache = str(root.parent / "cache")
    return ImageFolder(root=str(root), image_size=16, keep="encoded", cache_folder=cache, **fields).load()


def indices(root: Path) -> list[Path]:
    return sorted((root.parent / "cache").glob("*"))


def assert_same(one: Dataset, other: Dataset) -> None:
    for split in ("train", "val"):
        images, others = getattr(one, split).images, getattr(other, split).images
        assert isinstance(images, EncodedImages)
        np.testing.assert_array_equal(images[:], others[:])
        np.testing.assert_array_equal(getattr(one, split).labels, getattr(other, split).labels)
    for name in ("class_names", "fingerprint", "passed_over"):
        assert getattr(one, name) == getattr(other, name)


def test_a_second_start_lists_no_file(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load(tree)
    assert len(indices(tree)) == 1
    assert first.passed_over == {".txt": 1}

    def refuse(folder: Path) -> None:
        raise AssertionError(f"listed {folder}")

    monkeypatch.setattr(image_folder, "list_images", refuse)
    monkeypatch.setattr(image_folder, "visible_entries", refuse)
    assert_same(load(tree), first)
    assert load(tree, workers=2).train.image_size == 16  # settings of the reading are those of today


def test_a_file_that_came_or_went_is_noticed(tree: Path) -> None:
    first = load(tree)
    (tree / "val" / "b" / "9.jpg").write_bytes(encode(photograph(seed=9)))
    more = load(tree)
    assert len(more.val) == len(first.val) + 1
    settle(tree)
    load(tree)
    (tree / "val" / "b" / "9.jpg").unlink()
    assert_same(load(tree), first)


def test_folders_that_were_changed_just_now_are_not_indexed(tree: Path) -> None:
    (tree / "train" / "b" / "9.jpg").write_bytes(encode(photograph(seed=9)))
    load(tree)
    assert indices(tree) == []


def test_a_damaged_index_is_made_anew(tree: Path) -> None:
    first = load(tree)
    (path,) = indices(tree)
    whole = path.read_bytes()
    for damaged in (b"", b"nothing", whole[: len(whole) // 2]):
        path.write_bytes(damaged)
        assert_same(load(tree), first)
        assert path.read_bytes() == whole


def test_where_the_folder_cannot_be_written_nothing_is_kept(tree: Path) -> None:
    (tree.parent / "cache").write_text("a file")
    assert len(load(tree).train) == 4


def test_a_small_tree_has_no_index(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder_index, "LEAST_FILES", 9)
    load(tree)
    assert indices(tree) == []
