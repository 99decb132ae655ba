"""Checking the targets of a batch before they are used as indices, where a wrong one would end in a crash of kernels.

Data sources check what they read, but arrays lie in memory for hours, shared by processes, and images are not all
seen at once: a wrong class is told of at the step that meets it.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from specvit.data import IGNORE_INDEX, Split
from specvit.errors import DataError


def check_targets(
    split: Split, indices: NDArray[np.int64], num_classes: Mapping[str, int], *, step: int, steps: int
) -> None:
    """Check the classes of some images of a split.

    Args:
        split: What the indices point into.
        indices: ``(B,)`` the images of a batch.
        num_classes: Number of classes by target, ``labels`` or ``masks``; other targets are not looked at.
        step: Number of the step that learns from them, from 0, for the message.
        steps: Steps of the run, for the message.

    Raises:
        DataError: If a label is not in [0, C), or a pixel of a mask neither in [0, K) nor 255 = ignore.
    """
    for target, count in num_classes.items():
        values: NDArray[np.int64] | NDArray[np.uint8] | None = getattr(split, target)
        if values is None:
            continue
        of_batch = values[indices]
        wrong = (of_batch < 0) | (of_batch >= count)
        rule = f"in [0, {count})"
        if target == "masks":
            wrong &= of_batch != IGNORE_INDEX
            rule += f" or {IGNORE_INDEX} = ignore"
        if wrong.any():
            image = indices[np.flatnonzero(wrong.reshape(len(indices), -1).any(axis=1))[0]]
            raise DataError(
                f"step {step + 1} of {steps}: {target} of training image {image} must be {rule}, "
                f"but hold {of_batch[wrong][0]}"
            )
