"""In-context segmentation against scikit-learn's neighbours, and where the answer is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors
from torchmetrics.classification import MulticlassJaccardIndex

from specvit.errors import DataError, DivergenceError
from specvit.probes import ProbeSplit
from specvit.probes.in_context import InContext, memory
from specvit.probes.in_context.memory import Memory, draw_memory

GRID, TILE, NUM_CLASSES = (3, 2), 4, 4
NUM_PATCHES = GRID[0] * GRID[1]


def scenes(num_images: int, *, seed: int, noise: float = 1.0) -> ProbeSplit:
    """Make masks of tiles that are mostly of one class, some pixels ignored, and tokens that hint at the class."""
    rng = np.random.default_rng(seed)
    directions = np.random.default_rng(99).normal(size=(NUM_CLASSES, 7))
    main = rng.choice(NUM_CLASSES, size=(num_images, *GRID), p=(0.5, 0.3, 0.15, 0.05))
    masks = main.repeat(TILE, 1).repeat(TILE, 2)
    drawn = rng.random(masks.shape)
    masks = np.where(drawn < 0.2, rng.integers(NUM_CLASSES, size=masks.shape), masks)
    masks = np.where(drawn > 0.9, 255, masks)
    masks[::3, :TILE, :TILE] = 255
    tokens = directions[main.reshape(num_images, -1)]
    patches = torch.from_numpy(tokens + noise * rng.normal(size=tokens.shape)).float()
    masks_of = torch.from_numpy(masks.astype(np.uint8))
    return ProbeSplit(cls=patches[:, 0], patches=patches, grid=GRID, labels=None, masks=masks_of)


def tile(mask: torch.Tensor, patch: int) -> np.ndarray:
    y, x = patch // GRID[1] * TILE, patch % GRID[1] * TILE
    return mask[y : y + TILE, x : x + TILE].numpy().ravel()


def shares(split: ProbeSplit) -> np.ndarray:
    """Return the (N * P, K) share of every class among the labelled pixels of a patch, tile by tile; NaN if none."""
    rows = []
    for mask in split.masks:
        for patch in range(NUM_PATCHES):
            pixels = tile(mask, patch)
            counts = np.array([(pixels == value).sum() for value in range(NUM_CLASSES)], dtype=float)
            rows.append(counts / counts.sum() if counts.sum() else np.full(NUM_CLASSES, np.nan))
    return np.array(rows)


@pytest.mark.parametrize("max_values", [1 << 8, 1 << 22])
def test_the_metric_is_that_of_scikit_learns_neighbours(monkeypatch: pytest.MonkeyPatch, max_values: int) -> None:
    monkeypatch.setattr(memory, "MAX_VALUES", max_values)
    train, val = scenes(40, seed=0), scenes(15, seed=1)
    labels = shares(train)
    known = ~np.isnan(labels[:, 0])
    bank = train.patches.flatten(0, 1).double().numpy()[known]
    search = NearestNeighbors(n_neighbors=30, metric="cosine").fit(bank)
    distances, neighbours = search.kneighbors(val.patches.flatten(0, 1).double().numpy())
    weights = np.exp((1 - distances) / 0.02)
    weights /= weights.sum(1, keepdims=True)
    soft = np.einsum("qk,qkc->qc", weights, labels[known][neighbours]).reshape(15, *GRID, NUM_CLASSES)
    upsampled = torch.nn.functional.interpolate(torch.tensor(soft).permute(0, 3, 1, 2), scale_factor=4, mode="bilinear")
    jaccard = MulticlassJaccardIndex(num_classes=NUM_CLASSES, average="macro", ignore_index=255)
    expected = 100 * float(jaccard(upsampled.argmax(1), val.masks.long()))

    (ours,) = InContext().evaluate(train, val, num_classes=NUM_CLASSES, seed=0).values()

    assert ours == pytest.approx(expected, abs=1e-4)


def test_soft_labels_are_weighed_by_the_exponential_of_the_cosine() -> None:
    # Cosines to (1, 0): 1, 0.6, 0; at temperature 0.4 the weights of the first two are as e^2.5 to e^1.5.
    tokens = torch.tensor([[2.0, 0.0], [3.0, 4.0], [0.0, 5.0]])
    labels = torch.tensor([[1.0, 0.0], [0.25, 0.75], [0.0, 1.0]])

    (ours,) = Memory.of(tokens, labels, k=2, temperature=0.4).soft_labels(torch.tensor([[7.0, 0.0]])).tolist()

    first = np.e / (np.e + 1)
    assert ours == pytest.approx([first + 0.25 * (1 - first), 0.75 * (1 - first)], abs=1e-6)


def test_patches_whose_tokens_tell_their_class_are_segmented_without_an_error() -> None:
    generator = torch.Generator().manual_seed(0)
    classes = torch.randint(3, (20, 4), generator=generator)
    classes[0] = torch.tensor([0, 1, 2, 2])
    masks = classes.view(20, 2, 2).repeat_interleave(2, 1).repeat_interleave(2, 2).to(torch.uint8)
    tokens = torch.nn.functional.one_hot(classes, 3).float()
    known = ProbeSplit(cls=tokens[:, 0], patches=tokens, grid=(2, 2), labels=None, masks=masks)
    # One patch an image, so that upsampling blends nothing.
    whole = torch.randint(3, (30, 1), generator=generator)
    flat = whole.view(30, 1, 1).expand(30, 2, 2).to(torch.uint8)
    alone = torch.nn.functional.one_hot(whole, 3).float()
    asked = ProbeSplit(cls=alone[:, 0], patches=alone, grid=(1, 1), labels=None, masks=flat)

    assert InContext(k=5).evaluate(known, asked, num_classes=3, seed=0) == {"in_context_miou": 100.0}
    # Tokens that are all alike tell nothing: every patch is of the class that is most frequent in the memory.
    blind = ProbeSplit(cls=known.cls, patches=torch.ones(20, 4, 3), grid=(2, 2), labels=None, masks=masks)
    most = int(classes.flatten().bincount().argmax())
    frequency = float((whole == most).float().mean())
    found = InContext(k=100).evaluate(blind, _alike(asked), num_classes=3, seed=0)["in_context_miou"]
    assert found == pytest.approx(100 * frequency / len(whole.unique()))


def _alike(split: ProbeSplit) -> ProbeSplit:
    return ProbeSplit(
        cls=split.cls, patches=torch.ones_like(split.patches), grid=split.grid, labels=None, masks=split.masks
    )


def test_the_memory_holds_as_many_patches_of_every_image_rare_classes_first() -> None:
    # Each image: 5 patches of class 0 and one of class 1. Scores are 5 u and 1 u', u and u' uniform in [0, 1].
    masks = torch.zeros(400, GRID[0] * TILE, GRID[1] * TILE, dtype=torch.uint8)
    masks[:, -TILE:, -TILE:] = 1
    split = ProbeSplit(
        cls=torch.zeros(400, 1), patches=torch.zeros(400, NUM_PATCHES, 1), grid=GRID, labels=None, masks=masks
    )

    patches, labels = draw_memory(split, at_most=800, num_classes=2, seed=3)

    assert (patches // NUM_PATCHES).bincount().tolist() == [2] * 400
    assert len(patches.unique()) == 800
    rare = int(labels[:, 1].sum())
    # How often the rare one is among the two least, from draws of NumPy.
    draws = np.random.default_rng(0).random((100_000, 6)) * [5, 5, 5, 5, 5, 1]
    expected = (draws.argsort(1)[:, :2] == 5).any(1).mean()
    assert rare / 400 == pytest.approx(expected, abs=4 * np.sqrt(expected * (1 - expected) / 400))
    assert expected > 0.6  # all alike it would be 1 of 3


def test_the_memory_depends_on_the_seed_and_never_on_the_tokens() -> None:
    one, other = scenes(30, seed=0), scenes(30, seed=0, noise=9.0)

    first, labels = draw_memory(one, at_most=60, num_classes=NUM_CLASSES, seed=1)

    assert torch.equal(first, draw_memory(other, at_most=60, num_classes=NUM_CLASSES, seed=1)[0])
    assert not torch.equal(first, draw_memory(one, at_most=60, num_classes=NUM_CLASSES, seed=2)[0])
    np.testing.assert_allclose(labels.numpy(), shares(one)[first.numpy()], rtol=1e-6)


@pytest.mark.parametrize(("at_most", "expected"), [(7, 7), (40, 30), (10_000, 30 * NUM_PATCHES - 10)])
def test_the_memory_is_bounded_and_holds_labelled_patches_alone(at_most: int, expected: int) -> None:
    patches, labels = draw_memory(scenes(30, seed=0), at_most=at_most, num_classes=NUM_CLASSES, seed=0)

    assert len(patches) == len(patches.unique()) == expected
    assert labels.sum(1).numpy() == pytest.approx(np.ones(expected))


def test_what_cannot_be_scored_is_told_of() -> None:
    train = scenes(6, seed=0)
    bare = ProbeSplit(cls=train.cls, patches=train.patches, grid=GRID, labels=None, masks=None)
    with pytest.raises(DataError, match="probe 'in_context': the val split has no masks"):
        InContext().evaluate(train, bare, num_classes=NUM_CLASSES, seed=0)
    train.patches[0, 0, 0] = torch.nan
    with pytest.raises(DivergenceError, match="probe 'in_context'"):
        InContext().evaluate(train, scenes(6, seed=1), num_classes=NUM_CLASSES, seed=0)


def test_masks_at_their_own_size_are_what_is_scored() -> None:
    train, val = scenes(30, seed=0, noise=0.2), scenes(10, seed=1, noise=0.2)
    larger = [np.kron(mask, np.ones((2, 2), np.uint8)) for mask in val.masks.numpy()]
    others = [np.where(mask == 255, 255, (mask + 1) % NUM_CLASSES).astype(np.uint8) for mask in larger]

    found, same, other = (
        InContext().evaluate(train, replace(val, own=own), num_classes=NUM_CLASSES, seed=0)["in_context_miou"]
        for own in ({}, {"masks": larger}, {"masks": others})
    )

    assert same == pytest.approx(found)
    assert other < found / 2
