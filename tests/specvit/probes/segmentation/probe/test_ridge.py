"""The ridge readout against scikit-learn and torchmetrics, pixel by pixel."""


import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge as SklearnRidge
from sklearn.preprocessing import StandardScaler

from specvit.probes.segmentation.base import count_classes
from specvit.probes.segmentation.probe import Segmentation
from specvit.probes.segmentation.readout import segment
from specvit.probes.segmentation.ridge import Ridge, class_weights
from specvit.probes.selection import split_off_tenth

from .masks_of_rectangles import (
    GRID,
    NUM_CLASSES,
    SIZE,
    TILE,
    chosen,
    fractions,
    make_split,
    reference_fit,
    reference_miou,
    scenes,
)


def test_count_classes_counts_every_class_in_every_patch():
    masks = scenes(5, seed=0).masks

    counts = count_classes(masks, GRID, num_classes=NUM_CLASSES)

    expected = fractions(masks.numpy())[..., :NUM_CLASSES].reshape(-1, NUM_CLASSES) * TILE**2
    np.testing.assert_allclose(counts.numpy(), expected)


@pytest.mark.parametrize("balance", [0.0, 0.5, 1.0])
def test_solve_equals_scikit_learn_on_pixels(balance):
    train = scenes(40, seed=0)
    patches, masks = train.patches.numpy().astype(float), train.masks.numpy()
    penalties = (10.0, 0.1, 1e-5)
    weights = class_weights(train, num_classes=NUM_CLASSES, balance=balance)

    readout = Ridge.sum_over(train, torch.arange(40), class_weights=weights).solve(penalties)

    for i, penalty in enumerate(penalties):
        scaler, ridge = reference_fit(patches, masks, penalty=penalty, balance=balance, weights_from=masks)
        x = patches.reshape(-1, patches.shape[-1])
        ours = (x - readout.offset.numpy()) @ readout.weight[i].numpy() + readout.bias[i].numpy()
        np.testing.assert_allclose(ours, ridge.predict(scaler.transform(x)), atol=1e-6)
        in_float32 = list(readout.scores(train.patches))[i].flatten(0, 1).numpy()
        np.testing.assert_allclose(in_float32, ours, atol=1e-4)


def test_solve_without_balance_is_ridge_regression_of_label_fractions():
    train = scenes(40, seed=0)
    shares = fractions(train.masks.numpy()).reshape(-1, NUM_CLASSES + 1)
    labelled = 1 - shares[:, -1]
    x = train.patches.double().flatten(0, 1).numpy()
    standardised = StandardScaler().fit_transform(x)
    kept = labelled > 0
    reference = SklearnRidge(alpha=0.05 * labelled.sum(), solver="cholesky").fit(
        standardised[kept], shares[kept, :-1] / labelled[kept, None], sample_weight=labelled[kept]
    )

    readout = Ridge.sum_over(train, torch.arange(40), class_weights=torch.ones(NUM_CLASSES).double()).solve([0.05])

    ours = (x - readout.offset.numpy()) @ readout.weight[0].numpy() + readout.bias[0].numpy()
    assert not kept.all()
    np.testing.assert_allclose(ours, reference.predict(standardised), atol=1e-6)


def test_sums_of_parts_and_of_chunks_equal_those_of_the_whole(monkeypatch):
    train, weights = scenes(30, seed=0), torch.tensor([1.0, 2.0, 3.0, 4.0]).double()
    whole = Ridge.sum_over(train, torch.arange(30), class_weights=weights)
    monkeypatch.setattr("specvit.probes.segmentation.base.CHUNK_VALUES", 500)

    parts = [Ridge.sum_over(train, part, class_weights=weights) for part in torch.arange(30).split(11)]
    added = parts[0] + parts[1] + parts[2]

    for name in ("moments", "gram", "cross"):
        torch.testing.assert_close(getattr(added, name), getattr(whole, name), rtol=1e-12, atol=1e-9)


@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
def test_segment_upsamples_scores_before_it_chooses(mode):
    scores = torch.randn(3, *GRID, NUM_CLASSES, generator=torch.Generator().manual_seed(0))
    upsampled = torch.nn.functional.interpolate(scores.permute(0, 3, 1, 2).contiguous(), size=SIZE, mode=mode)

    predictions = segment(scores, size=SIZE, upsample=mode)

    assert torch.equal(predictions, upsampled.argmax(1))


@pytest.mark.parametrize("upsample", ["bilinear", "nearest"])
def test_evaluate_equals_scikit_learn_and_torchmetrics_with_the_penalty_chosen_on_the_tenth(upsample):
    train, val = scenes(50, seed=0), scenes(30, seed=1)
    patches, masks = train.patches.numpy().astype(float), train.masks.numpy()
    fitted, held_out = (part.numpy() for part in split_off_tenth(50, None, seed=3))
    penalties = (10.0, 0.3, 1e-3)
    on_tenth = {}
    for penalty in penalties:
        fit = reference_fit(patches[fitted], masks[fitted], penalty=penalty, balance=0.5, weights_from=masks)
        on_tenth[penalty] = reference_miou(*fit, patches[held_out], masks[held_out], mode=upsample)
    penalty = max(penalties, key=on_tenth.__getitem__)
    probe = Segmentation(penalties=penalties, balance=0.5, upsample=upsample)

    assert chosen(probe, train, seed=3) == penalty
    fit = reference_fit(patches, masks, penalty=penalty, balance=0.5, weights_from=masks)
    expected = reference_miou(*fit, val.patches.numpy().astype(float), val.masks.numpy(), mode=upsample)
    ours = probe.evaluate(train, val, num_classes=NUM_CLASSES, seed=3)["miou"]
    assert ours == pytest.approx(expected, abs=1e-4)


def test_evaluate_chooses_the_penalty_without_the_masks_of_val(monkeypatch):
    train, val = scenes(40, seed=0), scenes(30, seed=1)
    solved_for = []
    solve = Ridge.solve

    def spy(self, penalties):
        solved_for.append(tuple(penalties))
        return solve(self, penalties)

    monkeypatch.setattr(Ridge, "solve", spy)
    shuffled = make_split(val.patches, val.masks.flip(0))
    scores = [Segmentation().evaluate(train, part, num_classes=4, seed=0) for part in (val, shuffled)]

    penalty = chosen(Segmentation(), train, seed=0)
    assert scores[0] != scores[1]
    assert solved_for[:4] == [Segmentation().penalties, (penalty,)] * 2


def test_evaluate_in_chunks_equals_evaluate_at_once(monkeypatch):
    train, val = scenes(40, seed=0), scenes(30, seed=1)
    at_once = Segmentation().evaluate(train, val, num_classes=NUM_CLASSES, seed=0)
    monkeypatch.setattr("specvit.probes.segmentation.base.CHUNK_VALUES", 1)

    in_chunks = Segmentation().evaluate(train, val, num_classes=NUM_CLASSES, seed=0)

    assert in_chunks["miou"] == pytest.approx(at_once["miou"], abs=1e-6)


def test_evaluate_with_tokens_that_tell_the_class_is_perfect():
    tiles = np.random.default_rng(0).integers(NUM_CLASSES, size=(40, *GRID))
    masks = tiles.repeat(TILE, 1).repeat(TILE, 2)
    split = make_split(np.eye(NUM_CLASSES)[tiles.reshape(40, -1)], masks)

    nearest = Segmentation(upsample="nearest").evaluate(split, split, num_classes=NUM_CLASSES, seed=0)

    assert nearest["miou"] == 100.0


def test_evaluate_with_balance_finds_a_rare_class_that_it_misses_without():
    # Class 1 covers 1 of 16 patches; its token differs from half of the others only.
    generator = np.random.default_rng(0)
    tiles = (generator.random((200, 6)) < 1 / 16).astype(int)
    tokens = np.where(tiles == 1, 1, generator.integers(2, size=tiles.shape))[..., None]
    split = make_split(tokens, tiles.reshape(200, *GRID).repeat(TILE, 1).repeat(TILE, 2))

    without, balanced = (
        probe.evaluate(split, split, num_classes=2, seed=0)["miou"]
        for probe in (Segmentation(balance=balance, upsample="nearest") for balance in (0.0, 1.0))
    )

    # Never predicted, class 1 has no intersection; always predicted at token 1, it has all of its pixels.
    num_rare, num_marked = (tiles == 1).sum(), (tokens == 1).sum()
    assert without == pytest.approx(100 * (1 - num_rare / tiles.size) / 2)
    found = num_rare / num_marked
    rest = (tiles.size - num_marked) / (tiles.size - num_rare)
    assert balanced == pytest.approx(100 * (found + rest) / 2)
