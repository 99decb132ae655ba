"""How a probe chooses its hyper-parameters: on a tenth of the training split, held out by seed.

The reported split takes no part: what chooses is given the training split alone. The tenth depends on the
seed, the number of images and their labels, never on features, so that it is the same for every arm.

Source: the held-out tenth follows the evaluation of CAPI (Darcet et al. 2025, arXiv 2502.08769).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from specvit.errors import DataError, DivergenceError

if TYPE_CHECKING:
    from torch import Tensor

HELD_OUT_EVERY = 10
"""One image in so many is held out."""


def split_off_tenth(num_images: int, labels: Tensor | None, *, seed: int) -> tuple[Tensor, Tensor]:
    """Split a training split into the part to fit on and the tenth to choose on.

    The images are shuffled, sorted by label, and every tenth one is held out: each class is held out in
    proportion, to within one image.

    Args:
        num_images: Number of images of the training split, N.
        labels: ``(N,)`` int64 labels to stratify by, or None.
        seed: Decides the shuffle and where the counting starts; the global generators are left alone.

    Returns:
        Indices ``(N - M,)`` to fit on and ``(M,)`` held out, int64, ascending, on the CPU. M is N / 10,
        rounded up or down, 1 at least. A single image is in both.

    Raises:
        DataError: If there is no image.
    """
    import torch

    if num_images < 1:
        raise DataError("the train split must hold at least 1 image for a probe to fit on, not 0")
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(num_images, generator=generator)
    start = int(torch.randint(min(HELD_OUT_EVERY, num_images), (), generator=generator))
    if labels is not None:
        order = order[labels.cpu()[order].argsort(stable=True)]
    is_held_out = torch.zeros(num_images, dtype=torch.bool)
    is_held_out[order[start::HELD_OUT_EVERY]] = True
    held_out = is_held_out.nonzero().flatten()
    fitted = (~is_held_out).nonzero().flatten()
    return (fitted if len(fitted) else held_out), held_out


def best(scores: Mapping[float, float]) -> float:
    """Return the candidate with the highest score; of equals, the one that is listed first.

    Args:
        scores: Score of every candidate on the held-out tenth, in the order in which the settings list them.

    Returns:
        The candidate. A score that is not a number is below all others.
    """
    return max(scores, key=lambda candidate: -math.inf if math.isnan(scores[candidate]) else scores[candidate])


def require_finite(features: Tensor, *, probe: str, split: str) -> None:
    """Check that features are finite numbers.

    Args:
        features: ``(N, ...)`` features of N images.
        probe: Name of the probe, for the message.
        split: Name of the split, for the message.

    Raises:
        DivergenceError: If a feature is NaN or infinite.
    """
    # Fast path: a finite sum has finite terms only. (A sum may also overflow; the count below decides.)
    if features.sum().isfinite():
        return
    num_bad = int((~features.flatten(1).isfinite()).any(1).sum())
    if num_bad:
        raise DivergenceError(
            f"probe {probe!r}: features must be finite numbers, but those of {num_bad} of {len(features)} "
            f"{split} images are not; the backbone has diverged"
        )


def require_fitted(*weights: Tensor, probe: str) -> None:
    """Check what a probe has fitted: NaN would be taken for a class like any other.

    Args:
        *weights: What was fitted by steps.
        probe: Name of the probe, for the message.

    Raises:
        DivergenceError: If one of them is NaN or infinite.
    """
    if not all(bool(weight.isfinite().all()) for weight in weights):
        raise DivergenceError(f"probe {probe!r}: what it has fitted is not finite; try smaller learning rates (lrs)")
