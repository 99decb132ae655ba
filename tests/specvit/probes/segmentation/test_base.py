import numpy as np
import pytest
import torch
from torchmetrics.classification import MulticlassJaccardIndex

from specvit.errors import DataError
from specvit.probes import ProbeSplit
from specvit.probes.segmentation import base
from specvit.probes.segmentation.base import Segmenter, chunks, draw_patches, score
from specvit.seeding import torch_stream

NUM_CLASSES = 4


class Fixed(Segmenter):
    """Segment as was drawn, in three ways."""

    def __init__(self, predictions):
        self.predictions = predictions

    def predict(self, part, images):
        del part
        yield from self.predictions[:, images]


@pytest.mark.parametrize("chunk_values", [1, 300, 1 << 22])
def test_score_equals_torchmetrics_way_by_way_in_chunks_of_any_size(scenes, monkeypatch, chunk_values):
    monkeypatch.setattr(base, "CHUNK_VALUES", chunk_values)
    part, images = scenes(9, seed=0), torch.tensor([1, 2, 5, 8])
    predictions = torch.randint(NUM_CLASSES, (3, *part.masks.shape), generator=torch.Generator().manual_seed(0))

    ours = score(Fixed(predictions), part, images, num_classes=NUM_CLASSES)

    # torchmetrics divides in float32, so to 1e-6 of a share, not of a percentage.
    metric = MulticlassJaccardIndex(num_classes=NUM_CLASSES, average="macro", ignore_index=255)
    expected = [float(metric(way[images], part.masks[images].long())) for way in predictions]
    np.testing.assert_allclose(np.array(ours) / 100, expected, atol=1e-6)


def test_score_without_a_labelled_pixel_is_an_error(scenes):
    part = scenes(3, seed=0)
    part.masks.fill_(255)

    with pytest.raises(DataError, match="at least 1 pixel"):
        score(Fixed(torch.zeros(1, *part.masks.shape).long()), part, torch.arange(3), num_classes=NUM_CLASSES)


@pytest.mark.parametrize("at_most", [25, 1000])
@pytest.mark.parametrize("chunk_values", [1, 200, 1 << 22])
def test_draw_patches_in_chunks_of_any_size_equals_counting_everything(
    scenes, training_of, monkeypatch, chunk_values, at_most
):
    split, images = scenes(20, seed=0), torch.tensor([9, 2, 5, 17, 0, 11, 12])
    counts = base.count_classes(split.masks[images], split.grid, num_classes=NUM_CLASSES)
    labelled = counts.any(1).nonzero().flatten()
    if len(labelled) > at_most:
        order = torch.randperm(len(labelled), generator=torch_stream(0, "patches"))
        labelled = labelled[order[:at_most].sort().values]
    monkeypatch.setattr(base, "CHUNK_VALUES", chunk_values)

    indices, drawn = draw_patches(training_of(split), images, at_most=at_most)

    assert torch.equal(indices, images[labelled // 6] * 6 + labelled % 6)
    assert torch.equal(drawn, counts[labelled])


@pytest.mark.parametrize("values_per_image", [1, 10, 1 << 30])
def test_chunks_hold_every_image_once_in_order(scenes, values_per_image):
    images = torch.tensor([4, 0, 3])

    parts = chunks(images, scenes(5, seed=0), values_per_image=values_per_image)

    assert torch.equal(torch.cat(parts), images)


def test_draw_patches_takes_all_labelled_ones_where_they_are_few(scenes, training_of):
    split = scenes(11, seed=0)
    images = torch.tensor([9, 2, 5])

    indices, counts = draw_patches(training_of(split), images, at_most=1000)

    rows, columns = split.grid
    for index, row in zip(indices.tolist(), counts.tolist(), strict=True):
        image, patch = divmod(index, rows * columns)
        y, x = patch // columns * 4, patch % columns * 4
        tile = split.masks[image, y : y + 4, x : x + 4].flatten().tolist()
        assert row == [tile.count(value) for value in range(NUM_CLASSES)]
        assert sum(row) > 0
    labelled = sum(
        bool((split.masks[image, y : y + 4, x : x + 4] != 255).any())
        for image in images.tolist()
        for y in range(0, rows * 4, 4)
        for x in range(0, columns * 4, 4)
    )
    assert len(indices) == labelled < len(images) * rows * columns
    assert set((indices // (rows * columns)).tolist()) == {2, 5, 9}


def test_draw_patches_at_most_so_many_by_seed_and_masks_alone(scenes, training_of):
    split = scenes(30, seed=0)
    other = ProbeSplit(cls=split.cls, patches=split.patches * 3 - 1, grid=split.grid, labels=None, masks=split.masks)
    images = torch.arange(30)
    everything, _ = draw_patches(training_of(split), images, at_most=10_000)

    drawn, counts = draw_patches(training_of(split), images, at_most=20)

    assert len(drawn) == len(counts) == 20
    assert len(set(drawn.tolist())) == 20
    assert set(drawn.tolist()) < set(everything.tolist())
    assert torch.equal(drawn, draw_patches(training_of(other), images, at_most=20)[0])
    assert not torch.equal(drawn, draw_patches(training_of(split, seed=1), images, at_most=20)[0])
