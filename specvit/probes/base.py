"""What a probe is: a small model fitted on frozen features, and the metrics it reports."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar, Literal

from specvit.data import IGNORE_INDEX, AnyDataSource
from specvit.settings import PositiveInt, settings

if TYPE_CHECKING:
    from torch import Tensor

    from specvit.data.own_targets import OwnTargets


PatchFeatures = Literal["none", "mean", "tokens"]
"""What a probe reads of the patch tokens: nothing, their mean over an image, or each."""

PATCH_FEATURES: tuple[PatchFeatures, ...] = ("none", "mean", "tokens")
"""Each holds what those before it do."""


@dataclass(frozen=True)
class Metric:
    """A number that a probe reports.

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
    """The frozen features of one split beside its targets. N images, P patches, D channels.

    Attributes:
        cls: ``(N, D)`` float32 [CLS] tokens.
        patches: ``(N, P, D)`` float32 patch tokens, row by row from the top left; ``(N, 0, D)`` where no probe reads
            them (see ``Probe.patch_features``).
        grid: Patches per column and per row; ``grid[0] * grid[1] == P``.
        labels: ``(N,)`` int64, or None.
        masks: ``(N, H, W)`` uint8 with 255 = ignore, or None; H and W are multiples of the grid.
        depth: ``(N, H, W)`` float16 metres, not positive or not finite = not measured, or None.
        boxes: ``(N, M, 5)`` int16 rows ``x0, y0, x1, y1, class`` in pixels (half open), class -1 = no object; or None.
        intermediate_cls: ``(N, L, D)`` float32 [CLS] of the last L blocks, each after the final norm, the last block's
            last; None where no probe reads it (see ``Probe.num_blocks``) or there are no blocks.
        image_size: H and W in pixels; None = not known, which only boxes mind.
        patch_means: ``(N, D)`` float32 mean of each image's patch tokens, where these are not kept; else None.
        own: Targets at the resolution of their files, of what the images show, by their names here, such as ``masks``
            ``(m, m)``: probes are scored on them. Not named = on those here.
    """

    cls: Tensor
    patches: Tensor
    grid: tuple[int, int]
    labels: Tensor | None
    masks: Tensor | None
    depth: Tensor | None = None
    boxes: Tensor | None = None
    intermediate_cls: Tensor | None = None
    image_size: tuple[int, int] | None = None
    patch_means: Tensor | None = None
    own: Mapping[str, OwnTargets] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.cls)

    def patch_mean(self) -> Tensor:
        """Return the mean of each image's patch tokens, ``(N, D)``."""
        return self.patches.mean(1) if self.patch_means is None else self.patch_means

    def without_tokens(self) -> ProbeSplit:
        """Return the split without its patch tokens, for a part that shall not copy them; their means stay."""
        return replace(self, patches=self.patches[:, :0], patch_means=self.patch_mean())

    def has(self, target: str) -> bool:
        """Return whether any image has the target: a label, a labelled pixel, a measured one, a box."""
        values = getattr(self, target)
        if values is None or len(values) == 0:
            return False
        match target:
            case "masks":
                return bool((values != IGNORE_INDEX).any())
            case "depth":
                return bool(((values > 0) & values.isfinite()).any())
            case "boxes":
                return bool((values[..., 4] >= 0).any())
        return True

    def subset(self, images: Tensor) -> ProbeSplit:
        """Return some of the images, by their ``(M,)`` int64 indices."""
        per_image = ("cls", "patches", "patch_means", "labels", "masks", "depth", "boxes", "intermediate_cls")
        values = {name: getattr(self, name) for name in per_image}
        own = {name: targets.take(images.numpy()) for name, targets in self.own.items()}
        taken = {name: value[images] for name, value in values.items() if value is not None}
        return replace(self, own=own, **taken)


@settings
class Probe(ABC):
    """The settings of a probe: a file or folder of this package, used as ``probes: {name: {field: value}}``.

    The settings load without torch: import it inside ``evaluate``.
    """

    name: ClassVar[str]
    needs: ClassVar[str]
    """The target it predicts: ``labels``, ``masks``, ``depth`` or ``boxes``."""
    metrics: ClassVar[tuple[Metric, ...]]
    at_rungs: ClassVar[bool] = False
    """Whether rungs run it where a sweep file names none: it takes no longer than a few steps of training."""

    data: AnyDataSource | None = None
    """Images that this probe is fitted and reported on, a source as under ``data``; none given = those of the
    pretraining, whose labels it then needs. Also rungs look at them."""
    num_train: PositiveInt | None = None
    """Largest number of training images that it is fitted on, drawn by the seed, the same for every arm; none given =
    all. What probes read of the images is held in memory: of 100 000, 197 tokens of 384 channels take 30 GB, [CLS] and
    the mean patch 0.3 GB."""

    @property
    def num_blocks(self) -> int:
        """Return of how many of the last blocks it reads [CLS]; 0 = only ``ProbeSplit.cls``."""
        return 0

    @property
    def patch_features(self) -> PatchFeatures:
        """Return what it reads of the patch tokens, which are not kept for a probe that reads none of them."""
        return "tokens"

    def num_copied(
        self, num_images: int, *, num_patches: int, cls_dim: int, patch_dim: int, num_classes: int | None  # noqa: ARG002
    ) -> float:
        """Return how many float32 numbers it makes of the training features; parts of a constant size do not count.

        Args:
            num_images: Of the training images.
            num_patches: Of an image.
            cls_dim: Channels of [CLS].
            patch_dim: Channels of a patch token.
            num_classes: Of the target that the probe needs; None = not known.
        """
        return 0.0

    @abstractmethod
    def evaluate(self, train: ProbeSplit, val: ProbeSplit, *, num_classes: int, seed: int) -> dict[str, float]:
        """Fit on ``train``, choosing hyper-parameters on a tenth of it, and score on ``val``.

        Args:
            train: Features and targets to fit on.
            val: Features and targets to report on; never used to choose anything.
            num_classes: Number of classes of the target that the probe needs; 0 where it has none.
            seed: Decides which tenth of ``train`` is held out; the same for every arm.

        Returns:
            A value for each of ``metrics``, by name.
        """
