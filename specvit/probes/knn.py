"""kNN: the nearest training images by [CLS] vote on the class of an image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from specvit.probes.base import Metric, PatchFeatures, Probe, ProbeSplit
from specvit.probes.scores import require_labels, top1
from specvit.probes.selection import best, require_finite, split_off_tenth
from specvit.settings import PositiveFloat, PositiveInt, settings

if TYPE_CHECKING:
    from torch import Tensor

_ROWS_AT_ONCE = 4096
"""Rows that are brought to length 1 at a time."""

_MAX_SIMILARITIES = 1 << 24
"""Cosines held at a time; a larger set of queries is taken in chunks."""


@settings
class Knn(Probe):
    """Classify by weighted vote of the nearest [CLS] tokens of the training split.

    Source: facebookresearch/dinov2, eval/knn.py. Deviation: k is chosen on a held-out tenth of the training
    split, where the source reports every k.
    """

    name: ClassVar[str] = "knn"
    needs: ClassVar[str] = "labels"
    metrics: ClassVar[tuple[Metric, ...]] = (Metric("knn_top1", "kNN top-1"),)
    at_rungs: ClassVar[bool] = True

    ks: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (10, 20, 100, 200)
    """Numbers of neighbours to choose from; those above the number of images that remain beside the
    held-out tenth are skipped, and if that leaves none, all of them vote. Of equals the first is taken."""
    temperature: PositiveFloat = 0.07
    """A neighbour's vote is exp(cosine / temperature)."""

    @property
    def patch_features(self) -> PatchFeatures:
        """Return that it reads [CLS] alone."""
        return "none"

    def num_copied(
        self, num_images: int, *, num_patches: int, cls_dim: int, patch_dim: int, num_classes: int | None  # noqa: ARG002
    ) -> float:
        """Return that nine tenths are taken while k is chosen, and brought to length 1."""
        return 1.8 * num_images * cls_dim

    def evaluate(
        self, train: ProbeSplit, val: ProbeSplit, *, num_classes: int, seed: int
    ) -> dict[str, float]:
        """Score ``val`` against all of ``train``, with the k chosen on a tenth of it.

        Args:
            train: Features and labels to fit on.
            val: Features and labels to report on.
            num_classes: Number of classes.
            seed: Decides which tenth of ``train`` is held out.

        Returns:
            ``knn_top1`` in %. A class that ``train`` lacks is never predicted.

        Raises:
            DataError: If labels are missing or outside [0, num_classes).
            DivergenceError: If a feature is not a finite number.
        """
        k = self.choose_k(train, num_classes=num_classes, seed=seed)
        labels = require_labels(train.labels, num_classes=num_classes, probe=self.name, split="train")
        truth = require_labels(val.labels, num_classes=num_classes, probe=self.name, split="val")
        require_finite(val.cls, probe=self.name, split="val")
        predictions = vote(
            val.cls, train.cls, labels, ks=(k,), num_classes=num_classes, temperature=self.temperature
        )
        return {"knn_top1": top1(predictions[k], truth)}

    def choose_k(self, train: ProbeSplit, *, num_classes: int, seed: int) -> int:
        """Choose the number of neighbours on a held-out tenth of ``train``.

        Args:
            train: Features and labels of the training split.
            num_classes: Number of classes.
            seed: Decides which tenth is held out.

        Returns:
            The k with the best top-1 there.

        Raises:
            DataError: If labels are missing or outside [0, num_classes).
            DivergenceError: If a feature is not a finite number.
        """
        labels = require_labels(train.labels, num_classes=num_classes, probe=self.name, split="train")
        require_finite(train.cls, probe=self.name, split="train")
        fitted, held_out = (
            part.to(train.cls.device) for part in split_off_tenth(len(train), labels, seed=seed)
        )
        ks = [k for k in self.ks if k <= len(fitted)] or [len(fitted)]
        predictions = vote(
            train.cls[held_out],
            train.cls[fitted],
            labels[fitted],
            ks=ks,
            num_classes=num_classes,
            temperature=self.temperature,
        )
        return int(best({k: top1(predictions[k], labels[held_out]) for k in ks}))


def vote(
    queries: Tensor, bank: Tensor, labels: Tensor, *, ks: Sequence[int], num_classes: int, temperature: float
) -> dict[int, Tensor]:
    """Predict the class of every query by vote of its nearest neighbours by cosine.

    Args:
        queries: ``(N, D)`` float features.
        bank: ``(M, D)`` float features that vote.
        labels: ``(M,)`` int64 classes of the bank.
        ks: Numbers of neighbours, each at most M.
        num_classes: Number of classes.
        temperature: A neighbour votes with weight exp(cosine / temperature).

    Returns:
        ``(N,)`` int64 predicted classes for every k.
    """
    import torch

    bank = normalise_rows(bank)
    parts: dict[int, list[Tensor]] = {k: [] for k in ks}
    chunk_size = max(1, _MAX_SIMILARITIES // len(bank))
    for start in range(0, len(queries), chunk_size):
        chunk = normalise_rows(queries[start : start + chunk_size])
        cosines, neighbours = (chunk @ bank.T).topk(max(ks), dim=1)
        # Relative to the nearest one, weights cannot overflow at any temperature.
        weights = ((cosines - cosines[:, :1]) / temperature).exp()
        classes = labels[neighbours]
        for k in ks:
            votes = weights.new_zeros(len(chunk), num_classes)
            votes.scatter_add_(1, classes[:, :k], weights[:, :k])
            parts[k].append(votes.argmax(1))
    return {k: torch.cat(part) for k, part in parts.items()}


def normalise_rows(features: Tensor) -> Tensor:
    """Scale rows to length 1; a row of zeros stays, and is equally near to everything.

    Args:
        features: ``(N, D)`` float32 features.

    Returns:
        ``(N, D)`` float32, whose products are cosines.
    """
    import torch

    # Squares of float32 overflow at 1e19 and vanish at 1e-23; those of float64 do not. In parts, for they take twice as
    # much memory each.
    scaled = torch.empty_like(features, dtype=torch.float32)
    for part, into in zip(torch.split(features, _ROWS_AT_ONCE), torch.split(scaled, _ROWS_AT_ONCE), strict=True):
        lengths = part.double().square().sum(1, keepdim=True).sqrt()
        into.copy_(part / lengths.where(lengths > 0, 1.0))
    return scaled
