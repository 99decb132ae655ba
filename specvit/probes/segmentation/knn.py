"""kNN: the nearest training patches vote on the class of every pixel of a patch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from specvit.probes.base import ProbeSplit
from specvit.probes.knn import normalise_rows
from specvit.probes.logistic import mean_and_scale
from specvit.probes.segmentation.base import Fitter, Segmenter, Training, draw_patches

MAX_SIMILARITIES = 1 << 22
"""Cosines, or votes, held at a time; a larger set of queries is taken in chunks."""
_BLOCK = 32
"""Columns of a block, of which a long row of similarities is searched block by block."""


class NearestFitter(Fitter):
    """Let the k nearest training patches by cosine vote, each with the classes of its tile, pixel by pixel.

    A pixel takes the class with most votes, of equals the lowest. Where every voter's pixel is ignored, the
    votes on the whole tile decide. Candidates are values of k; one above the number of patches stands for all
    of them.

    Source: the kNN evaluation of CAPI (Darcet et al. 2025, arXiv 2502.08769; facebookresearch/capi,
    eval_segmentation.py). Deviations: cosine only, where the source also tries L2 and keeps the better; ignored
    pixels do not vote; at most so many patches (``max_patches``).
    """

    def __init__(self, training: Training, *, max_patches: int) -> None:
        self.training = training
        self.max_patches = max_patches

    def fit_part(self, candidates: Sequence[float]) -> NearestPatches:
        """Return a segmenter with patches of the images of ``fitted``, for every k."""
        return self._fit(self.training.fitted, candidates)

    def fit_whole(self, candidate: float) -> NearestPatches:
        """Return a segmenter with patches of all images of the training split."""
        return self._fit(torch.arange(len(self.training.split)), [candidate])

    def _fit(self, images: Tensor, ks: Sequence[float]) -> NearestPatches:
        part = self.training.split
        assert part.masks is not None
        patches, _ = draw_patches(self.training, images, at_most=self.max_patches)
        tokens = part.patches.flatten(0, 1)[patches]
        mean, scale = mean_and_scale(tokens.double())
        return NearestPatches(
            mean=mean,
            scale=scale,
            bank=normalise_rows(((tokens - mean) / scale).float()),
            tiles=cut_tiles(part.masks, part.grid).flatten(0, 1)[patches.to(part.masks.device)].to(tokens.device),
            ks=tuple(min(int(k), len(patches)) for k in ks),
            num_classes=self.training.num_classes,
        )


@dataclass(frozen=True)
class NearestPatches(Segmenter):
    """The patches that vote.

    Attributes:
        mean: ``(D,)`` float64 means of their tokens.
        scale: ``(D,)`` float64 their standard deviations; infinite where a channel is constant.
        bank: ``(B, D)`` float32 their standardised tokens at length 1.
        tiles: ``(B, T)`` uint8 the classes of their pixels, 255 = ignore.
        ks: Numbers of neighbours, each at most B.
        num_classes: Number of classes, K.
    """

    mean: Tensor
    scale: Tensor
    bank: Tensor
    tiles: Tensor
    ks: tuple[int, ...]
    num_classes: int

    def predict(self, part: ProbeSplit, images: Tensor) -> Iterator[Tensor]:
        """Yield the ``(M, H, W)`` int64 classes of M images of a split, k by k."""
        assert part.masks is not None
        tokens = part.patches[images].flatten(0, 1)
        queries = normalise_rows(((tokens - self.mean) / self.scale).float())
        chunk_size = max(1, MAX_SIMILARITIES // max(len(self.bank), self.tiles.shape[1] * (self.num_classes + 1)))
        votes = [self._vote(chunk) for chunk in torch.split(queries, chunk_size)]
        for way in range(len(self.ks)):
            tiles = torch.cat([chunk[way] for chunk in votes]).view(len(images), -1, self.tiles.shape[1])
            yield join_tiles(tiles, part.grid, size=(part.masks.shape[1], part.masks.shape[2]))

    def _vote(self, queries: Tensor) -> list[Tensor]:
        """Return the ``(Q, T)`` int64 classes of the pixels of Q patches, for every k."""
        neighbours = top_indices(queries @ self.bank.T, max(self.ks))
        # Ignored pixels vote for one more class, which is cheaper than to take them out.
        classes = self.tiles[neighbours].clamp(max=self.num_classes).long().transpose(1, 2)
        votes = classes.new_zeros(*classes.shape[:2], self.num_classes + 1)
        predictions: dict[int, Tensor] = {}
        for fewer, k in zip((0, *sorted(self.ks)), sorted(self.ks), strict=False):
            votes.scatter_add_(2, classes[:, :, fewer:k], torch.ones_like(classes[:, :, fewer:k]))
            of_pixel = votes[:, :, : self.num_classes]
            of_tile = of_pixel.sum(1, keepdim=True)
            predictions[k] = torch.where(of_pixel.any(2, keepdim=True), of_pixel, of_tile).argmax(2)
        return [predictions[k] for k in self.ks]


def top_indices(values: Tensor, k: int) -> Tensor:
    """Find the k largest values of every row, in a third of the time that ``topk`` takes for long rows.

    Columns are dealt into blocks; the k largest values lie in the k blocks with the largest maxima.

    Args:
        values: ``(Q, B)`` float values.
        k: How many to find, at most B.

    Returns:
        ``(Q, k)`` int64 columns, those of larger values first.
    """
    num_blocks = values.shape[1] // _BLOCK
    if num_blocks <= k:
        return values.topk(k, dim=1).indices
    columns = torch.arange(values.shape[1], device=values.device)
    dealt, rest = columns[: num_blocks * _BLOCK].view(_BLOCK, num_blocks), columns[num_blocks * _BLOCK :]
    maxima = values[:, : num_blocks * _BLOCK].view(len(values), _BLOCK, num_blocks).amax(1)
    candidates = dealt.T[maxima.topk(k, dim=1).indices].flatten(1)
    candidates = torch.cat([candidates, rest.expand(len(values), -1)], dim=1)
    return candidates.gather(1, values.gather(1, candidates).topk(k, dim=1).indices)


def cut_tiles(masks: Tensor, grid: tuple[int, int]) -> Tensor:
    """Cut ``(N, H, W)`` masks into the ``(N, P, T)`` pixels of every patch, both row by row."""
    (num_images, height, width), (rows, columns) = masks.shape, grid
    tiles = masks.view(num_images, rows, height // rows, columns, width // columns)
    return tiles.transpose(2, 3).reshape(num_images, rows * columns, -1)


def join_tiles(tiles: Tensor, grid: tuple[int, int], *, size: tuple[int, int]) -> Tensor:
    """Put the ``(N, P, T)`` pixels of patches together to ``(N, H, W)`` masks of the given size."""
    (rows, columns), (height, width) = grid, size
    parts = tiles.view(len(tiles), rows, columns, height // rows, width // columns)
    return parts.transpose(2, 3).reshape(len(tiles), height, width)
