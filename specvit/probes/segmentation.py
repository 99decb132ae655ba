"""Linear segmentation: ridge regression from patch tokens to the classes of their pixels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from specvit.probes.base import Metric, Probe, ProbeSplit
from specvit.probes.scores import confusion, mean_iou, require_masks
from specvit.probes.selection import best, require_finite, split_off_tenth
from specvit.settings import Fraction, PositiveFloat, settings

if TYPE_CHECKING:
    from torch import Tensor

_CHUNK_VALUES = 1 << 22
"""Numbers that the largest temporary tensor may hold; images are taken in chunks that keep to it."""

Upsampling = Literal["bilinear", "nearest"]


@settings
class Segmentation(Probe):
    """Segment by a linear map of patch tokens, fitted in closed form.

    The map is the weighted least-squares fit of every labelled pixel's one-hot class from the standardised
    token of its patch. Pixels of one patch share the token, so this is ridge regression of the patch's label
    fractions, with the number of its labelled pixels as weight.

    Source: the linear probe of DINOv2 and DINOv3 (last layer, 1x1 convolution, upsampled scores). Deviation:
    squared error in place of cross-entropy, which has a closed form and so takes a second instead of an hour.
    """

    name: ClassVar[str] = "segmentation"
    needs: ClassVar[str] = "masks"
    metrics: ClassVar[tuple[Metric, ...]] = (Metric("miou", "mIoU"),)
    at_rungs: ClassVar[bool] = True

    penalties: Annotated[tuple[PositiveFloat, ...], Field(min_length=1)] = (1.0, 0.1, 0.01, 1e-3, 1e-4, 1e-5)
    """Weights of the squared norm of the map against the mean squared error, to choose from; of equals the
    first is taken."""
    balance: Fraction = 0.75
    """A pixel weighs the frequency of its class to the power of minus ``balance``: 0 = all pixels alike,
    where rare classes are hardly ever predicted; 1 = all classes alike, where they are predicted too often.
    Intersection over union pays for both errors, which would suggest 0.5; but least squares shrinks the
    scores of rare classes further, so the default is higher."""
    upsample: Upsampling = "bilinear"
    """How scores get from the patch grid to pixels."""

    def evaluate(
        self, train: ProbeSplit, val: ProbeSplit, *, num_classes: int, seed: int
    ) -> dict[str, float]:
        """Fit on all of ``train``, with the penalty chosen on a tenth of it, and score on ``val``.

        Args:
            train: Patch tokens and masks to fit on.
            val: Patch tokens and masks to report on.
            num_classes: Number of classes of the masks.
            seed: Decides which tenth of ``train`` is held out.

        Returns:
            ``miou`` in %. A class that ``train`` lacks is never predicted.

        Raises:
            DataError: If masks are missing, of a wrong size, hold an unknown class or no class at all.
            DivergenceError: If a feature is not a finite number.
        """
        import torch

        self._check(val, num_classes=num_classes, split="val")
        problem, penalty = self._choose(train, num_classes=num_classes, seed=seed)
        images = torch.arange(len(val))
        (counts,) = self._score(problem.solve([penalty]), val, images, num_classes=num_classes)
        return {"miou": mean_iou(counts)}

    def choose_penalty(self, train: ProbeSplit, *, num_classes: int, seed: int) -> float:
        """Choose the penalty on a held-out tenth of ``train``.

        Args:
            train: Patch tokens and masks of the training split.
            num_classes: Number of classes of the masks.
            seed: Decides which tenth is held out.

        Returns:
            The penalty with the best mIoU there; the first one if that tenth, or what remains, has no
            labelled pixel.

        Raises:
            DataError: If masks are missing, of a wrong size, hold an unknown class or no class at all.
            DivergenceError: If a feature is not a finite number.
        """
        return self._choose(train, num_classes=num_classes, seed=seed)[1]

    def _choose(self, train: ProbeSplit, *, num_classes: int, seed: int) -> tuple[Ridge, float]:
        """Return the sums over all of ``train`` beside the penalty, so that they are taken once."""
        self._check(train, num_classes=num_classes, split="train")
        class_weights = self._class_weights(train, num_classes=num_classes)
        fitted_part, held_out_part = split_off_tenth(len(train), train.labels, seed=seed)
        fitted = Ridge.of(train, fitted_part, class_weights=class_weights)
        held_out = Ridge.of(train, held_out_part, class_weights=class_weights)
        whole = fitted if len(train) == 1 else fitted + held_out
        if len(self.penalties) == 1 or not (fitted.has_labels and held_out.has_labels):
            return whole, self.penalties[0]
        counts = self._score(fitted.solve(self.penalties), train, held_out_part, num_classes=num_classes)
        return whole, best({p: mean_iou(c) for p, c in zip(self.penalties, counts, strict=True)})

    def _check(self, part: ProbeSplit, *, num_classes: int, split: str) -> None:
        require_masks(part.masks, num_classes=num_classes, grid=part.grid, probe=self.name, split=split)
        require_finite(part.patches, probe=self.name, split=split)

    def _class_weights(self, train: ProbeSplit, *, num_classes: int) -> Tensor:
        """Return the ``(K,)`` float64 weight of a pixel of every class; 0 for classes without pixels."""
        assert train.masks is not None
        counts = train.masks.flatten().bincount(minlength=num_classes)[:num_classes].double()
        return (counts / counts.sum()).pow(-self.balance).where(counts > 0, 0.0)

    def _score(self, readout: Readout, part: ProbeSplit, images: Tensor, *, num_classes: int) -> list[Tensor]:
        """Return one confusion for every map of ``readout``, over the given images of ``part``."""
        assert part.masks is not None
        height, width = part.masks.shape[1:]
        counts = [readout.classes.new_zeros(num_classes, num_classes) for _ in readout.bias]
        for chunk in _chunks(images, part, values_per_image=height * width * len(readout.classes)):
            for i, scores in enumerate(readout.scores(part.patches[chunk])):
                on_grid = scores.view(len(chunk), *part.grid, -1)
                predictions = segment(on_grid, size=(height, width), upsample=self.upsample)
                counts[i] += confusion(
                    readout.classes[predictions], part.masks[chunk], num_classes=num_classes
                )
        return counts


@dataclass(frozen=True)
class Ridge:
    """Hold the sums that a ridge regression needs, over some images; those of several parts add up.

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
    def of(cls, part: ProbeSplit, images: Tensor, *, class_weights: Tensor) -> Ridge:
        """Sum over images of a split.

        Args:
            part: Patch tokens and masks.
            images: ``(M,)`` int64 indices of the images to sum over.
            class_weights: ``(K,)`` float64 weight of a pixel of every class.

        Returns:
            The sums.
        """
        import torch

        assert part.masks is not None
        dim, num_classes = part.patches.shape[2], len(class_weights)
        offset = part.patches[0].double().mean(0)
        moments, gram, cross = (
            offset.new_zeros(shape) for shape in ((3, dim), (dim + 1, dim + 1), (dim + 1, num_classes))
        )
        values_per_image = part.patches.shape[1] * (dim + num_classes + 1) + part.masks[0].numel()
        for chunk in _chunks(images, part, values_per_image=values_per_image):
            tokens = torch.nn.functional.pad(part.patches[chunk].flatten(0, 1).double(), (0, 1), value=1.0)
            tokens[:, :-1] -= offset
            pixels = count_pixels(part.masks[chunk], part.grid, num_classes=num_classes) * class_weights
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

    @property
    def has_labels(self) -> bool:
        """Tell whether any pixel is labelled."""
        return bool(self.gram[-1, -1] > 0)

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
        import torch

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


@dataclass(frozen=True)
class Readout:
    """Hold L linear maps from patch tokens to class scores: ``(token - offset) @ weight + bias``.

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


def count_pixels(masks: Tensor, grid: tuple[int, int], *, num_classes: int) -> Tensor:
    """Count the pixels of every class in every patch.

    Args:
        masks: ``(N, H, W)`` uint8 classes, in [0, K) or 255 = ignore.
        grid: Patches per column and per row.
        num_classes: Number of classes, K.

    Returns:
        ``(N * P, K)`` int64 number of pixels; ignored ones are left out.
    """
    import torch

    (num_images, height, width), (rows, columns) = masks.shape, grid
    # Ignored pixels are counted as one more class, which is cheaper than to take them out.
    bins = num_classes + 1
    patches = torch.arange(num_images * rows * columns, device=masks.device).view(-1, rows, 1, columns, 1)
    tiles = masks.view(num_images, rows, height // rows, columns, width // columns).clamp(max=num_classes)
    counts = (patches * bins + tiles).flatten().bincount(minlength=patches.numel() * bins)
    return counts.view(-1, bins)[:, :num_classes]


def segment(scores: Tensor, *, size: tuple[int, int], upsample: Upsampling) -> Tensor:
    """Choose a class for every pixel from scores on the patch grid.

    Args:
        scores: ``(N, grid[0], grid[1], C)`` float.
        size: Height and width of the segmentation in pixels.
        upsample: How scores get from the patch grid to pixels.

    Returns:
        ``(N, H, W)`` int64 index of the highest score.
    """
    import torch

    # With the classes last in memory, interpolation and maximum are several times as fast on a CPU; ``max``
    # is faster than ``argmax``.
    upsampled = torch.nn.functional.interpolate(scores.permute(0, 3, 1, 2), size=size, mode=upsample)
    return upsampled.permute(0, 2, 3, 1).max(-1).indices


def _chunks(images: Tensor, part: ProbeSplit, *, values_per_image: int) -> tuple[Tensor, ...]:
    """Split image indices so that a chunk's temporaries stay small, on the device of the features."""
    import torch

    return torch.split(images.to(part.patches.device), max(1, _CHUNK_VALUES // values_per_image))
