"""Ridge regression from tokens to depth, in closed form."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from specvit.probes.depth.base import Estimator, Fitter, Limits, Task
from specvit.probes.scores import is_measured


class RidgeFitter(Fitter):
    """Fit the least-squares map from a pixel's token to its depth in metres. Candidates are penalties.

    The pixels of a patch share its token, so this is the regression of the mean depth of a patch, with the number
    of its measured pixels as weight.

    The target is depth, not its logarithm, although published heads are trained on differences of logarithms:
    least squares then minimises what RMSE reports, and where tokens say little it falls back to the mean depth,
    so that RMSE stays near that of no knowledge. The exponential of a mean logarithm lies below the mean, and
    the further the less the tokens say, which made weak features look worse than none on ``scenes``. The price is
    a higher AbsRel, which weighs near pixels most. Heads of bins predict a mean of depth too.

    Source: the linear depth probe of DINOv2 (arXiv 2304.07193, section 7.4). Deviations: squared error of depth,
    which has a closed form and so takes a second; a map to depth in place of the expectation over bins.
    """

    def fit(self, images: Tensor, candidates: Sequence[float]) -> LinearDepth:
        """Solve for every penalty, from one eigendecomposition; see ``solve``."""
        return solve(self.task, images, candidates, self.limits)


@dataclass(frozen=True)
class LinearDepth(Estimator):
    """L linear maps from tokens to metres: ``(token - offset) @ weight + bias``.

    Attributes:
        weight: ``(L, D)`` float64.
        bias: ``(L,)`` float64.
        offset: ``(D,)`` float64.
        limits: What predictions are clamped to.
    """

    weight: Tensor
    bias: Tensor
    offset: Tensor
    limits: Limits

    def on_grid(self, tokens: Tensor) -> Iterator[Tensor]:
        """Yield the ``(M, P)`` float32 metres of ``(M, P, D)`` tokens, map by map."""
        centred = tokens - self.offset.float()
        for weight, bias in zip(self.weight.float(), self.bias.float(), strict=True):
            yield (centred @ weight + bias).clamp(self.limits.low_m, self.limits.high_m)


def solve(task: Task, images: Tensor, penalties: Sequence[float], limits: Limits) -> LinearDepth:
    """Solve the ridge regression of depth.

    Minimises the mean over measured pixels of the squared error + penalty * squared norm of the map, over tokens
    standardised by the mean and variance of the measured pixels' tokens (constant features are left out). The
    bias is free.

    Args:
        task: Tokens and depth.
        images: ``(M,)`` int64 indices of the images to fit to, at least one with a measured pixel.
        penalties: Penalties, each above 0.
        limits: What predictions are clamped to.

    Returns:
        One map for every penalty, for raw tokens.
    """
    images = task.with_depth(images)
    # Taken off every token, so that large means cost no digits.
    offset = task.tokens(images[:1])[0].double().mean(0)
    gram = offset.new_zeros(task.dim + 1, task.dim + 1)
    cross = offset.new_zeros(task.dim + 1)
    for chunk in task.chunks(images):
        tokens = torch.nn.functional.pad((task.tokens(chunk).double() - offset).flatten(0, 1), (0, 1), value=1.0)
        counts, sums = tile_sums(task.depth[chunk], task.split.grid)
        gram += (tokens * counts[:, None]).T @ tokens
        cross += tokens.T @ sums
    total, mean_depth = gram[-1, -1], cross[-1] / gram[-1, -1]
    centre = gram[-1, :-1] / total
    covariance = gram[:-1, :-1] / total - centre.outer(centre)
    std = covariance.diagonal().clamp(min=0).sqrt()
    # Below this the spread of a feature is the rounding of float32, not a signal to be blown up.
    scale = std.masked_fill(std <= 1e-6 * (centre + offset).abs(), torch.inf)
    eigenvalues, axes = torch.linalg.eigh(covariance / scale.outer(scale))
    target = axes.T @ ((cross[:-1] / total - centre * mean_depth) / scale)
    shrinkage = 1 / (eigenvalues.clamp(min=0) + eigenvalues.new_tensor(penalties)[:, None])
    weight = (shrinkage * target) @ axes.T / scale
    return LinearDepth(weight=weight, bias=mean_depth - weight @ centre, offset=offset, limits=limits)


def tile_sums(depth: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Sum over the measured pixels of every patch.

    Args:
        depth: ``(M, H, W)`` float metres, not positive or not finite = not measured.
        grid: Patches per column and per row.

    Returns:
        ``(M * P,)`` float64 number of measured pixels, and the sum of their depth.
    """
    (num_images, height, width), (rows, columns) = depth.shape, grid
    known = is_measured(depth)
    counts, sums = (
        values.view(num_images, rows, height // rows, columns, width // columns).sum((2, 4)).flatten()
        for values in (known.double(), depth.double().where(known, 0.0))
    )
    return counts, sums
