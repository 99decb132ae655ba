"""Cutting a batch: which rows belong to a part, and what it draws."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from timm.layers.drop import DropPath
from torch import Tensor, nn

from specvit.training.batch_parts import BatchSlice, current_slice, sampling_as_whole_batch, slice_batch, step_seed
from specvit.training.learner import Batch


def _batch(size: int) -> Batch:
    return Batch(images=torch.zeros(size, 3, 4, 4), labels=None, step=2, steps=5, seed=7)


@given(batch_size=st.integers(1, 20), size=st.integers(1, 25), data=st.data())
def test_parts_cover_their_images_once_in_order(batch_size: int, size: int, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, batch_size - 1))
    stop = data.draw(st.integers(start + 1, batch_size))
    parts = slice_batch(_batch(batch_size), slice(start, stop), size=size)
    assert [i for part in parts for i in range(part.start, part.stop)] == list(range(start, stop))
    assert all(part.size == size for part in parts[:-1])
    assert 1 <= parts[-1].size <= size
    assert sum(part.fraction for part in parts) == pytest.approx((stop - start) / batch_size)
    assert {part.seed for part in parts} == {step_seed(_batch(batch_size))}


def test_a_part_takes_its_images_out_of_every_view() -> None:
    part = BatchSlice(start=1, stop=3, batch_size=4, seed=0)
    # Views 0 and 1 of images 0 to 3, numbered 10 view + image.
    rows = torch.tensor([0, 1, 2, 3, 10, 11, 12, 13])
    assert part.of(rows).tolist() == [1, 2, 11, 12]
    assert part.of(rows.view(-1, 1, 1).expand(-1, 2, 3)).shape == (4, 2, 3)
    assert not part.is_whole
    whole = BatchSlice(start=0, stop=4, batch_size=4, seed=0)
    assert whole.is_whole
    assert whole.of(rows) is rows


@given(data=st.data(), batch_size=st.integers(1, 6), num_views=st.integers(1, 3))
def test_rows_that_are_chosen_of_the_batch_are_found_in_its_parts(
    data: st.DataObject, batch_size: int, num_views: int
) -> None:
    start = data.draw(st.integers(0, batch_size - 1))
    part = BatchSlice(start=start, stop=data.draw(st.integers(start + 1, batch_size)), batch_size=batch_size, seed=0)
    numbers = torch.arange(num_views * batch_size)
    chosen = torch.tensor(data.draw(st.permutations(numbers.tolist())))[: data.draw(st.integers(0, len(numbers)))]
    own = part.of(numbers)
    assert part.count_rows(len(own)) == len(numbers)
    assert own[part.places(chosen)].tolist() == [row for row in chosen.tolist() if row in own.tolist()]


class _TwoLayers(nn.Module):
    """Stochastic depth twice, as in a block, and once in a place of other dimensions."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList(DropPath(rate) for _ in range(3))

    def forward(self, x: Tensor) -> list[Tensor]:
        return [self.layers[0](x), self.layers[1](x), self.layers[2](x[:, 0])]


@pytest.mark.parametrize("rate", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("num_views", [1, 2])
def test_stochastic_depth_of_parts_is_that_of_the_whole_batch(rate: float, num_views: int) -> None:
    model, batch = _TwoLayers(rate), _batch(6)
    x = torch.rand(num_views * 6, 3, 2, generator=torch.Generator().manual_seed(0)) + 1
    torch.manual_seed(step_seed(batch))
    whole = [*model(x), *model(x)]  # two passes of a step, such as of global and of local views
    for part in slice_batch(batch, slice(0, 6), size=4):
        with sampling_as_whole_batch(part, model):
            passed = [*model(part.of(x)), *model(part.of(x))]
        for one, other in zip(passed, whole, strict=True):
            assert torch.equal(one, part.of(other))
    if rate == 0.4:
        assert any((one == 0).any() and (one != 0).any() for one in whole)


def test_models_draw_by_themselves_again_after_a_part_also_if_it_fails() -> None:
    model, part = _TwoLayers(0.5), BatchSlice(start=0, stop=2, batch_size=4, seed=0)
    forward = model.layers[0].forward
    seen = []

    def fail(part: BatchSlice) -> None:
        with sampling_as_whole_batch(part, model):
            seen.append(current_slice())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail(part)
    assert seen == [part]
    assert current_slice() is None
    assert model.layers[0].forward == forward
    assert "forward" not in vars(model.layers[0])


def test_in_evaluation_nothing_is_dropped_from_a_part() -> None:
    model, part = _TwoLayers(0.9).eval(), BatchSlice(start=0, stop=2, batch_size=4, seed=0)
    with sampling_as_whole_batch(part, model):
        assert all(torch.equal(one, torch.ones_like(one)) for one in model(torch.ones(2, 3, 2)))


def test_a_part_that_is_the_whole_batch_leaves_the_generator_alone() -> None:
    model, part = _TwoLayers(0.5), BatchSlice(start=0, stop=4, batch_size=4, seed=0)
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    with sampling_as_whole_batch(part, model):
        assert current_slice() is None
        assert torch.equal(torch.rand(2), expected)
