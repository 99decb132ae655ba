"""What the protocols of the segmentation probe share: how one is fitted, how it is scored.

N images of H x W pixels, P patches, D channels, K classes. A patch's tile is the pixels under it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from specvit.data.base import IGNORE_INDEX
from specvit.models.patches import count_pixels
from specvit.probes.base import ProbeSplit
from specvit.probes.scores import confusion, mean_iou
from specvit.seeding import torch_stream

CHUNK_VALUES = 1 << 18
"""Numbers that the largest temporary tensor may hold, so that it stays in a core's cache; images are taken in
chunks that keep to it."""


@dataclass(frozen=True)
class Training:
    """A training split as a protocol gets it: in two parts, to fit on and to choose on.

    Attributes:
        split: Patch tokens and masks.
        fitted: Indices of the images to fit on while choosing, int64 on the CPU.
        held_out: Indices of the images to choose on.
        num_classes: Number of classes, K.
        seed: Decides what a protocol draws.
    """

    split: ProbeSplit
    fitted: Tensor
    held_out: Tensor
    num_classes: int
    seed: int

    @property
    def can_choose(self) -> bool:
        """Return whether both parts have a labelled pixel."""
        assert self.split.masks is not None
        masks = self.split.masks
        return all(bool((masks[part] != IGNORE_INDEX).any()) for part in (self.fitted, self.held_out))


class Segmenter(ABC):
    """Segment images in one or several ways, one for every candidate of a hyper-parameter."""

    @abstractmethod
    def predict(self, part: ProbeSplit, images: Tensor) -> Iterator[Tensor]:
        """Yield the ``(M, H, W)`` int64 classes of M images of a split, way by way."""

    def values_per_image(self, part: ProbeSplit) -> int:
        """Return how many numbers the largest temporary of ``predict`` holds per image."""
        assert part.masks is not None
        return part.masks[0].numel()


class Fitter(ABC):
    """Fit a protocol to a training split, first to a part of it for every candidate, then to all of it."""

    @abstractmethod
    def fit_part(self, candidates: Sequence[float]) -> Segmenter:
        """Fit to the images of ``fitted``, once for every candidate of the hyper-parameter."""

    @abstractmethod
    def fit_whole(self, candidate: float) -> Segmenter:
        """Fit to all images of the training split."""


def score(segmenter: Segmenter, part: ProbeSplit, images: Tensor, *, num_classes: int) -> list[float]:
    """Compute the mIoU of every way in which a segmenter segments.

    Where masks are known at their own size, the segmentation is resized to it by nearest neighbour, and so many pixels
    count. Deviation: mmseg, after which DINOv2 and CAPI score, resizes the scores before the classes are chosen.

    Args:
        segmenter: What is scored.
        part: Patch tokens and masks.
        images: ``(M,)`` int64 indices of the images to score on.
        num_classes: Number of classes, K.

    Returns:
        mIoU in %, over the pixels of all images together.

    Raises:
        DataError: If no pixel is labelled.
    """
    assert part.masks is not None
    counts: dict[int, Tensor] = {}
    for chunk in chunks(images, part, values_per_image=segmenter.values_per_image(part)):
        own = own_masks(part, chunk)
        for way, predictions in enumerate(segmenter.predict(part, chunk)):
            if own is None:
                more = confusion(predictions, part.masks[chunk], num_classes=num_classes)
            else:
                more = confusion_at_own_size(predictions, own, num_classes=num_classes)
            counts[way] = counts[way] + more if way in counts else more
    return [mean_iou(count) for count in counts.values()]


def own_masks(part: ProbeSplit, images: Tensor) -> list[Tensor] | None:
    """Return the masks of M images at their own size, each ``(h, w)`` uint8 on the CPU; None where they have none.

    Raises:
        DataError: If one cannot be read.
    """
    masks = part.own.get("masks")
    return None if masks is None else [torch.tensor(masks[image]) for image in images.tolist()]


def confusion_at_own_size(predictions: Tensor, masks: Sequence[Tensor], *, num_classes: int) -> Tensor:
    """Count pixels of masks at their own size against predictions, resized to it by nearest neighbour.

    Args:
        predictions: ``(M, H, W)`` int64 predicted classes or clusters, in [0, K); of pixels, or of patches.
        masks: M masks ``(h, w)``.
        num_classes: Number of classes, K.

    Returns:
        ``(K, K)`` int64 on the CPU, as of ``confusion``.
    """
    counts = torch.zeros(num_classes, num_classes, dtype=torch.int64)
    for predicted, mask in zip(predictions.cpu(), masks, strict=True):
        rows, columns = (
            (2 * torch.arange(length) + 1) * size // (2 * length)
            for length, size in zip(mask.shape, predicted.shape, strict=True)
        )
        resized = predicted[rows.unsqueeze(1), columns]
        counts += confusion(resized.unsqueeze(0), mask.unsqueeze(0), num_classes=num_classes)
    return counts


def chunks(images: Tensor, part: ProbeSplit, *, values_per_image: int) -> tuple[Tensor, ...]:
    """Split image indices so that a chunk's temporaries stay small, on the device of the features."""
    return torch.split(images.to(part.patches.device), max(1, CHUNK_VALUES // values_per_image))


def count_classes(masks: Tensor, grid: tuple[int, int], *, num_classes: int) -> Tensor:
    """Count the pixels of every class in every patch: ``(N, H, W)`` masks -> ``(N * P, K)`` int64."""
    patch_size = (masks.shape[1] // grid[0], masks.shape[2] // grid[1])
    return count_pixels(masks, patch_size, num_classes=num_classes).flatten(0, 1)


def draw_patches(training: Training, images: Tensor, *, at_most: int) -> tuple[Tensor, Tensor]:
    """Choose the patches that a protocol which holds them all in memory is fitted to.

    Patches without a labelled pixel are left out; of the others the seed draws ``at_most``, the same ones for
    every backbone.

    Args:
        training: The training split.
        images: ``(M,)`` int64 indices of the images to fit on, at least one with a labelled pixel.
        at_most: Largest number of patches.

    Returns:
        Indices ``(B,)`` int64 into the N * P patches of the split, ascending, and the ``(B, K)`` int64 number
        of pixels of every class in them.
    """
    part, num_classes = training.split, training.num_classes
    assert part.masks is not None
    images, tiles = images.to(part.masks.device), tiled(part.masks, part.grid)
    # Numbers of pixels only for what is drawn: those of all patches may take many times the memory of the masks.
    steps = torch.split(images, max(1, CHUNK_VALUES // part.masks[0].numel()))
    labelled = torch.cat([(tiles[step] < num_classes).any(4).any(2).flatten() for step in steps]).nonzero().flatten()
    if len(labelled) > at_most:
        order = torch.randperm(len(labelled), generator=torch_stream(training.seed, "patches"))
        labelled = labelled[order[:at_most].sort().values.to(labelled.device)]
    num_patches, columns = part.patches.shape[1], part.grid[1]
    chosen, patch = images[labelled // num_patches], labelled % num_patches
    height, width = tiles.shape[2], tiles.shape[4]
    at_once = max(1, CHUNK_VALUES // (height * width + num_classes + 1))
    counts = [
        count_pixels(tiles[of, at // columns, :, at % columns], (height, width), num_classes=num_classes)[:, 0]
        for of, at in zip(torch.split(chosen, at_once), torch.split(patch, at_once), strict=True)
    ]
    return (chosen * num_patches + patch).to(part.patches.device), torch.cat(counts)


def tiled(masks: Tensor, grid: tuple[int, int]) -> Tensor:
    """View ``(N, H, W)`` masks as the tiles of patches: ``(N, rows, h, columns, w)``."""
    (num_images, height, width), (rows, columns) = masks.shape, grid
    return masks.view(num_images, rows, height // rows, columns, width // columns)
