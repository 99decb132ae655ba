"""What the protocols of the depth probe share: what they are fitted to, how depth gets to pixels, how it is scored.

N images of H x W pixels, P patches, D channels (twice those of the backbone with [CLS] beside each patch), L
candidates of a hyper-parameter. A patch's tile is the pixels under it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from specvit.probes.base import ProbeSplit
from specvit.probes.scores import DepthScores, depth_errors, depth_scores, has_depth, is_measured

CHUNK_VALUES = 1 << 22
"""Numbers that the largest temporary tensor may hold; images are taken in chunks that keep to it."""


@dataclass(frozen=True)
class Task:
    """A split whose depth is to be predicted, or fitted to.

    Attributes:
        split: Features and depth.
        with_cls: Whether each patch token has [CLS] beside it. It is left out all the same where it is not as wide as
            a patch token: that of raw pixels is the whole image, whose covariance no memory would hold.
    """

    split: ProbeSplit
    with_cls: bool

    @property
    def depth(self) -> Tensor:
        """Return the ``(N, H, W)`` depth maps."""
        assert self.split.depth is not None
        return self.split.depth

    @property
    def reads_cls(self) -> bool:
        """Return whether tokens have [CLS] beside them."""
        return self.with_cls and self.split.cls.shape[1] == self.split.patches.shape[2]

    @property
    def dim(self) -> int:
        """Return the number of channels, D."""
        return self.split.patches.shape[2] * (2 if self.reads_cls else 1)

    def tokens(self, images: Tensor) -> Tensor:
        """Return the ``(M, P, D)`` float32 tokens of M images."""
        patches = self.split.patches[images]
        if not self.reads_cls:
            return patches
        beside = self.split.cls[images][:, None].expand(-1, patches.shape[1], -1)
        return torch.cat([patches, beside], dim=2)

    def chunks(self, images: Tensor, *, values_per_token: int = 0) -> tuple[Tensor, ...]:
        """Split image indices so that a chunk's temporaries stay small, on the device of the features.

        Args:
            images: ``(M,)`` int64 indices.
            values_per_token: Numbers that are computed of every token at a time.

        Returns:
            The indices in chunks, in order.
        """
        largest = max(self.depth[0].numel(), self.split.patches.shape[1] * max(values_per_token, self.dim + 1))
        return torch.split(images.to(self.split.patches.device), max(1, CHUNK_VALUES // largest))

    def with_depth(self, images: Tensor) -> Tensor:
        """Return those of some images that have a measured pixel, on the device of the features."""
        images = images.to(self.depth.device)
        return images[has_depth(self.depth)[images]].to(self.split.patches.device)


@dataclass(frozen=True)
class Limits:
    """The range of depth that is predicted, in metres; 0 < low <= high."""

    low_m: float
    high_m: float


class Estimator(ABC):
    """Predict depth from tokens in L ways, one for every candidate of a hyper-parameter."""

    @property
    def values_per_token(self) -> int:
        """Return how many numbers a way computes of every token at a time."""
        return 1

    @abstractmethod
    def on_grid(self, tokens: Tensor) -> Iterator[Tensor]:
        """Yield the ``(M, P)`` metres within the limits that ``(M, P, D)`` tokens say, way by way."""


class Fitter(ABC):
    """Fit a protocol to the images of a training split.

    Args:
        task: Features and depth.
        limits: The range of depth to predict.
        seed: Decides what the protocol draws.
    """

    def __init__(self, task: Task, limits: Limits, *, seed: int) -> None:
        self.task, self.limits, self.seed = task, limits, seed

    @abstractmethod
    def fit(self, images: Tensor, candidates: Sequence[float]) -> Estimator:
        """Fit once for every candidate.

        Args:
            images: ``(M,)`` int64 indices of the images to fit to, at least one with a measured pixel.
            candidates: Values of the hyper-parameter.

        Returns:
            What predicts, in the order of the candidates.
        """


def measured_range(depth: Tensor) -> Limits:
    """Return the least and the largest depth in ``(N, H, W)`` maps, at least one pixel of which is measured."""
    low, high = torch.inf, 0.0
    for one in depth:
        measured = one[is_measured(one)]
        if len(measured):
            low, high = min(low, float(measured.min())), max(high, float(measured.max()))
    return Limits(low, high)


def upsample(depth: Tensor, grid: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Interpolate ``(M, P)`` depth from the patch grid to pixels, bilinearly: ``(M, H, W)``, of the same range."""
    on_grid = depth.view(len(depth), 1, *grid)
    return functional.interpolate(on_grid, size=size, mode="bilinear", align_corners=False)[:, 0]


def score(estimator: Estimator, task: Task, images: Tensor) -> list[DepthScores]:
    """Score every way in which an estimator predicts.

    Where depth is known at its own size, so many pixels count. The prediction is interpolated from the grid to that
    size, bilinearly as to any other; measured depth is never resized here, for between two surfaces none is made up.
    So do DINOv2 (facebookresearch/dinov2, eval/depth/models/depther/encoder_decoder.py), from 4 times the grid, and
    DINOv3 (eval/depth). Deviation: they predict the whole image, not its central square.

    Args:
        estimator: What is scored.
        task: Features and depth.
        images: ``(M,)`` int64 indices of the images to score on, at least one with a measured pixel.

    Returns:
        Scores for every candidate.

    Raises:
        DataError: If no pixel is measured.
    """
    errors: dict[int, list[Tensor]] = {}
    for chunk in task.chunks(images, values_per_token=estimator.values_per_token):
        ways = list(estimator.on_grid(task.tokens(chunk)))
        for rows, depth in _maps_of(task.split, chunk):
            for way, on_grid in enumerate(ways):
                pixels = upsample(on_grid[rows], task.split.grid, (depth.shape[1], depth.shape[2]))
                errors.setdefault(way, []).append(depth_errors(pixels, depth))
    return [depth_scores(torch.cat(parts)) for parts in errors.values()]


def _maps_of(split: ProbeSplit, images: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Yield what M images are scored on: which of them, and their depth ``(m, h, w)``; one by one at its own size."""
    assert split.depth is not None
    own = split.own.get("depth")
    if own is None:
        yield slice(None), split.depth[images]
    else:
        for row, image in enumerate(images.tolist()):
            yield slice(row, row + 1), torch.from_numpy(own[image]).unsqueeze(0).to(split.patches.device)
