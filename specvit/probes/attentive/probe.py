"""Attentive classification: a learned query chooses among the frozen tokens of an image."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from specvit.probes.attentive.pooling import AttentiveHeads, Tokens, fit_attentive_heads
from specvit.probes.base import Metric, Probe, ProbeSplit
from specvit.probes.scores import require_labels, top1
from specvit.probes.selection import best, require_finite, require_fitted, split_off_tenth
from specvit.settings import Flag, NonNegativeFloat, PositiveFloat, PositiveInt, settings

if TYPE_CHECKING:
    from torch import Tensor


@settings
class Attentive(Probe):
    """Classify by one cross-attention of a learned query over frozen tokens, and a linear map behind it.

    Unlike a linear classifier it finds a class that a few tokens tell. It learns much by itself: compare with the
    floors. Tokens of raw pixels are their patches, without position.

    Source: facebookresearch/capi, eval_classification.py. Deviations: [CLS] is a token beside the patches; tokens are
    centred, and scaled by one number, as the patches of the training split are spread; the classifier that is best on
    the held-out tenth is trained anew on all of it; images are seen as they are, in place of random crops; narrower
    heads, larger learning rates and fewer steps, scaled to short runs; keys have no bias, which changes no prediction.
    """

    name: ClassVar[str] = "attentive"
    needs: ClassVar[str] = "labels"
    metrics: ClassVar[tuple[Metric, ...]] = (Metric("attentive_top1", "attentive top-1"),)

    use_cls: Flag = True
    """Whether [CLS] is one of the tokens; the source has patch tokens alone."""
    lrs: Annotated[tuple[PositiveFloat, ...], Field(min_length=1)] = (0.1, 0.03, 0.01, 3e-3, 1e-3)
    """Peak learning rates to choose from, for batches of 256 images; with other batches in proportion. The source
    has ten, from 1e-5 to 1e-2. Of equals the first is taken."""
    weight_decays: Annotated[tuple[NonNegativeFloat, ...], Field(min_length=1)] = (5e-4, 1e-3, 5e-2)
    """Weight decays to choose from, each with each learning rate; the source's."""
    head_dim: PositiveInt = 32
    """Least width of a head of the attention, in channels: there are as many heads as divide the tokens' width
    evenly. The source has 64, the whole width of the smallest backbone here."""
    epochs: PositiveInt = 30
    """How often the training split is gone through. The source takes 12,500 steps."""
    batch_size: PositiveInt = 128
    """Images of a step, at most; 128 on every GPU in the source."""

    def evaluate(
        self, train: ProbeSplit, val: ProbeSplit, *, num_classes: int, seed: int
    ) -> dict[str, float]:
        """Fit on all of ``train``, with learning rate and decay chosen on a tenth of it, and score on ``val``.

        Args:
            train: Tokens and labels to fit on.
            val: Tokens and labels to report on.
            num_classes: Number of classes.
            seed: Decides which tenth of ``train`` is held out, initial weights and the order of images.

        Returns:
            ``attentive_top1`` in %. A class that ``train`` lacks is never predicted.

        Raises:
            DataError: If labels are missing or outside [0, num_classes).
            DivergenceError: If a feature is not a finite number.
        """
        import torch

        truth = require_labels(val.labels, num_classes=num_classes, probe=self.name, split="val")
        tokens, labels = self._inputs(train, num_classes=num_classes)
        self._require_finite(val, split="val")
        queries = Tokens.of_split(val, train, with_cls=self.use_cls)
        setting = self._choose(tokens, labels, seed=seed)
        classifier = self._fit([setting], tokens, labels, torch.arange(len(train)), seed=seed)
        require_fitted(classifier.query, classifier.value, classifier.weight, classifier.bias, probe=self.name)
        return {"attentive_top1": top1(classifier.predict(queries, torch.arange(len(val)))[0], truth)}

    def _choose(self, tokens: Tokens, labels: Tensor, *, seed: int) -> tuple[float, float]:
        """Return the learning rate and weight decay with the best top-1 on a held-out tenth."""
        settings = tuple(itertools.product(self.lrs, self.weight_decays))
        fitted, held_out = split_off_tenth(len(labels), labels, seed=seed)
        predictions = self._fit(settings, tokens, labels, fitted, seed=seed).predict(tokens, held_out)
        truth = labels[held_out.to(labels.device)]
        return settings[int(best({index: top1(row, truth) for index, row in enumerate(predictions)}))]

    def _fit(
        self, settings: Sequence[tuple[float, float]], tokens: Tokens, labels: Tensor, images: Tensor, *, seed: int
    ) -> AttentiveHeads:
        return fit_attentive_heads(
            tokens,
            labels,
            images,
            lrs=[rate for rate, _ in settings],
            weight_decays=[decay for _, decay in settings],
            head_dim=self.head_dim,
            epochs=self.epochs,
            batch_size=self.batch_size,
            seed=seed,
        )

    def _inputs(self, train: ProbeSplit, *, num_classes: int) -> tuple[Tokens, Tensor]:
        labels = require_labels(train.labels, num_classes=num_classes, probe=self.name, split="train")
        self._require_finite(train, split="train")
        return Tokens.of_split(train, train, with_cls=self.use_cls), labels

    def _require_finite(self, part: ProbeSplit, *, split: str) -> None:
        require_finite(part.patches, probe=self.name, split=split)
        if self.use_cls:
            require_finite(part.cls, probe=self.name, split=split)
