"""Parts of a batch: which rows belong to one, and what it draws."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from specvit.models.batch_slice import BatchSlice, current_slice, sampling_as_whole_batch
from specvit.models.stochastic_depth import DropPath
from specvit.training.learner import Batch


def _batch(size: int) -> Batch:
    return Batch(images=torch.zeros(size, 3, 4, 4), labels=None, step=2, steps=5, seed=7)


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
    torch.manual_seed(batch.step_seed)
    whole = [*model(x), *model(x)]  # two passes of a step, such as of global and of local views
    for part in batch.slices(slice(0, 6), size=4):
        with sampling_as_whole_batch(part):
            passed = [*model(part.of(x)), *model(part.of(x))]
        for one, other in zip(passed, whole, strict=True):
            assert torch.equal(one, part.of(other))
    if rate == 0.4:
        assert any((one == 0).any() and (one != 0).any() for one in whole)


def test_models_draw_by_themselves_again_after_a_part_also_if_it_fails() -> None:
    part = BatchSlice(start=0, stop=2, batch_size=4, seed=0)
    seen = []

    def fail(part: BatchSlice) -> None:
        with sampling_as_whole_batch(part):
            seen.append(current_slice())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail(part)
    assert seen == [part]
    assert current_slice() is None


def test_in_evaluation_nothing_is_dropped_from_a_part() -> None:
    model, part = _TwoLayers(0.9).eval(), BatchSlice(start=0, stop=2, batch_size=4, seed=0)
    with sampling_as_whole_batch(part):
        assert all(torch.equal(one, torch.ones_like(one)) for one in model(torch.ones(2, 3, 2)))


def test_a_part_that_is_the_whole_batch_leaves_the_generator_alone() -> None:
    part = BatchSlice(start=0, stop=4, batch_size=4, seed=0)
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    with sampling_as_whole_batch(part):
        assert current_slice() is None
        assert torch.equal(torch.rand(2), expected)
