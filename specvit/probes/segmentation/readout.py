"""Linear readouts: class scores from patch tokens, upsampled to pixels. Three protocols end in one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from specvit.probes.base import ProbeSplit
from specvit.probes.segmentation.base import Segmenter


@dataclass(frozen=True)
class Readout:
    """L linear maps from patch tokens to class scores: ``(token - offset) @ weight + bias``.

    Attributes:
        weight: ``(L, D, C)`` float64.
        bias: ``(L, C)`` float64.
        offset: ``(D,)`` float64.
        classes: ``(C,)`` int64 the classes seen in fitting, ascending; the others are never predicted.
    """

    weight: Tensor
    bias: Tensor
    offset: Tensor
    classes: Tensor

    def scores(self, patches: Tensor) -> Iterator[Tensor]:
        """Yield the ``(N, P, C)`` float32 scores of ``(N, P, D)`` float32 patch tokens, map by map."""
        tokens = patches - self.offset.float()
        for weight, bias in zip(self.weight.float(), self.bias.float(), strict=True):
            yield tokens @ weight + bias


@dataclass(frozen=True)
class UpsampledReadout(Segmenter):
    """Predict the class with the highest score, of scores upsampled from the patch grid to pixels.

    Attributes:
        readout: The maps, one for every candidate.
        upsample: How scores get from the patch grid to pixels.
    """

    readout: Readout
    upsample: Literal["bilinear", "nearest"]

    def predict(self, part: ProbeSplit, images: Tensor) -> Iterator[Tensor]:
        """Yield the ``(M, H, W)`` int64 classes of M images of a split, map by map."""
        assert part.masks is not None
        height, width = part.masks.shape[1:]
        for scores in self.readout.scores(part.patches[images]):
            on_grid = scores.view(len(images), *part.grid, -1)
            yield self.readout.classes[segment(on_grid, size=(height, width), upsample=self.upsample)]

    def values_per_image(self, part: ProbeSplit) -> int:
        """Return the number of scores of the pixels of an image."""
        return super().values_per_image(part) * len(self.readout.classes)


def segment(
    scores: Tensor, *, size: tuple[int, int], upsample: Literal["bilinear", "nearest"]
) -> Tensor:
    """Choose a class for every pixel from scores on the patch grid.

    Args:
        scores: ``(N, grid[0], grid[1], C)`` float.
        size: Height and width of the segmentation in pixels.
        upsample: How scores get from the patch grid to pixels.

    Returns:
        ``(N, H, W)`` int64 index of the highest score.
    """
    # With the classes last in memory, interpolation and maximum are several times as fast on a CPU; ``max``
    # is faster than ``argmax``.
    upsampled = torch.nn.functional.interpolate(scores.permute(0, 3, 1, 2), size=size, mode=upsample)
    return upsampled.permute(0, 2, 3, 1).max(-1).indices
