"""k-means, and which cluster stands for which class. The same numbers whatever the number of threads of a library."""

from __future__ import annotations

import torch
from torch import Tensor

from specvit.seeding import torch_stream

MAX_ITERATIONS = 300
"""Most steps of a start; scikit-learn's bound."""
_CHUNK = 4096


def cluster(points: Tensor, *, num_clusters: int, restarts: int, seed: int) -> Tensor:
    """Find the centres of clusters by k-means, from several k-means++ starts.

    Args:
        points: ``(B, D)`` float32 points.
        num_clusters: Number of clusters C, at most B.
        restarts: Number of starts.
        seed: Decides the starts.

    Returns:
        ``(C, D)`` float32 centres, of the start that ends with the smallest sum of squared distances; of equals the
        first.

    Source: Lloyd's algorithm; starts by k-means++ (Arthur and Vassilvitskii 2007).
    """
    generator = torch_stream(seed, "clusters")
    found = [refine(points, start(points, num_clusters, generator=generator)) for _ in range(restarts)]
    return min(found, key=lambda centres: _inertia(points, centres))


def start(points: Tensor, num_clusters: int, *, generator: torch.Generator) -> Tensor:
    """Draw the centres to start from, each in proportion to its squared distance to those before it.

    Args:
        points: ``(B, D)`` float32 points.
        num_clusters: Number of centres C.
        generator: Where the draws are from, on the CPU.

    Returns:
        ``(C, D)`` float32, some of the points. Where all points are centres already, one comes again.
    """
    drawn = torch.rand(num_clusters, generator=generator, dtype=torch.float64).tolist()
    chosen = [min(int(drawn[0] * len(points)), len(points) - 1)]
    distances = torch.full((len(points),), torch.inf, dtype=torch.float64, device=points.device)
    for number in drawn[1:]:
        distances = torch.minimum(distances, (points - points[chosen[-1]]).double().square().sum(1))
        summed = distances.cumsum(0)
        chosen.append(min(int(torch.searchsorted(summed, summed[-1] * number, right=True)), len(points) - 1))
    return points[chosen]


def refine(points: Tensor, centres: Tensor) -> Tensor:
    """Move ``(C, D)`` centres to the means of the points nearest to them until none changes; an empty one stays."""
    assigned: Tensor | None = None
    for _ in range(MAX_ITERATIONS):
        found = nearest(points, centres)
        if assigned is not None and torch.equal(found, assigned):
            break
        assigned = found
        sums = torch.zeros_like(centres, dtype=torch.float64).index_add_(0, found, points.double())
        sizes = found.bincount(minlength=len(centres))[:, None]
        centres = (sums / sizes.clamp(min=1)).float().where(sizes > 0, centres)
    return centres


def nearest(points: Tensor, centres: Tensor) -> Tensor:
    """Find the centre nearest to every point: ``(B, D)``, ``(C, D)`` -> ``(B,)`` int64; of equals the first."""
    lengths = centres.square().sum(1)
    return torch.cat([(lengths - 2 * part @ centres.T).argmin(1) for part in torch.split(points, _CHUNK)])


def match_clusters(pixels: Tensor) -> Tensor:
    """Match clusters with classes that occur one to one, so that the intersections over unions sum to the most.

    Args:
        pixels: ``(K, C)`` int64 number of pixels, class by cluster; at least C classes occur.

    Returns:
        ``(C,)`` int64 the class of every cluster.
    """
    from scipy.optimize import linear_sum_assignment

    occurring = pixels.any(1).nonzero().flatten()
    of_class = pixels[occurring]
    unions = of_class.sum(0) + of_class.sum(1, keepdim=True) - of_class
    # By rows, of which there are no more than columns, so that every cluster has a class.
    _, classes = linear_sum_assignment((of_class / unions).T.cpu().numpy(), maximize=True)
    return occurring[torch.from_numpy(classes).to(occurring.device)]


def _inertia(points: Tensor, centres: Tensor) -> float:
    return float((points - centres[nearest(points, centres)]).double().square().sum())
