import dataclasses

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from specvit.data.boxes import OwnBoxes
from specvit.data.sources.scenes import Scenes
from specvit.errors import DataError, DivergenceError
from specvit.models.patches import patchify
from specvit.probes import ProbeSplit
from specvit.probes.detection.boxes import Cells
from specvit.probes.detection.probe import Detection
from specvit.probes.detection.targets import assign

GRID, SIZE = (8, 8), 32
NUM_CLASSES = 8
QUICK = {"steps": 3, "batch_size": 8, "width": 4}


@pytest.fixture(scope="module")
def boxes():
    dataset = Scenes(num_train=300, num_val=100).load()
    return torch.from_numpy(dataset.train.boxes), torch.from_numpy(dataset.val.boxes)


def _split(patches, boxes, labels=None):
    return ProbeSplit(
        cls=patches[:, 0],
        patches=patches,
        grid=GRID,
        labels=labels,
        masks=None,
        boxes=boxes,
        image_size=(SIZE, SIZE),
    )


def _noise(boxes, seed):
    return _split(torch.randn(len(boxes), 64, 16, generator=torch.Generator().manual_seed(seed)), boxes)


def _truth(boxes):
    """Make tokens that hold the class and the box of the object that their patch is to learn."""
    cells = Cells(grid=GRID, image_size=(SIZE, SIZE))
    targets = assign(boxes, cells)
    one_hot = torch.nn.functional.one_hot(targets.classes + 1, NUM_CLASSES + 1).float()
    return _split(torch.cat([3 * one_hot, cells.encode(targets.boxes)], dim=2), boxes)


def _chosen_lr(probe, train):
    """Return the learning rate that ``evaluate`` refits with."""
    return probe._choose(probe._prepare(train, num_classes=NUM_CLASSES, seed=0), train, seed=0)


@pytest.mark.long
def test_tokens_that_hold_the_truth_are_read(boxes):
    train, val = map(_truth, boxes)
    metrics = Detection(lrs=(0.02,), steps=200).evaluate(train, val, num_classes=NUM_CLASSES, seed=0)

    assert set(metrics) == {"ap", "ap50"}
    assert metrics["ap50"] > 80
    assert 50 < metrics["ap"] <= metrics["ap50"] <= 100


def test_noise_detects_next_to_nothing(boxes):
    train, val = (_noise(part[:100], seed) for seed, part in enumerate(boxes))
    probe = Detection(lrs=(0.01,), steps=40, batch_size=8, width=16)

    assert probe.evaluate(train, val, num_classes=NUM_CLASSES, seed=0)["ap50"] < 5


def test_raw_pixels_tell_objects_that_differ_in_brightness_alone():
    # Dark and bright squares of whole patches on grey: a norm of every token by itself makes all patches alike.
    def squares(num_images, seed):
        generator = torch.Generator().manual_seed(seed)
        kinds, steps = torch.randint(2, (2, num_images), generator=generator)
        corners = 4 * torch.randint(5, (num_images, 2), generator=generator)
        images, boxes = torch.full((num_images, 3, SIZE, SIZE), 0.4), torch.zeros(num_images, 1, 5)
        for image, box, kind, side, (x, y) in zip(images, boxes, kinds, 8 + 4 * steps, corners, strict=True):
            image[:, y : y + side, x : x + side] = 0.1 if kind else 0.8
            box[0] = torch.tensor([x, y, x + side, y + side, kind])
        return _split(patchify(images, (4, 4)), boxes.short())

    probe = Detection(lrs=(0.01,), steps=100, batch_size=16)
    scores = probe.evaluate(squares(200, 0), squares(60, 1), num_classes=2, seed=0)
    assert scores["ap50"] > 60


def test_same_seed_gives_identical_numbers(boxes):
    train, val = (_truth(part[:40]) for part in boxes)
    probe = Detection(lrs=(0.003, 0.03), steps=10, batch_size=16)
    first, again, other = (probe.evaluate(train, val, num_classes=NUM_CLASSES, seed=seed) for seed in (3, 3, 4))

    assert first == again
    assert first != other


@pytest.mark.long
def test_padding_and_the_order_of_its_rows_change_nothing(boxes):
    train, val = (_noise(part, seed) for seed, part in enumerate(boxes))
    padding = torch.tensor([0, 0, 0, 0, -1], dtype=torch.int16)

    def padded(part):
        rows = padding.expand(len(part), 2, 5)
        return dataclasses.replace(part, boxes=torch.cat([rows, part.boxes, rows], dim=1))

    probe = Detection(lrs=(0.01,), **QUICK)
    plain = probe.evaluate(train, val, num_classes=NUM_CLASSES, seed=0)
    assert probe.evaluate(padded(train), padded(val), num_classes=NUM_CLASSES, seed=0) == plain


def test_learning_rate_is_chosen_without_the_reported_split(boxes):
    # A rate of next to nothing leaves the head at its prior; the truth cannot be read with it.
    train = _truth(boxes[0])
    probe = Detection(lrs=(1e-9, 0.02), steps=40, batch_size=16)

    assert _chosen_lr(probe, train) == 0.02
    assert _chosen_lr(dataclasses.replace(probe, lrs=(1e-9,)), train) == 1e-9


def test_first_learning_rate_is_taken_where_a_part_has_no_box(boxes):
    only_one = boxes[0].clone()
    only_one[1:, :, 4] = -1
    train = _noise(only_one, 0)

    assert _chosen_lr(Detection(lrs=(0.02, 0.01), **QUICK), train) == 0.02


def test_single_image_can_be_fitted(boxes):
    train, val = _noise(boxes[0][:1], 0), _noise(boxes[1][:5], 1)
    metrics = Detection(**QUICK).evaluate(train, val, num_classes=NUM_CLASSES, seed=0)

    assert all(0 <= value <= 100 for value in metrics.values())


def test_boxes_at_the_size_of_files_are_scored_and_the_head_learns_those_of_the_square(boxes):
    part = _truth(boxes[0][:16])
    probe = Detection(lrs=(0.05,), steps=15, batch_size=8, width=8)

    def at_own_size(*, away):
        rows = [image[image[:, 4] >= 0].numpy() * np.array([4, 4, 4, 4, 1.0]) for image in part.boxes]
        for row in rows:
            row[:, :4] += away
        return dataclasses.replace(part, own={"boxes": OwnBoxes.of(rows, [SIZE * 4] * len(rows))})

    own, others = at_own_size(away=0), at_own_size(away=1000)
    plain = probe.evaluate(part, part, num_classes=NUM_CLASSES, seed=0)
    assert plain["ap50"] > 5
    assert probe.evaluate(own, own, num_classes=NUM_CLASSES, seed=0) == pytest.approx(plain, abs=1e-9)
    # Where no rate finds any of the file's objects, the first is taken.
    choosing = dataclasses.replace(probe, lrs=(1e-9, 0.05))
    assert (_chosen_lr(choosing, own), _chosen_lr(choosing, others)) == (0.05, 1e-9)


@pytest.mark.parametrize("split", ["train", "val"])
def test_features_that_are_no_numbers_are_refused(boxes, split):
    parts = {"train": _noise(boxes[0], 0), "val": _noise(boxes[1], 1)}
    parts[split].patches[2, 5, 1] = torch.nan
    with pytest.raises(DivergenceError, match=f"those of 1 of {len(parts[split])} {split} images"):
        Detection(**QUICK).evaluate(**parts, num_classes=NUM_CLASSES, seed=0)


def test_head_that_diverges_is_refused(boxes):
    train, val = (_noise(part, seed) for seed, part in enumerate(boxes))
    with pytest.raises(DivergenceError, match="'detection': what it has fitted is not finite"):
        Detection(lrs=(1e30,), **QUICK).evaluate(train, val, num_classes=NUM_CLASSES, seed=0)


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda part: dataclasses.replace(part, boxes=None), "the {} split has no boxes"),
        (lambda part: dataclasses.replace(part, image_size=None), "the {} split does not say how large"),
        (
            lambda part: dataclasses.replace(part, boxes=torch.full_like(part.boxes, -1)),
            "no image of the {} split has a box",
        ),
    ],
)
def test_split_without_boxes_is_refused(boxes, split, change, message):
    parts = {"train": _noise(boxes[0], 0), "val": _noise(boxes[1], 1)}
    parts[split] = change(parts[split])
    with pytest.raises(DataError, match=f"probe 'detection': {message.format(split)}"):
        Detection(**QUICK).evaluate(**parts, num_classes=NUM_CLASSES, seed=0)


@pytest.mark.parametrize("fields", [{"lrs": ()}, {"lrs": (0.0,)}, {"steps": 0}, {"batch_size": 0}, {"width": -1}])
def test_settings_that_cannot_fit_a_head_are_refused(fields):
    with pytest.raises(ValidationError):
        Detection(**fields)
