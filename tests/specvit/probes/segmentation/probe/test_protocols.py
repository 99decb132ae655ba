"""What holds for every protocol beside ridge."""


import numpy as np
import pytest
import torch

from specvit.probes.segmentation.probe import Segmentation
from specvit.probes.selection import split_off_tenth

from .masks_of_rectangles import NUM_CLASSES, SIZE, chosen, make_split, scenes

OTHERS = {
    "logistic": {"cs": (1e-3, 1.0)},
    "linear": {"lrs": (1e-3, 0.03), "steps": 40},
    "knn": {"ks": (1, 10)},
}


@pytest.mark.parametrize("protocol", OTHERS)
def test_evaluate_chooses_on_the_tenth_and_refits_on_all_of_train(protocol):
    train, val = scenes(50, seed=0), scenes(30, seed=1)
    probe = Segmentation(protocol=protocol, **OTHERS[protocol])
    candidates = next(iter(OTHERS[protocol].values()))
    fitted, held_out = split_off_tenth(50, None, seed=3)
    of_part, of_tenth = (
        make_split(train.patches[part], train.masks[part]) for part in (fitted, held_out)
    )
    name = next(iter(OTHERS[protocol]))
    alone = {c: Segmentation(protocol=protocol, **{**OTHERS[protocol], name: (c,)}) for c in candidates}
    on_tenth = {c: probe.evaluate(of_part, of_tenth, num_classes=4, seed=3)["miou"] for c, probe in alone.items()}

    best = chosen(probe, train, seed=3)

    assert len(set(on_tenth.values())) == 2
    assert best == max(on_tenth, key=on_tenth.__getitem__)
    whole = [each.evaluate(train, val, num_classes=NUM_CLASSES, seed=3) for each in (probe, alone[best])]
    assert whole[0] == whole[1]
    assert whole[0] == probe.evaluate(train, val, num_classes=NUM_CLASSES, seed=3)


@pytest.mark.parametrize("protocol", OTHERS)
def test_evaluate_by_any_protocol_leaves_inputs_and_the_global_generator_alone(protocol):
    train, val = scenes(20, seed=0), scenes(10, seed=1)
    before, state = (train.patches.clone(), train.masks.clone()), torch.get_rng_state()

    Segmentation(protocol=protocol, **OTHERS[protocol]).evaluate(train, val, num_classes=NUM_CLASSES, seed=0)

    assert torch.equal(train.patches, before[0])
    assert torch.equal(train.masks, before[1])
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("protocol", OTHERS)
def test_evaluate_by_any_protocol_with_one_class_in_train_predicts_that_class(protocol):
    train = make_split(np.random.default_rng(0).normal(size=(12, 6, 3)), np.full((12, *SIZE), 3))
    half = np.full((1, *SIZE), 3)
    half[:, :6] = 1
    val = make_split(np.zeros((1, 6, 3)), half)
    probe = Segmentation(protocol=protocol, **OTHERS[protocol])

    # Class 3: half of the pixels; class 1: none.
    assert probe.evaluate(train, val, num_classes=4, seed=0)["miou"] == pytest.approx(25.0)


@pytest.mark.parametrize("protocol", OTHERS)
def test_evaluate_by_any_protocol_with_a_single_training_image_fits_and_chooses_on_it(protocol):
    one = scenes(1, seed=0, noise=0.0)

    score = Segmentation(protocol=protocol, **OTHERS[protocol]).evaluate(one, one, num_classes=4, seed=0)["miou"]

    assert 0 < score <= 100


@pytest.mark.parametrize("protocol", OTHERS)
def test_evaluate_by_any_protocol_with_constant_features_predicts_the_commonest_class(protocol):
    masks = np.zeros((20, *SIZE))
    masks[:, :2] = 1
    train = make_split(np.full((20, 6, 3), 7.0), masks)
    # kNN: all patches are equally near, so it must be all of them that vote.
    fields = {"ks": (500,)} if protocol == "knn" else OTHERS[protocol]

    score = Segmentation(protocol=protocol, **fields).evaluate(train, train, num_classes=2, seed=0)["miou"]

    # Class 1 covers 2 of 12 rows and is never predicted.
    assert score == pytest.approx(100 * (10 / 12) / 2)


@pytest.mark.parametrize("protocol", OTHERS)
def test_evaluate_by_any_protocol_with_masks_from_inference_mode(protocol):
    # As a backbone's features come.
    with torch.inference_mode():
        train = scenes(20, seed=0)

    score = Segmentation(protocol=protocol, **OTHERS[protocol]).evaluate(train, train, num_classes=4, seed=0)["miou"]

    assert 0 < score <= 100
