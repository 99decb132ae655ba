"""Nearest class mean: a probe without hyper-parameters."""

from __future__ import annotations

from typing import ClassVar

from specvit.errors import DataError
from specvit.probes import Metric, Probe, ProbeSplit
from specvit.settings import Flag, settings


@settings
class ClassMeans(Probe):
    """Classify by the nearest class mean of [CLS]."""

    name: ClassVar[str] = "class_means"
    needs: ClassVar[str] = "labels"
    metrics: ClassVar[tuple[Metric, ...]] = (Metric("class_means_top1", "class means top-1"),)
    at_rungs: ClassVar[bool] = True

    cosine: Flag = True
    """Whether the nearest is the one at the smallest angle; else, at the smallest distance."""

    def evaluate(self, train: ProbeSplit, val: ProbeSplit, *, num_classes: int, seed: int) -> dict[str, float]:
        """Score ``val`` by the class means of ``train``; a class that ``train`` lacks has its mean at 0.

        Returns:
            ``class_means_top1`` in %.

        Raises:
            DataError: If labels are missing.
        """
        import torch
        from torch.nn.functional import normalize

        del seed  # nothing is chosen
        if train.labels is None or val.labels is None:
            raise DataError("probe class_means needs labels")
        known, asked = (normalize(split.cls) if self.cosine else split.cls for split in (train, val))
        counts = train.labels.bincount(minlength=num_classes).clamp(min=1)
        means = known.new_zeros(num_classes, known.shape[1]).index_add_(0, train.labels, known) / counts[:, None]
        nearest = torch.cdist(asked, normalize(means) if self.cosine else means).argmin(dim=1)
        return {"class_means_top1": 100.0 * float((nearest == val.labels).float().mean())}
