import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

from specvit.probes import ProbeSplit
from specvit.probes.segmentation import knn
from specvit.probes.segmentation.knn import NearestFitter, cut_tiles, join_tiles, top_indices

KS = (1, 3, 10, 30)
GRID, TILE = (3, 2), 4


def tiles_of(masks):
    """Cut tiles by slices: (N * P, T)."""
    rows, columns = GRID
    cut = [
        mask[y * TILE : (y + 1) * TILE, x * TILE : (x + 1) * TILE].flatten()
        for mask in masks
        for y in range(rows)
        for x in range(columns)
    ]
    return torch.stack(cut).numpy()


def without_ignored(split, *, label):
    masks = torch.where(split.masks == 255, label, split.masks)
    return ProbeSplit(cls=split.cls, patches=split.patches, grid=split.grid, labels=None, masks=masks)


@pytest.mark.parametrize("max_similarities", [1 << 10, 1 << 22])
def test_predict_equals_scikit_learn_pixel_by_pixel(scenes, training_of, monkeypatch, max_similarities):
    monkeypatch.setattr(knn, "MAX_SIMILARITIES", max_similarities)
    train, val = without_ignored(scenes(60, seed=0), label=1), scenes(20, seed=1)
    scaler = StandardScaler().fit(train.patches.flatten(0, 1).double().numpy())
    x, queries = (scaler.transform(part.patches.flatten(0, 1).double().numpy()) for part in (train, val))

    fitter = NearestFitter(training_of(train), max_patches=10_000)

    for k in KS:
        reference = KNeighborsClassifier(k, metric="cosine").fit(x, tiles_of(train.masks))
        (ours,) = fitter.fit_whole(k).predict(val, torch.arange(20))
        np.testing.assert_array_equal(tiles_of(ours), reference.predict(queries))


def test_fit_part_holds_every_k_and_standardises_by_the_fitted_images_alone(scenes, training_of):
    train = without_ignored(scenes(50, seed=0), label=0)
    training = training_of(train)
    fitted, held_out = training.fitted, training.held_out
    scaler = StandardScaler().fit(train.patches[fitted].flatten(0, 1).double().numpy())
    x, queries = (scaler.transform(train.patches[i].flatten(0, 1).double().numpy()) for i in (fitted, held_out))

    ways = list(NearestFitter(training, max_patches=10_000).fit_part((10, 1, 3)).predict(train, held_out))

    for k, ours in zip((10, 1, 3), ways, strict=True):
        reference = KNeighborsClassifier(k, metric="cosine").fit(x, tiles_of(train.masks[fitted]))
        np.testing.assert_array_equal(tiles_of(ours), reference.predict(queries))


def one_patch(tokens, tiles):
    """Make a split of images of one patch of 2 x 2 pixels."""
    patches = torch.tensor(tokens, dtype=torch.float32)[:, None]
    masks = torch.tensor(tiles, dtype=torch.uint8).view(-1, 2, 2)
    return ProbeSplit(cls=patches[:, 0], patches=patches, grid=(1, 1), labels=None, masks=masks)


def test_predict_ignored_pixels_do_not_vote(training_of):
    train = one_patch([[1.0, 0.9], [1.0, 1.1], [-1.0, -1.0]], [[255, 255, 1, 255], [2, 255, 1, 255], [3, 3, 3, 3]])
    val = one_patch([[1.0, 1.0]], [[0, 0, 0, 0]])

    (ours,) = NearestFitter(training_of(train), max_patches=9).fit_whole(2).predict(val, torch.arange(1))

    # The first two vote. Pixel 0: class 2 alone. Pixel 2: class 1. Pixels 1 and 3: nobody, so the tile's votes.
    assert ours.flatten().tolist() == [2, 1, 1, 1]


def test_predict_votes_that_are_equal_go_to_the_lowest_class(training_of):
    train = one_patch([[1.0, 0.9], [1.0, 1.1]], [[3, 3, 3, 1], [2, 2, 2, 2]])

    (ours,) = NearestFitter(training_of(train), max_patches=9).fit_whole(2).predict(train, torch.arange(1))

    assert ours.flatten().tolist() == [2, 2, 2, 1]


def test_fit_k_beyond_the_number_of_patches_takes_all_of_them(scenes, training_of):
    train = scenes(4, seed=0)
    fitter = NearestFitter(training_of(train), max_patches=5)

    (beyond,), (five,) = (fitter.fit_whole(k).predict(train, torch.arange(4)) for k in (30, 5))

    assert torch.equal(beyond, five)


@settings(max_examples=40, deadline=None)
@given(
    num_columns=st.integers(1, 400), share=st.floats(0, 1), seed=st.integers(0, 2**32 - 1), num_rows=st.integers(1, 4)
)
def test_top_indices_finds_the_largest_in_order(num_columns, share, seed, num_rows):
    k = max(1, min(num_columns, round(share * 12)))
    values = np.random.default_rng(seed).permutation(num_rows * num_columns).reshape(num_rows, num_columns)

    ours = top_indices(torch.from_numpy(values).float(), k)

    np.testing.assert_array_equal(ours.numpy(), np.argsort(-values, axis=1)[:, :k])


@given(rows=st.integers(1, 4), columns=st.integers(1, 4), height=st.integers(1, 3), width=st.integers(1, 3))
def test_cut_tiles_and_join_tiles_are_inverse(rows, columns, height, width):
    masks = torch.arange(2 * rows * height * columns * width).view(2, rows * height, columns * width)

    tiles = cut_tiles(masks, (rows, columns))

    assert torch.equal(tiles[1, columns - 1], masks[1, :height, -width:].flatten())
    assert torch.equal(join_tiles(tiles, (rows, columns), size=tuple(masks.shape[1:])), masks)
