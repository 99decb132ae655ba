"""A memory of labelled patches, and the segmentation by soft nearest neighbours in it.

N images of H x W pixels, P patches, D channels, K classes; M patches in the memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from specvit.probes.base import ProbeSplit
from specvit.probes.knn import normalise_rows
from specvit.probes.segmentation.base import CHUNK_VALUES, Segmenter, count_classes
from specvit.probes.segmentation.knn import top_indices
from specvit.probes.segmentation.readout import segment
from specvit.seeding import torch_stream

MAX_VALUES = 1 << 22
"""Cosines, or labels of neighbours, held at a time; a larger set of patches is looked up in chunks."""


def draw_memory(train: ProbeSplit, *, at_most: int, num_classes: int, seed: int) -> tuple[Tensor, Tensor]:
    """Choose the patches of a memory, the same number of every image, and label them.

    Within an image the patches with the least scores are taken. A score is a uniform number times the sum, over the
    classes in a patch, of the number of the image's patches that hold the class; so patches of classes that are rare
    in their image tend to come first. Patches without a labelled pixel are left out.

    Args:
        train: Patch tokens and masks, of which at least one pixel is labelled.
        at_most: Largest number of patches; where that is less than the number of images, as many images are drawn.
        num_classes: Number of classes, K.
        seed: Decides what is drawn.

    Returns:
        Indices ``(M,)`` int64 into the N * P patches of the split, and the ``(M, K)`` float32 share of every class
        among the labelled pixels of each.

    Source: vpariza/open-hummingbird-eval, hbird/hbird_eval.py.
    """
    assert train.masks is not None
    num_patches, per_image = train.patches.shape[1], max(1, at_most // len(train))
    generator = torch_stream(seed, "memory")
    has_label = (train.masks < num_classes).flatten(1).any(1).nonzero().flatten().cpu()
    images = has_label[torch.randperm(len(has_label), generator=generator)[:at_most].sort().values]
    at_once = max(1, CHUNK_VALUES // max(train.masks[0].numel(), num_patches * num_classes))
    patches, labels = [], []
    for chunk in torch.split(images, at_once):
        counts = count_classes(train.masks[chunk.to(train.masks.device)], train.grid, num_classes=num_classes).cpu()
        counts = counts.view(len(chunk), num_patches, num_classes)
        holds = (counts > 0).double()
        frequency = (holds @ holds.sum(1, keepdim=True).transpose(1, 2)).squeeze(2)
        scores = frequency * torch.rand(frequency.shape, generator=generator, dtype=torch.float64)
        scores = scores.where(frequency > 0, torch.inf)
        least = scores.topk(min(per_image, num_patches), dim=1, largest=False)
        of, at = (least.values < torch.inf).nonzero(as_tuple=True)
        at = least.indices[of, at]
        patches.append(chunk[of] * num_patches + at)
        labels.append(counts[of, at].float())
    device, shares = train.patches.device, torch.cat(labels)
    return torch.cat(patches).to(device), (shares / shares.sum(1, keepdim=True)).to(device)


@dataclass(frozen=True)
class Memory(Segmenter):
    """Patches that lend their labels.

    Attributes:
        keys: ``(M, D)`` float32 their tokens at length 1.
        labels: ``(M, K)`` float32 the share of every class in them.
        k: Number of neighbours that a patch takes its label from, at most M.
        temperature: A neighbour weighs exp(cosine / temperature).
    """

    keys: Tensor
    labels: Tensor
    k: int
    temperature: float

    @classmethod
    def of(cls, tokens: Tensor, labels: Tensor, *, k: int, temperature: float) -> Memory:
        """Build a memory of ``(M, D)`` tokens and their ``(M, K)`` labels; with fewer than k, all are neighbours."""
        return cls(normalise_rows(tokens), labels, min(k, len(tokens)), temperature)

    def predict(self, part: ProbeSplit, images: Tensor) -> Iterator[Tensor]:
        """Yield the ``(N, H, W)`` int64 classes of N images of a split: soft labels, upsampled bilinearly."""
        assert part.masks is not None
        on_grid = self.soft_labels(part.patches[images].flatten(0, 1)).view(len(images), *part.grid, -1)
        yield segment(on_grid, size=(part.masks.shape[1], part.masks.shape[2]), upsample="bilinear")

    def soft_labels(self, tokens: Tensor) -> Tensor:
        """Return the ``(Q, K)`` float32 labels of ``(Q, D)`` tokens: the mean of the neighbours', softly weighed."""
        chunk_size = max(1, MAX_VALUES // max(len(self.keys), self.k * self.labels.shape[1]))
        return torch.cat([self._look_up(chunk) for chunk in torch.split(normalise_rows(tokens), chunk_size)])

    def values_per_image(self, part: ProbeSplit) -> int:
        """Return the number of label shares of the pixels of an image."""
        return super().values_per_image(part) * self.labels.shape[1]

    def _look_up(self, queries: Tensor) -> Tensor:
        cosines = queries @ self.keys.T
        neighbours = top_indices(cosines, self.k)
        weights = torch.softmax(cosines.gather(1, neighbours) / self.temperature, dim=1)
        return (weights[:, None] @ self.labels[neighbours]).squeeze(1)
