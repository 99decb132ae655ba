"""Linear classification of frozen image features: logistic regression, or many classifiers trained by SGD."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from specvit.probes.base import Metric, PatchFeatures, Probe, ProbeSplit
from specvit.probes.linear.sgd import (
    Head,
    Heads,
    fit_heads,
    head_features,
    head_grid,
    in_groups,
    num_blocks_of,
    read_by,
)
from specvit.probes.logistic import WIDE, Basis, fit_path, mean_and_scale
from specvit.probes.protocols import resolve_protocol
from specvit.probes.scores import require_labels, top1
from specvit.probes.selection import best, require_finite, require_fitted, split_off_tenth
from specvit.settings import Flag, PositiveFloat, PositiveInt, settings

if TYPE_CHECKING:
    from torch import Tensor

DEFAULTS: Mapping[str, Mapping[str, object]] = MappingProxyType(
    {
        "logistic": {"cs": (1e-3, 1e-2, 0.1, 1.0, 10.0, 100.0), "mean_patch": True},
        "sgd": {
            "lrs": (0.1, 5e-2, 2e-2, 1e-2, 5e-3, 2e-3, 1e-3, 5e-4, 2e-4, 1e-4, 5e-5, 2e-5, 1e-5),
            "last_blocks": (1, 4),
            "standardise": True,
            "epochs": 100,
            "batch_size": 128,
        },
    }
)
"""The fields of every protocol, with the values that they have where none are given."""


@settings
class Linear(Probe):
    """Classify by a linear map of [CLS] tokens and the mean patch token.

    ``logistic`` is L2-regularised multinomial logistic regression. ``sgd`` trains a classifier for every input
    ([CLS] of the last block or of the last four, without and with the mean patch) and learning rate side by
    side, and reports one of them. Each has fields that the other rejects.

    Source: facebookresearch/dinov2, eval/log_regression.py and, for the features and for ``sgd``,
    eval/linear.py. Deviations: C, or the classifier, is chosen on a held-out tenth of the training split, where
    the source takes the best on the reported one, and then trained anew on all of it; features are standardised;
    images are seen once, unaugmented, in place of random crops; ``sgd`` is scaled down to short runs.
    """

    name: ClassVar[str] = "linear"
    needs: ClassVar[str] = "labels"
    metrics: ClassVar[tuple[Metric, ...]] = (Metric("linear_top1", "linear top-1"),)

    protocol: Literal["logistic", "sgd"] = "logistic"
    """How classifiers are fitted."""
    mean_patch: Flag | None = None
    """For ``logistic``: whether the mean of the patch tokens is appended to [CLS]. Default: true."""
    cs: Annotated[tuple[PositiveFloat, ...], Field(min_length=1)] | None = None
    """For ``logistic``: weights C of the summed cross-entropy against half the squared norm of the weights, to
    choose from; of equals the first is taken. Default: 1e-3 to 100 by tens."""
    lrs: Annotated[tuple[PositiveFloat, ...], Field(min_length=1)] | None = None
    """For ``sgd``: peak learning rates to choose from, for batches of 256 images; with other batches in proportion.
    Of classifiers that are equal on the tenth, that of the fewest blocks is taken, without the mean patch, and of
    those the first learning rate. Default: the source's 13 from 0.1 down to 1e-5; the largest comes first, since one
    that is too small for a short run learns nothing."""
    last_blocks: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] | None = None
    """For ``sgd``: of how many of the last blocks [CLS] is read, to choose from. Of more blocks than have [CLS], all
    are read (raw pixels have none: the image itself is read). Default: 1 and 4, as in the source."""
    standardise: Flag | None = None
    """For ``sgd``: whether features have mean 0 and variance 1 over the training split. The source does without,
    which after a short run measures the scale of features as much as what they say. Default: true."""
    epochs: PositiveInt | None = None
    """For ``sgd``: how often the training split is gone through. Default: 100; the source takes 12,500 steps."""
    batch_size: PositiveInt | None = None
    """For ``sgd``: images of a step, at most. Default: 128, which the source has on every GPU."""

    @model_validator(mode="after")
    def _resolve(self) -> Linear:
        resolve_protocol(self, self.protocol, DEFAULTS)
        return self

    @property
    def num_blocks(self) -> int:
        """Return of how many of the last blocks it reads [CLS]."""
        return max(self.last_blocks or (0,))

    @property
    def patch_features(self) -> PatchFeatures:
        """Return that it reads the mean patch, or nothing."""
        return "none" if self.mean_patch is False else "mean"

    def num_copied(
        self, num_images: int, *, num_patches: int, cls_dim: int, patch_dim: int, num_classes: int | None  # noqa: ARG002
    ) -> float:
        """Return what copies there are at a time, and arrays of images by classes, where these are known.

        Of ``logistic`` three copies, beside the features that are joined, in float64 as far as ``Basis`` has it. While
        it is fitted there are fewer, and three arrays by classes; first on nine tenths of the images. Of ``sgd`` there
        are targets by classes.
        """
        width, classes = cls_dim * max(1, self.num_blocks), num_classes or 0
        width += patch_dim if self.patch_features == "mean" else 0
        if self.protocol == "sgd":
            return num_images * max(3 * width, 1.9 * width + 1.125 * classes, width + 1.25 * classes)
        wide = 2 if width <= WIDE else 1
        rotated = (1 + 3 * wide) * width
        chosen = (1 + 2.8 * wide) * width + 2.7 * wide * classes
        fitted = (1 + 2 * wide) * width + 3 * wide * classes
        return num_images * max(rotated, chosen, fitted)

    def evaluate(
        self, train: ProbeSplit, val: ProbeSplit, *, num_classes: int, seed: int
    ) -> dict[str, float]:
        """Fit on all of ``train``, with what was chosen on a tenth of it, and score on ``val``.

        Args:
            train: Features and labels to fit on.
            val: Features and labels to report on.
            num_classes: Number of classes.
            seed: Decides which tenth of ``train`` is held out, and what ``sgd`` draws.

        Returns:
            ``linear_top1`` in %. A class that ``train`` lacks is never predicted.

        Raises:
            DataError: If labels are missing or outside [0, num_classes).
            DivergenceError: If a feature is not a finite number.
        """
        truth = require_labels(val.labels, num_classes=num_classes, probe=self.name, split="val")
        if self.protocol == "sgd":
            return {"linear_top1": top1(self._predict_sgd(train, val, num_classes=num_classes, seed=seed), truth)}
        queries = self._features(val, split="val")
        features, labels = self._inputs(train, num_classes=num_classes)
        basis = Basis.fit(features)
        rotated = basis.rotate(features)
        c = self._choose(rotated, labels, num_classes=num_classes, seed=seed)
        classifier = fit_path(rotated, labels, [c], num_classes=num_classes)[c]
        return {"linear_top1": top1(classifier.predict(basis.rotate(queries)), truth)}

    def _predict_sgd(self, train: ProbeSplit, val: ProbeSplit, *, num_classes: int, seed: int) -> Tensor:
        labels = require_labels(train.labels, num_classes=num_classes, probe=self.name, split="train")
        features, queries = self._sgd_features(train, val)
        head = self._choose_head(features, labels, train, seed=seed)
        fitted = self._fit_heads([head], features, labels, train, seed=seed)
        require_fitted(fitted.weight, fitted.bias, probe=self.name)
        return fitted.predict(queries)[0]

    def _choose_head(self, features: Tensor, labels: Tensor, train: ProbeSplit, *, seed: int) -> Head:
        """Return the classifier of ``sgd`` with the best top-1 on a held-out tenth."""
        assert self.lrs is not None
        assert self.last_blocks is not None
        heads = head_grid(self.lrs, self.last_blocks, num_blocks=num_blocks_of(train))
        fitted, held_out = (
            part.to(features.device) for part in split_off_tenth(len(features), labels, seed=seed)
        )
        x, y, queries, truth = features[fitted], labels[fitted], features[held_out], labels[held_out]
        num_classes = int(y.bincount().count_nonzero())
        scores: list[float] = []
        for group in in_groups(heads, bytes_per_head=x.shape[1] * num_classes * x.element_size()):
            predictions = self._fit_heads(group, x, y, train, seed=seed).predict(queries)
            scores += [top1(row, truth) for row in predictions]
        return heads[int(best(dict(enumerate(scores))))]

    def _fit_heads(
        self, heads: Sequence[Head], features: Tensor, labels: Tensor, train: ProbeSplit, *, seed: int
    ) -> Heads:
        assert self.epochs is not None
        assert self.batch_size is not None
        return fit_heads(
            features,
            labels,
            lrs=[head.learning_rate for head in heads],
            reads=read_by(heads, train),
            epochs=self.epochs,
            batch_size=self.batch_size,
            seed=seed,
        )

    def _sgd_features(self, *parts: ProbeSplit) -> list[Tensor]:
        """Return what classifiers of ``sgd`` read, of the training split and then of others, in its coordinates."""
        features = [head_features(part) for part in parts]
        for part, split in zip(features, ("train", "val"), strict=False):
            require_finite(part, probe=self.name, split=split)
        if not self.standardise:
            return features
        mean, scale = mean_and_scale(features[0])
        return [(part - mean) / scale for part in features]

    def _choose(self, rotated: Tensor, labels: Tensor, *, num_classes: int, seed: int) -> float:
        """Return the C with the best top-1 on a held-out tenth."""
        fitted, held_out = (
            part.to(rotated.device) for part in split_off_tenth(len(rotated), labels, seed=seed)
        )
        assert self.cs is not None
        path = fit_path(rotated[fitted], labels[fitted], self.cs, num_classes=num_classes)
        queries, truth = rotated[held_out], labels[held_out]
        return best({c: top1(classifier.predict(queries), truth) for c, classifier in path.items()})

    def _inputs(self, train: ProbeSplit, *, num_classes: int) -> tuple[Tensor, Tensor]:
        labels = require_labels(train.labels, num_classes=num_classes, probe=self.name, split="train")
        return self._features(train, split="train"), labels

    def _features(self, part: ProbeSplit, *, split: str) -> Tensor:
        import torch

        features = torch.cat([part.cls, part.patch_mean()], dim=1) if self.mean_patch else part.cls
        require_finite(features, probe=self.name, split=split)
        return features
