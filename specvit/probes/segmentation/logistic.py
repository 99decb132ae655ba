"""Logistic regression of the majority class of every patch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from specvit.probes.logistic import Basis, fit_path
from specvit.probes.segmentation.base import Fitter, Training, draw_patches
from specvit.probes.segmentation.readout import Readout, UpsampledReadout


class LogisticFitter(Fitter):
    """Fit L2-regularised multinomial logistic regression to standardised patch tokens by L-BFGS.

    The target of a patch is the class of most of its labelled pixels, of equals the one with the lowest
    number; patches without a labelled pixel are left out. All patches weigh the same. Candidates are values
    of C.

    Source: the linear evaluation of CAPI (Darcet et al. 2025, arXiv 2502.08769; facebookresearch/capi,
    eval_segmentation.py). Deviations: ignored pixels have no say in what a patch's majority is; tokens are
    standardised by the patches that are fitted to; at most so many patches (``max_patches``); L-BFGS ends after
    200 iterations, not 1000.
    """

    def __init__(
        self, training: Training, *, max_patches: int, upsample: Literal["bilinear", "nearest"]
    ) -> None:
        self.training = training
        self.max_patches = max_patches
        self.upsample = upsample

    def fit_part(self, candidates: Sequence[float]) -> UpsampledReadout:
        """Fit to the images of ``fitted``, once for every C."""
        return self._fit(self.training.fitted, candidates)

    def fit_whole(self, candidate: float) -> UpsampledReadout:
        """Fit to all images of the training split."""
        return self._fit(torch.arange(len(self.training.split)), [candidate])

    def _fit(self, images: Tensor, cs: Sequence[float]) -> UpsampledReadout:
        patches, counts = draw_patches(self.training, images, at_most=self.max_patches)
        readout = fit_majority(
            self.training.split.patches.flatten(0, 1)[patches], counts.argmax(1).to(patches.device), cs
        )
        return UpsampledReadout(readout, self.upsample)


def fit_majority(tokens: Tensor, labels: Tensor, cs: Sequence[float]) -> Readout:
    """Fit a logistic regression for every C.

    Args:
        tokens: ``(B, D)`` float32 patch tokens.
        labels: ``(B,)`` int64 class of each.
        cs: Weights of the summed cross-entropy against half the squared norm of the weights, each above 0.

    Returns:
        One map for every C, in the order of ``cs``, for raw tokens; its scores are log-odds.
    """
    basis = Basis.fit(tokens)
    path = fit_path(basis.rotate(tokens), labels, sorted(set(cs)), num_classes=int(labels.max()) + 1)
    classifiers = [path[c] for c in cs]
    weights = [basis.axes @ classifier.weight / basis.scale[:, None] for classifier in classifiers]
    return Readout(
        weight=torch.stack(weights).double(),
        bias=torch.stack([classifier.bias for classifier in classifiers]).double(),
        offset=basis.mean.double(),
        classes=classifiers[0].classes,
    )
