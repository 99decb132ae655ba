"""Cutting a batch into parts."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from specvit.training.learner import Batch


def _batch(size: int) -> Batch:
    return Batch(images=torch.zeros(size, 3, 4, 4), labels=None, step=2, steps=5, seed=7)


@given(batch_size=st.integers(1, 20), size=st.integers(1, 25), data=st.data())
def test_parts_cover_their_images_once_in_order(batch_size: int, size: int, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, batch_size - 1))
    stop = data.draw(st.integers(start + 1, batch_size))
    parts = _batch(batch_size).slices(slice(start, stop), size=size)
    assert [i for part in parts for i in range(part.start, part.stop)] == list(range(start, stop))
    assert all(part.size == size for part in parts[:-1])
    assert 1 <= parts[-1].size <= size
    assert sum(part.fraction for part in parts) == pytest.approx((stop - start) / batch_size)
    assert {part.seed for part in parts} == {_batch(batch_size).step_seed}
