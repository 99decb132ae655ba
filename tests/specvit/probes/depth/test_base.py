import dataclasses

import numpy as np
import pytest
import torch

from specvit.errors import DataError
from specvit.probes.depth import base
from specvit.probes.depth.base import Estimator, measured_range, score, upsample

from .test_ridge import make_task


class Fixed(Estimator):
    """Predict the first channels of a token, as metres."""

    def on_grid(self, tokens):
        yield tokens[..., 0]
        yield tokens[..., 1]


def test_tokens_have_cls_beside_each_patch_if_asked_for():
    images = torch.tensor([3, 0])
    plain, beside = (make_task(4, with_cls=with_cls) for with_cls in (False, True))
    assert (plain.dim, beside.dim) == (6, 12)
    tokens = beside.tokens(images)
    assert torch.equal(tokens[..., :6], plain.tokens(images))
    for patch in range(6):
        assert torch.equal(tokens[:, patch, 6:], beside.split.cls[images])


def test_cls_of_another_width_than_patch_tokens_is_left_out():
    beside = make_task(4, with_cls=True)
    wide = dataclasses.replace(beside, split=dataclasses.replace(beside.split, cls=torch.ones(4, 3 * 224**2)))
    images = torch.tensor([3, 0])
    assert wide.dim == 6
    assert torch.equal(wide.tokens(images), beside.split.patches[images])


class Wide(Fixed):
    """Compute 100 numbers of every token, and note how many images it is given."""

    values_per_token = 100

    def __init__(self):
        self.images = []

    def on_grid(self, tokens):
        self.images.append(len(tokens))
        return super().on_grid(tokens)


def test_numbers_of_every_token_keep_to_the_budget_of_a_chunk(monkeypatch):
    task, images, estimator = make_task(5), torch.arange(5), Wide()
    monkeypatch.setattr(base, "CHUNK_VALUES", 2 * 6 * 100)  # two images of six tokens
    assert score(estimator, task, images) == score(Fixed(), task, images)
    assert estimator.images == [2, 2, 1]


def test_measured_range_looks_at_measured_pixels_only():
    depth = torch.tensor([[[0.0, -5.0], [torch.inf, torch.nan]], [[3.0, 0.5], [7.0, 0.0]]], dtype=torch.float16)
    limits = measured_range(depth)
    assert (limits.low_m, limits.high_m) == (0.5, 7.0)


def test_upsampling_is_bilinear_between_the_centres_of_patches():
    # One row of two patches of 4 pixels: centres at 2 and 6, pixels at 0.5, 1.5, ...
    pixels = upsample(torch.tensor([[10.0, 20.0]]), (1, 2), (4, 8))
    expected = [10, 10, 10 + 10 / 8, 10 + 30 / 8, 10 + 50 / 8, 10 + 70 / 8, 20, 20]
    np.testing.assert_allclose(pixels[0].numpy(), [expected] * 4, rtol=1e-6)


@pytest.mark.parametrize("chunk_values", [1 << 22, 1])
def test_every_way_is_scored_over_the_images_asked_for(chunk_values, monkeypatch):
    monkeypatch.setattr(base, "CHUNK_VALUES", chunk_values)
    task = make_task(5)
    task.split.patches[:] = torch.tensor([2.0, 5.0, 0.0, 0.0, 0.0, 0.0])
    images = torch.tensor([0, 3])
    scores = score(Fixed(), task, images)
    depth = task.depth.double().numpy()[[0, 3]]
    measured = [image[np.isfinite(image) & (image > 0)] for image in depth]
    for way, metres in zip(scores, (2.0, 5.0), strict=True):
        assert way.rmse == pytest.approx(np.mean([np.sqrt(np.mean((d - metres) ** 2)) for d in measured]), rel=1e-6)
        assert way.abs_rel == pytest.approx(100 * np.mean([np.mean(abs(d - metres) / d) for d in measured]), rel=1e-6)


def test_images_with_depth_are_those_with_a_measured_pixel():
    task = make_task(5)
    task.depth[1], task.depth[4] = torch.nan, 0.0
    assert task.with_depth(torch.tensor([4, 3, 1, 0])).tolist() == [3, 0]
    with pytest.raises(DataError, match="at least 1 pixel whose depth is measured"):
        score(Fixed(), task, torch.tensor([1, 4]))


class Maps:
    """Depth at its own size, given as lists of rows; what is taken of it is noted."""

    def __init__(self, *maps):
        self.maps, self.taken = [np.array(one, dtype=np.float32) for one in maps], []

    def __len__(self):
        return len(self.maps)

    def __getitem__(self, image):
        self.taken.append(image)
        return self.maps[image]

    def take(self, images):
        return Maps(*(self.maps[image] for image in images.tolist()))


def with_own(own, tokens):
    """Make a task of a grid of two by two patches, whose depth at the size of the images says nothing of use."""
    tokens = torch.tensor(tokens)
    split = dataclasses.replace(
        make_task(1).split,
        cls=torch.zeros(len(tokens), 1),
        patches=tokens,
        grid=(2, 2),
        depth=torch.full((len(tokens), 6, 6), 7.0, dtype=torch.float16),
        own={"depth": own},
    )
    return base.Task(split=split, with_cls=False)


@pytest.mark.parametrize("chunk_values", [1 << 22, 1])
def test_predictions_are_scored_at_the_own_size_of_the_depth_maps(chunk_values, monkeypatch):
    monkeypatch.setattr(base, "CHUNK_VALUES", chunk_values)
    # 2 m or 4 m everywhere. Of the first map half is 2 m and half 4 m; of the second a pixel of nine is 2 m, the others
    # are not measured; of the third none is.
    halves, one = [[2, 2, 4, 4]] * 4, [[0, np.nan, -1], [np.inf, 2, 0], [0, 0, 0]]
    own = Maps(halves, one, [[0]])
    task = with_own(own, [[[2.0, 4.0]] * 4] * 3)
    two, four = score(Fixed(), task, torch.arange(3))
    assert own.taken == [0, 1, 2]  # once for both ways
    assert two.rmse == pytest.approx((2**0.5 + 0) / 2)
    assert (two.abs_rel, two.delta1) == (pytest.approx((25 + 0) / 2), pytest.approx((50 + 100) / 2))
    assert four.rmse == pytest.approx((2**0.5 + 2) / 2)
    assert (four.abs_rel, four.delta1) == (pytest.approx((50 + 100) / 2), pytest.approx((50 + 0) / 2))
    of_second = base.Task(split=task.split.subset(torch.tensor([2, 1])), with_cls=False)
    assert score(Fixed(), of_second, torch.arange(2))[1].rmse == 2
    with pytest.raises(DataError, match="at least 1 pixel whose depth is measured"):
        score(Fixed(), task, torch.tensor([2]))


@pytest.mark.parametrize(
    "own",
    [
        # Centres of patches at a quarter and three quarters of a side, where the grid says 1, 3 and 5, 7.
        [[1, 1.5, 2.5, 3], [2, 2.5, 3.5, 4], [4, 4.5, 5.5, 6], [5, 5.5, 6.5, 7]],
        [[1, 3], [5, 7]],
        [[4]],
    ],
)
def test_predictions_are_interpolated_from_the_grid_to_the_own_size_bilinearly(own):
    task = with_own(Maps(own), [[[1.0, 9.0], [3.0, 9.0], [5.0, 9.0], [7.0, 9.0]]])
    right, wrong = score(Fixed(), task, torch.arange(1))
    assert (right.rmse, right.abs_rel, right.delta1) == (0, 0, 100)
    assert wrong.rmse > 2
