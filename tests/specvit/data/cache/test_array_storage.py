"""Rows in memory and in files: the same arrays, and room that is checked before anything is decoded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import DTypeLike

from specvit.data.cache import array_storage
from specvit.data.cache.array_storage import DiskStorage, MemoryStorage, Storage
from specvit.errors import DataError


def storages(folder: Path) -> tuple[Storage, Storage]:
    return MemoryStorage(), DiskStorage(folder)


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float16, np.int16])
@pytest.mark.parametrize("shape", [(3, 4, 4), (5,), ()])
def test_rows_set_in_any_order_come_back_as_numpy_reads_them(
    dtype: DTypeLike, shape: tuple[int, ...], tmp_path: Path
) -> None:
    expected = np.random.default_rng(0).integers(0, 100, (6, *shape)).astype(dtype)
    for made in storages(tmp_path):
        rows = made.rows("train_images", 6, shape, dtype)
        for index in (5, 0, 3, 1, 4, 2):
            rows[index] = expected[index]
        array = made.finish(rows)
        np.testing.assert_array_equal(array, expected)
        assert array.dtype == dtype
    np.testing.assert_array_equal(np.load(tmp_path / "train_images.npy", allow_pickle=False), expected)


@given(kept=st.integers(0, 1200))
def test_fewer_rows_than_asked_for_are_kept(kept: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("rows")
    for made in storages(folder):
        rows = made.rows("labels", 1200, (), np.int64)
        for index in range(kept):
            rows[index] = np.int64(index)
        np.testing.assert_array_equal(made.finish(rows, kept), np.arange(kept))


def test_a_row_of_another_place_or_shape_is_refused(tmp_path: Path) -> None:
    for made in storages(tmp_path):
        rows = made.rows("images", 2, (3,), np.uint8)
        with pytest.raises(IndexError):
            rows[2] = np.zeros(3, np.uint8)
        with pytest.raises(ValueError, match="broadcast"):
            rows[0] = np.zeros(4, np.uint8)


def test_images_that_exceed_half_of_the_memory_are_refused_before_they_are_decoded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(array_storage, "usable_memory", lambda: 2_000_000_000)
    made = MemoryStorage()
    made.rows("train_images", 900, (1000, 1000), np.uint8)
    rule = r"take 1\.8 GB, more than 50% of this machine's memory, 2\.0 GB: set data\.cache: disk"
    with pytest.raises(DataError, match=rule):
        made.rows("val_images", 900, (1000, 1000), np.uint8)
    rule = r"^the targets at the size of probes take .* 2\.0 GB: set a smaller data\.probe_size$"
    with pytest.raises(DataError, match=rule):
        MemoryStorage(keeps_encoded=True).rows("val_masks", 1900, (1000, 1000), np.uint8)


def test_images_that_exceed_the_free_disk_are_refused_before_they_are_decoded(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"take 1000000000\.0 GB, but '.*' has .* GB free: make room, or set data"):
        DiskStorage(tmp_path).rows("train_images", 10**12, (10**6,), np.uint8)
    assert list(tmp_path.iterdir()) == []
