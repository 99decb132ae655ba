"""Ridge regression from patch tokens to the classes of their pixels, in closed form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from specvit.probes.base import ProbeSplit
from specvit.probes.segmentation.base import Fitter, Training, chunks, count_classes
from specvit.probes.segmentation.readout import Readout, UpsampledReadout


class RidgeFitter(Fitter):
    """Fit the weighted least-squares map of every labelled pixel's one-hot class from its patch's token.

    Pixels of one patch share the token, so this is ridge regression of the patch's label fractions, with the
    number of its labelled pixels as weight. The candidates are penalties.

    Source: the linear probe of DINOv2 and DINOv3 (last layer, 1x1 convolution, upsampled scores). Deviation:
    squared error in place of cross-entropy, which has a closed form and so takes a second instead of an hour.
    """

    def __init__(
        self, training: Training, *, balance: float, upsample: Literal["bilinear", "nearest"]
    ) -> None:
        split = training.split
        weights = class_weights(split, num_classes=training.num_classes, balance=balance)
        self.upsample = upsample
        # The sums of both parts are taken once: together they are those of the whole.
        self.part = Ridge.sum_over(split, training.fitted, class_weights=weights)
        self.whole = self.part
        if len(split) > 1:
            self.whole = self.part + Ridge.sum_over(split, training.held_out, class_weights=weights)

    def fit_part(self, candidates: Sequence[float]) -> UpsampledReadout:
        """Fit to the images of ``fitted``, once for every penalty."""
        return UpsampledReadout(self.part.solve(candidates), self.upsample)

    def fit_whole(self, candidate: float) -> UpsampledReadout:
        """Fit to all images of the training split."""
        return UpsampledReadout(self.whole.solve([candidate]), self.upsample)


def class_weights(train: ProbeSplit, *, num_classes: int, balance: float) -> Tensor:
    """Compute how much a pixel of every class weighs: its frequency to the power of minus ``balance``.

    Args:
        train: Patch tokens and masks.
        num_classes: Number of classes, K.
        balance: 0 = all pixels alike, 1 = all classes alike.

    Returns:
        ``(K,)`` float64 weights; 0 for classes without pixels.
    """
    assert train.masks is not None
    counts = train.masks.flatten().bincount(minlength=num_classes)[:num_classes].double()
    return (counts / counts.sum()).pow(-balance).where(counts > 0, 0.0)


@dataclass(frozen=True)
class Ridge:
    """The sums that a ridge regression needs, over some images; those of several parts add up.

    Attributes:
        offset: ``(D,)`` float64 taken off every token, so that large means cost no digits.
        moments: ``(3, D)`` float64 over all patches, labelled or not: number, sum, sum of squares of tokens.
        gram: ``(D + 1, D + 1)`` float64 sum over labelled pixels of weight * x x^T; x ends with a constant 1.
        cross: ``(D + 1, K)`` float64 sum over labelled pixels of weight * x (one-hot class)^T.
    """

    offset: Tensor
    moments: Tensor
    gram: Tensor
    cross: Tensor

    @classmethod
    def sum_over(cls, part: ProbeSplit, images: Tensor, *, class_weights: Tensor) -> Ridge:
        """Sum over images of a split.

        Args:
            part: Patch tokens and masks.
            images: ``(M,)`` int64 indices of the images to sum over.
            class_weights: ``(K,)`` float64 weight of a pixel of every class.

        Returns:
            The sums.
        """
        assert part.masks is not None
        dim, num_classes = part.patches.shape[2], len(class_weights)
        offset = part.patches[0].double().mean(0)
        moments, gram, cross = (
            offset.new_zeros(shape) for shape in ((3, dim), (dim + 1, dim + 1), (dim + 1, num_classes))
        )
        values_per_image = part.patches.shape[1] * (dim + num_classes + 1) + part.masks[0].numel()
        for chunk in chunks(images, part, values_per_image=values_per_image):
            tokens = torch.nn.functional.pad(part.patches[chunk].flatten(0, 1).double(), (0, 1), value=1.0)
            tokens[:, :-1] -= offset
            pixels = count_classes(part.masks[chunk], part.grid, num_classes=num_classes) * class_weights
            ones, squares = torch.ones_like(tokens[:, 0]), tokens[:, :-1].square()
            moments += torch.stack([ones.sum().expand(dim), ones @ tokens[:, :-1], ones @ squares])
            gram += (tokens * pixels.sum(1, keepdim=True)).T @ tokens
            cross += tokens.T @ pixels
        return cls(offset=offset, moments=moments, gram=gram, cross=cross)

    def __add__(self, other: Ridge) -> Ridge:
        return Ridge(
            offset=self.offset,
            moments=self.moments + other.moments,
            gram=self.gram + other.gram,
            cross=self.cross + other.cross,
        )

    def solve(self, penalties: Sequence[float]) -> Readout:
        """Solve for every penalty, from one eigendecomposition.

        Minimises weighted mean of squared errors + penalty * squared norm of the map, over standardised
        tokens (zero mean and unit variance over all patches; constant features are left out). The bias is
        free.

        Args:
            penalties: Penalties, each above 0.

        Returns:
            One map for every penalty, for raw tokens.
        """
        number, mean, square = self.moments[0], self.moments[1], self.moments[2]
        mean, square = mean / number, square / number
        std = (square - mean.square()).clamp(min=0).sqrt()
        # Below this the spread of a feature is the rounding of float32, not a signal to be blown up.
        is_constant = std <= 1e-6 * (mean.square() + self.offset.square()).sqrt()
        scale = std.masked_fill(is_constant, torch.inf)
        classes = self.cross[-1].nonzero().flatten()
        total = self.gram[-1, -1]
        centre, shares = self.gram[-1, :-1] / total, self.cross[-1, classes] / total
        covariance = (self.gram[:-1, :-1] / total - centre.outer(centre)) / scale.outer(scale)
        target = (self.cross[:-1, classes] / total - centre.outer(shares)) / scale[:, None]
        eigenvalues, axes = torch.linalg.eigh(covariance)
        shrinkage = 1 / (eigenvalues.clamp(min=0) + eigenvalues.new_tensor(penalties)[:, None])
        weight = axes @ (shrinkage[..., None] * (axes.T @ target)) / scale[:, None]
        return Readout(
            weight=weight, bias=shares - centre @ weight, offset=self.offset, classes=classes
        )
