"""The teacher's targets, part by part, so that memory holds those of a part and not those of the batch.

Shapes: B rows of the whole batch ([CLS] of all views, or masked patches), b of a part, D channels of the head's
bottleneck, K prototypes.

What is held of every row is where the teacher puts it in the bottleneck, D numbers in place of K (of the 60,000 masked
patches of 1,024 images 31 MB in bfloat16, where their outputs take 7.9 GB and targets 15.8); a part's outputs are one
product away. That suffices to couple rows: a running centre needs the sum of the outputs, which the parts make one
after the other, and Sinkhorn-Knopp one number a prototype, found in as many passes over the parts as it has iterations.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from specvit.recipes.dinov2.head import DinoHead
from specvit.recipes.dinov2.losses import SINKHORN_ITERATIONS, Centre, add_logs, sinkhorn


class TeacherRows:
    """What the teacher says of the rows of all parts of a batch that are this process's."""

    def __init__(self, head: DinoHead, embedded: Sequence[Tensor]) -> None:
        """Take over the rows.

        Args:
            head: The teacher's, for these rows.
            embedded: ``(b, D)`` a part, what ``head.embed`` made of it.
        """
        self._embedded = embedded
        self._prototypes = head.unit_prototypes()

    def __len__(self) -> int:
        """Return the number of parts."""
        return len(self._embedded)

    def logits(self, number: int) -> Tensor:
        """Compute the outputs of a part, ``(b, K)``."""
        return F.linear(self._embedded[number], self._prototypes)

    def num_rows(self) -> int:
        """Return the number of rows of all parts."""
        return sum(map(len, self._embedded))


def centred_targets(rows: TeacherRows, centre: Centre, *, temperature: float) -> Iterator[Tensor]:
    """Yield the targets ``(b, K)`` of each part with the centre so far; with the last part's, move the centre."""
    summed: Tensor | None = None
    for number in range(len(rows)):
        logits = rows.logits(number)
        of_part = centre.sum_of(logits)
        summed = of_part if summed is None else summed + of_part
        targets = centre(logits, temperature=temperature)
        del logits  # while the student learns from the targets
        if number == len(rows) - 1:
            centre.move(summed, num_rows=rows.num_rows())
        yield targets


def balanced_targets(rows: TeacherRows, *, temperature: float) -> Iterator[Tensor]:
    """Yield the targets ``(b, K)`` of each part, as ``sinkhorn`` balances them over the whole batch."""
    if len(rows) == 1:
        yield sinkhorn(rows.logits(0), temperature=temperature)
        return
    offsets = _sinkhorn_offsets(rows, temperature=temperature)
    for number in range(len(rows)):
        yield F.softmax(_scaled(rows, number, temperature) + offsets, dim=1)


def _sinkhorn_offsets(rows: TeacherRows, *, temperature: float) -> Tensor:
    """Find what Sinkhorn-Knopp adds to the log of each prototype: ``(K,)``.

    Its matrix is always the first one with a factor for each row and each prototype. The rows' follow from the
    prototypes', so that no more than these is carried on from part to part, as logs, which cannot overflow.
    """
    offsets: Tensor | None = None
    for _ in range(SINKHORN_ITERATIONS):
        summed: Tensor | None = None
        for number in range(len(rows)):
            scaled = _scaled(rows, number, temperature)
            if offsets is not None:
                scaled = scaled - (scaled + offsets).logsumexp(dim=1, keepdim=True)
            of_part = scaled.logsumexp(dim=0)
            summed = of_part if summed is None else torch.logaddexp(summed, of_part)
        assert summed is not None
        offsets = -add_logs(summed)
    assert offsets is not None
    return offsets


def _scaled(rows: TeacherRows, number: int, temperature: float) -> Tensor:
    return rows.logits(number).float() / temperature
