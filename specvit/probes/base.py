"""What a probe is: a small model fitted on frozen features, and the metrics it reports."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from specvit.settings import settings

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Metric:
    """Describe a number that a probe reports.

    Attributes:
        name: Its key in the ledger, e.g. ``knn_top1``.
        title: Its column in a table, e.g. ``kNN top-1``.
        unit: ``%`` for shares given in percent, in [0, 100].
        higher_is_better: Which way is up.
    """

    name: str
    title: str
    unit: str = "%"
    higher_is_better: bool = True


@dataclass(frozen=True)
class ProbeSplit:
    """Hold the frozen features of one split beside its targets. N images, P patches, D channels.

    Attributes:
        cls: ``(N, D)`` float32 [CLS] tokens.
        patches: ``(N, P, D)`` float32 patch tokens, row by row from the top left.
        grid: Patches per column and per row; ``grid[0] * grid[1] == P``.
        labels: ``(N,)`` int64, or None.
        masks: ``(N, H, W)`` uint8 with 255 = ignore, or None; H and W are multiples of the grid.
    """

    cls: Tensor
    patches: Tensor
    grid: tuple[int, int]
    labels: Tensor | None
    masks: Tensor | None

    def __len__(self) -> int:
        return len(self.cls)


@settings
class Probe(ABC):
    """Describe a probe. Each probe is one file of this package, used as ``probes: {name: {field: value}}``.

    The settings load without torch: import it inside ``evaluate``.
    """

    name: ClassVar[str]
    needs: ClassVar[str]
    """The target it predicts: ``labels`` or ``masks``."""
    metrics: ClassVar[tuple[Metric, ...]]
    at_rungs: ClassVar[bool] = False
    """Whether rungs run it where a sweep file names none: it takes no longer than a few steps of training."""

    @abstractmethod
    def evaluate(self, train: ProbeSplit, val: ProbeSplit, *, num_classes: int, seed: int) -> dict[str, float]:
        """Fit on ``train``, choosing hyper-parameters on a tenth of it, and score on ``val``.

        Args:
            train: Features and targets to fit on.
            val: Features and targets to report on; never used to choose anything.
            num_classes: Number of classes of the target that the probe needs.
            seed: Decides which tenth of ``train`` is held out; the same for every arm.

        Returns:
            A value for each of ``metrics``, by name.
        """
