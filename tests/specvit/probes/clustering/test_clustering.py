"""Clusters against scikit-learn's k-means, scores against scikit-learn's and by arithmetic."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import permutations

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans
from sklearn.metrics import jaccard_score, normalized_mutual_info_score
from torch.nn import functional

from specvit.errors import DataError
from specvit.probes import ProbeSplit
from specvit.probes.clustering import Clustering
from specvit.probes.clustering.kmeans import cluster, match_clusters, nearest, refine, start
from specvit.probes.scores import normalised_mutual_information

NUM_CLASSES = 4


def scenes(num_images: int, *, seed: int, noise: float) -> ProbeSplit:
    """Make images of 2 x 2 patches of 3 x 3 pixels, tokens that tell the main class of each as far as noise allows."""
    rng = np.random.default_rng(seed)
    directions = np.eye(6)[:NUM_CLASSES]
    main = rng.choice(NUM_CLASSES, size=(num_images, 2, 2), p=(0.4, 0.3, 0.2, 0.1))
    masks = main.repeat(3, 1).repeat(3, 2)
    drawn = rng.random(masks.shape)
    masks = np.where(drawn < 0.2, rng.integers(NUM_CLASSES, size=masks.shape), masks)
    masks = np.where(drawn > 0.9, 255, masks)
    tokens = directions[main.reshape(num_images, 4)]
    patches = torch.from_numpy(tokens + noise * rng.normal(size=tokens.shape)).float()
    masks_of = torch.from_numpy(masks.astype(np.uint8))
    return ProbeSplit(cls=patches[:, 0], patches=patches, grid=(2, 2), labels=None, masks=masks_of)


@dataclass(frozen=True)
class Own:
    """Masks at their own size."""

    masks: tuple[np.ndarray, ...]

    def __len__(self) -> int:
        return len(self.masks)

    def __getitem__(self, image: int) -> np.ndarray:
        return self.masks[image]

    def take(self, images: np.ndarray) -> Own:
        return Own(tuple(self.masks[image] for image in images))


def pixel_pairs(split: ProbeSplit, clusters: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return class and cluster of every labelled pixel, at the masks' own size where it is known."""
    if own := split.own.get("masks"):
        pairs = []
        for image, on_grid in enumerate(clusters.reshape(len(split), 1, 1, 2, 2)):
            resized = functional.interpolate(torch.from_numpy(on_grid).float(), own[image].shape, mode="nearest-exact")
            pairs.append((own[image].ravel(), resized.numpy().astype(int).ravel()))
        truth, found = map(np.concatenate, zip(*pairs, strict=True))
        return truth[truth != 255], found[truth != 255]
    on_grid = clusters.reshape(len(split), 2, 2).repeat(3, 1).repeat(3, 2)
    known = split.masks.numpy() != 255
    return split.masks.numpy()[known], on_grid[known]


def test_refine_ends_where_scikit_learn_does_from_the_same_start() -> None:
    points = torch.randn(500, 6, generator=torch.Generator().manual_seed(0))
    begin = points[:5].clone()

    reference = KMeans(5, init=begin.double().numpy(), n_init=1, tol=0, max_iter=300).fit(points.double().numpy())
    ours = refine(points, begin)

    np.testing.assert_allclose(ours.numpy(), reference.cluster_centers_, atol=1e-5)
    np.testing.assert_array_equal(nearest(points, ours).numpy(), reference.labels_)


def test_cluster_is_as_good_as_scikit_learns_and_the_same_again() -> None:
    points = torch.randn(600, 4, generator=torch.Generator().manual_seed(1))
    reference = KMeans(8, n_init=10, random_state=0).fit(points.double().numpy())

    ours = cluster(points, num_clusters=8, restarts=10, seed=5)

    inertia = float((points - ours[nearest(points, ours)]).double().square().sum())
    assert inertia <= 1.01 * reference.inertia_
    assert torch.equal(ours, cluster(points, num_clusters=8, restarts=10, seed=5))


def test_start_draws_in_proportion_to_the_squared_distance() -> None:
    # Whichever of the points 0, 1 and 3 is first, the others are drawn as 1 to 9, 1 to 4, 9 to 4.
    points = torch.tensor([[0.0], [1.0], [3.0]])
    generator = torch.Generator().manual_seed(0)
    pairs = [tuple(start(points, 2, generator=generator).flatten().tolist()) for _ in range(3000)]

    for first, second, share in ((0.0, 3.0, 0.9), (1.0, 3.0, 0.8), (3.0, 0.0, 9 / 13)):
        of_first = [pair for pair in pairs if pair[0] == first]
        assert len(of_first) == pytest.approx(1000, abs=110)
        assert sum(pair[1] == second for pair in of_first) / len(of_first) == pytest.approx(share, abs=0.06)
    assert torch.equal(start(torch.ones(3, 1), 3, generator=generator), torch.ones(3, 1))


@pytest.mark.parametrize("seed", range(5))
def test_match_clusters_is_the_best_of_all_matchings(seed: int) -> None:
    pixels = torch.from_numpy(np.random.default_rng(seed).integers(0, 50, size=(5, 3)))
    pixels[2] = 0  # no cluster stands for a class that does not occur
    unions = pixels.sum(0) + pixels.sum(1, keepdim=True) - pixels
    overlaps = (pixels / unions).numpy()
    best = max(permutations((0, 1, 3, 4), 3), key=lambda classes: sum(overlaps[classes[c], c] for c in range(3)))

    assert tuple(match_clusters(pixels).tolist()) == best


@pytest.mark.parametrize("seed", range(3))
def test_mutual_information_is_scikit_learns(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth, found = rng.integers(4, size=300), rng.integers(3, size=300)
    found = np.where(rng.random(300) < 0.5, truth % 3, found)
    counts = torch.zeros(4, 3, dtype=torch.int64)
    for a, b in zip(truth, found, strict=True):
        counts[a, b] += 1

    assert normalised_mutual_information(counts) == pytest.approx(100 * normalized_mutual_info_score(truth, found))


def test_mutual_information_by_arithmetic() -> None:
    assert normalised_mutual_information(torch.eye(3, dtype=torch.int64) * 7) == pytest.approx(100)
    assert normalised_mutual_information(torch.full((3, 2), 5)) == pytest.approx(0, abs=1e-9)
    # Classes 1/2, 1/2; clusters 3/4, 1/4: H = ln 2 and 2 ln 2 - 3/4 ln 3; joint 1/2, 1/4, 1/4: 3/2 ln 2.
    of_cluster = 2 * np.log(2) - 0.75 * np.log(3)
    expected = 100 * (of_cluster - 0.5 * np.log(2)) / ((np.log(2) + of_cluster) / 2)
    assert normalised_mutual_information(torch.tensor([[2, 0], [1, 1]])) == pytest.approx(expected)
    assert normalised_mutual_information(torch.tensor([[4], [0]])) == 100
    with pytest.raises(DataError, match="at least 1 pixel"):
        normalised_mutual_information(torch.zeros(2, 2, dtype=torch.int64))


@pytest.mark.parametrize("at_own_size", [False, True])
def test_the_metrics_are_those_of_scikit_learns_clusters_and_scores(at_own_size: bool) -> None:
    train, val = scenes(120, seed=0, noise=0.25), scenes(60, seed=1, noise=0.25)
    if at_own_size:
        rng = np.random.default_rng(2)
        sizes = rng.integers(3, 12, size=len(val))
        masks = [
            functional.interpolate(mask[None, None].float(), (size, size), mode="nearest").numpy()[0, 0]
            for mask, size in zip(val.masks, sizes.tolist(), strict=True)
        ]
        val = replace(val, own={"masks": Own(tuple(mask.astype(np.uint8) for mask in masks))})
    unit = [part.patches.flatten(0, 1).double().numpy() for part in (train, val)]
    unit = [tokens / np.linalg.norm(tokens, axis=1, keepdims=True) for tokens in unit]
    kmeans = KMeans(NUM_CLASSES, n_init=20, random_state=0).fit(unit[0])
    truth, found = pixel_pairs(train, kmeans.labels_)
    best = max(
        permutations(range(NUM_CLASSES)),
        key=lambda classes: jaccard_score(truth, np.take(classes, found), average="macro"),
    )
    truth, found = pixel_pairs(val, kmeans.predict(unit[1]))

    ours = Clustering().evaluate(train, val, num_classes=NUM_CLASSES, seed=0)

    miou = 100 * jaccard_score(truth, np.take(best, found), average="macro")
    assert 50 < miou < 95
    assert ours == pytest.approx(
        {"clustering_miou": miou, "clustering_nmi": 100 * normalized_mutual_info_score(truth, found)}, abs=1e-4
    )


def test_masks_of_whole_multiples_of_the_size_change_nothing() -> None:
    train, val = scenes(60, seed=0, noise=0.4), scenes(30, seed=1, noise=0.4)
    larger = Own(tuple(np.kron(mask, np.ones((3, 3), np.uint8)) for mask in val.masks.numpy()))

    found = Clustering().evaluate(train, replace(val, own={"masks": larger}), num_classes=NUM_CLASSES, seed=0)

    assert found == pytest.approx(Clustering().evaluate(train, val, num_classes=NUM_CLASSES, seed=0))


def test_it_clusters_a_draw_that_is_the_same_for_every_backbone_and_never_looks_at_the_reported_masks() -> None:
    train, val = scenes(60, seed=0, noise=0.4), scenes(30, seed=1, noise=0.4)
    probe = Clustering(max_patches=100)

    first = probe.evaluate(train, val, num_classes=NUM_CLASSES, seed=3)

    assert first == probe.evaluate(train, val, num_classes=NUM_CLASSES, seed=3)
    assert first != probe.evaluate(train, val, num_classes=NUM_CLASSES, seed=4)
    # The same clusters against other masks: with classes renamed in the reported split alone, matched ones are wrong.
    renamed = ProbeSplit(
        cls=val.cls,
        patches=val.patches,
        grid=val.grid,
        labels=None,
        masks=torch.where(val.masks == 255, 255, (val.masks + 1) % NUM_CLASSES).to(torch.uint8),
    )
    other = probe.evaluate(train, renamed, num_classes=NUM_CLASSES, seed=3)
    assert other["clustering_nmi"] == pytest.approx(first["clustering_nmi"])
    assert other["clustering_miou"] < first["clustering_miou"] / 2


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_tokens_that_are_all_alike_tell_nothing(value: float) -> None:
    split = scenes(20, seed=0, noise=0.0)
    alike = ProbeSplit(
        cls=split.cls, patches=torch.full_like(split.patches, value), grid=(2, 2), labels=None, masks=split.masks
    )

    assert Clustering().evaluate(alike, alike, num_classes=NUM_CLASSES, seed=0)["clustering_nmi"] == pytest.approx(0)


def test_fewer_patches_than_classes_are_their_own_clusters() -> None:
    split = scenes(20, seed=0, noise=0.1)

    found = Clustering(max_patches=2).evaluate(split, split, num_classes=NUM_CLASSES, seed=0)

    assert 0 < found["clustering_miou"] < 100
