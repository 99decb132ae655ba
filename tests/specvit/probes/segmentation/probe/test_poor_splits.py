"""Splits of which little can be learnt: few classes, constant features, one image, no labels, NaN."""


import numpy as np
import pytest
import torch

from specvit.errors import DataError, DivergenceError
from specvit.probes.segmentation.probe import Segmentation
from specvit.probes.selection import split_off_tenth

from .masks_of_rectangles import NUM_CLASSES, SIZE, chosen, make_split, scenes


def test_evaluate_with_a_class_that_train_lacks_never_predicts_it():
    train = scenes(30, seed=0)
    masks = train.masks.clone()
    masks[masks == 2] = 255
    val = make_split(train.patches[:1], torch.full((1, *SIZE), 2))

    # Class 2 has no intersection, and neither has what is predicted instead.
    score = Segmentation().evaluate(make_split(train.patches, masks), val, num_classes=4, seed=0)["miou"]
    assert score == 0.0


def test_evaluate_with_one_class_in_train_predicts_that_class():
    train = make_split(np.random.default_rng(0).normal(size=(12, 6, 3)), np.full((12, *SIZE), 3))
    half = np.full((1, *SIZE), 3)
    half[:, :6] = 1
    val = make_split(np.zeros((1, 6, 3)), half)

    # Class 3: half of the pixels; class 1: none.
    assert Segmentation().evaluate(train, val, num_classes=4, seed=0)["miou"] == pytest.approx(25.0)


@pytest.mark.parametrize("value", [0.0, 0.1, 1e6])
@pytest.mark.parametrize("dim", [1, 3])
def test_evaluate_with_constant_features_predicts_the_commonest_class(value, dim):
    masks = np.zeros((20, *SIZE))
    masks[:, :2] = 1
    train = make_split(np.full((20, 6, dim), value), masks)

    score = Segmentation().evaluate(train, train, num_classes=2, seed=0)["miou"]

    # Class 1 covers 2 of 12 rows and is never predicted.
    assert score == pytest.approx(100 * (10 / 12) / 2)


def test_evaluate_with_a_single_training_image_fits_and_chooses_on_it():
    one = scenes(1, seed=0, noise=0.0)

    score = Segmentation().evaluate(one, one, num_classes=NUM_CLASSES, seed=0)["miou"]

    assert 0 < score <= 100


def test_choose_without_labels_in_the_held_out_tenth_takes_the_first():
    train = scenes(20, seed=0)
    fitted, held_out = split_off_tenth(20, None, seed=0)
    for part in (fitted, held_out):
        masks = train.masks.clone()
        masks[part] = 255
        blind = make_split(train.patches, masks)
        assert chosen(Segmentation(penalties=(0.3, 0.2)), blind, seed=0) == 0.3


@pytest.mark.parametrize("bad", ["train", "val"])
def test_evaluate_with_all_pixels_ignored_is_an_error(bad):
    splits = {"train": scenes(12, seed=0), "val": scenes(12, seed=1)}
    splits[bad].masks.fill_(255)

    with pytest.raises(DataError, match=f"every pixel of the {bad} masks is ignored"):
        Segmentation().evaluate(**splits, num_classes=NUM_CLASSES, seed=0)


@pytest.mark.parametrize("bad", ["train", "val"])
def test_evaluate_with_nan_features_is_a_divergence(bad):
    splits = {"train": scenes(12, seed=0), "val": scenes(12, seed=1)}
    splits[bad].patches[3, 0] = torch.nan

    with pytest.raises(DivergenceError, match=f"probe 'segmentation'.*1 of 12 {bad} images"):
        Segmentation().evaluate(**splits, num_classes=NUM_CLASSES, seed=0)
