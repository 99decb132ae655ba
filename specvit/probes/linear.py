"""Linear classification: logistic regression on frozen image features."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from specvit.probes.base import Metric, Probe, ProbeSplit
from specvit.probes.logistic import Basis, fit_path
from specvit.probes.scores import require_labels, top1
from specvit.probes.selection import best, require_finite, split_off_tenth
from specvit.settings import Flag, PositiveFloat, settings

if TYPE_CHECKING:
    from torch import Tensor


@settings
class Linear(Probe):
    """Classify by L2-regularised multinomial logistic regression.

    Source: facebookresearch/dinov2, eval/log_regression.py and eval/linear.py (which features). Deviations: C
    is chosen on a held-out tenth of the training split; features are standardised instead of normalised.
    """

    name: ClassVar[str] = "linear"
    needs: ClassVar[str] = "labels"
    metrics: ClassVar[tuple[Metric, ...]] = (Metric("linear_top1", "linear top-1"),)

    mean_patch: Flag = True
    """Whether the mean of the patch tokens is appended to [CLS]."""
    cs: Annotated[tuple[PositiveFloat, ...], Field(min_length=1)] = (1e-3, 1e-2, 0.1, 1.0, 10.0, 100.0)
    """Weights C of the summed cross-entropy against half the squared norm of the weights, to choose from; of
    equals the first is taken."""

    def evaluate(
        self, train: ProbeSplit, val: ProbeSplit, *, num_classes: int, seed: int
    ) -> dict[str, float]:
        """Fit on all of ``train``, with the C chosen on a tenth of it, and score on ``val``.

        Args:
            train: Features and labels to fit on.
            val: Features and labels to report on.
            num_classes: Number of classes.
            seed: Decides which tenth of ``train`` is held out.

        Returns:
            ``linear_top1`` in %. A class that ``train`` lacks is never predicted.

        Raises:
            DataError: If labels are missing or outside [0, num_classes).
            DivergenceError: If a feature is not a finite number.
        """
        truth = require_labels(val.labels, num_classes=num_classes, probe=self.name, split="val")
        queries = self._features(val, split="val")
        features, labels = self._inputs(train, num_classes=num_classes)
        basis = Basis.of(features)
        rotated = basis.rotate(features)
        c = self._choose(rotated, labels, num_classes=num_classes, seed=seed)
        classifier = fit_path(rotated, labels, [c], num_classes=num_classes)[c]
        return {"linear_top1": top1(classifier.predict(basis.rotate(queries)), truth)}

    def choose_c(self, train: ProbeSplit, *, num_classes: int, seed: int) -> float:
        """Choose C on a held-out tenth of ``train``.

        Args:
            train: Features and labels of the training split.
            num_classes: Number of classes.
            seed: Decides which tenth is held out.

        Returns:
            The C with the best top-1 there.

        Raises:
            DataError: If labels are missing or outside [0, num_classes).
            DivergenceError: If a feature is not a finite number.
        """
        features, labels = self._inputs(train, num_classes=num_classes)
        return self._choose(Basis.of(features).rotate(features), labels, num_classes=num_classes, seed=seed)

    def _choose(self, rotated: Tensor, labels: Tensor, *, num_classes: int, seed: int) -> float:
        fitted, held_out = (
            part.to(rotated.device) for part in split_off_tenth(len(rotated), labels, seed=seed)
        )
        path = fit_path(rotated[fitted], labels[fitted], self.cs, num_classes=num_classes)
        queries, truth = rotated[held_out], labels[held_out]
        return best({c: top1(classifier.predict(queries), truth) for c, classifier in path.items()})

    def _inputs(self, train: ProbeSplit, *, num_classes: int) -> tuple[Tensor, Tensor]:
        labels = require_labels(train.labels, num_classes=num_classes, probe=self.name, split="train")
        return self._features(train, split="train"), labels

    def _features(self, part: ProbeSplit, *, split: str) -> Tensor:
        import torch

        features = torch.cat([part.cls, part.patches.mean(1)], dim=1) if self.mean_patch else part.cls
        require_finite(features, probe=self.name, split=split)
        return features
