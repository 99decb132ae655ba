"""What probes are scored by: top-1, mIoU over a dataset, mutual information, errors of depth; which targets can be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from specvit.data.base import IGNORE_INDEX
from specvit.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

_MAPS_AT_ONCE = 256


def top1(predictions: Tensor, labels: Tensor) -> float:
    """Compute the share of images whose class is predicted.

    Args:
        predictions: ``(N,)`` int64 predicted classes.
        labels: ``(N,)`` int64 true classes.

    Returns:
        Top-1 accuracy in %, in [0, 100].

    Raises:
        DataError: If there is no image.
    """
    if len(labels) == 0:
        raise DataError("top-1 needs at least 1 image, not 0")
    return 100.0 * int((predictions == labels).sum()) / len(labels)


def confusion(predictions: Tensor, masks: Tensor, *, num_classes: int) -> Tensor:
    """Count the pixels of every pair of true and predicted class; confusions of several batches add up.

    Args:
        predictions: ``(N, H, W)`` integer predicted classes, in [0, K).
        masks: ``(N, H, W)`` uint8 true classes, in [0, K) or 255 = ignore.
        num_classes: Number of classes, K.

    Returns:
        ``(K, K)`` int64 number of pixels, true class by predicted class; ignored pixels are left out.
    """
    # Ignored pixels are counted in an extra row, which is cheaper than to take them out.
    truth = masks.clamp(max=num_classes).int()
    pairs = (truth * num_classes + predictions).flatten()
    counts = pairs.bincount(minlength=(num_classes + 1) * num_classes)
    return counts.view(num_classes + 1, num_classes)[:num_classes]


def mean_iou(counts: Tensor) -> float:
    """Compute the mean over classes of intersection over union, both summed over the dataset.

    Args:
        counts: ``(K, K)`` int64 number of pixels, true class by predicted class.

    Returns:
        mIoU in %, in [0, 100]: the mean over the classes that occur in truth or prediction.

    Raises:
        DataError: If no pixel was counted.
    """
    intersections = counts.diagonal()
    unions = counts.sum(0) + counts.sum(1) - intersections
    occurs = unions > 0
    if not occurs.any():
        raise DataError(f"mIoU needs at least 1 pixel that has a class; all are ignored ({IGNORE_INDEX})")
    return float(100.0 * (intersections[occurs].double() / unions[occurs]).mean())


def normalised_mutual_information(counts: Tensor) -> float:
    """Compute how much two partitions of pixels tell of each other.

    Args:
        counts: ``(K, C)`` int64 number of pixels, class by cluster.

    Returns:
        Mutual information divided by the mean of the two entropies, in %, in [0, 100]; 100 where both partitions have
        but one part.

    Raises:
        DataError: If no pixel was counted.
    """
    shares = counts.double() / counts.sum()
    if not shares.isfinite().all():
        raise DataError(f"mutual information needs at least 1 pixel that has a class; all are ignored ({IGNORE_INDEX})")
    of_class, of_cluster = _entropy(shares.sum(1)), _entropy(shares.sum(0))
    mean = (of_class + of_cluster) / 2
    if mean == 0:
        return 100.0
    return 100.0 * max(0.0, of_class + of_cluster - _entropy(shares.flatten())) / mean


def _entropy(shares: Tensor) -> float:
    """Return the entropy of shares that sum to 1, in nats."""
    return float(-shares.xlogy(shares).sum())


@dataclass(frozen=True)
class DepthScores:
    """The scores of predicted depth: each is computed per image, then averaged over images.

    Attributes:
        rmse: Root of the mean squared error, in metres.
        abs_rel: Mean of the absolute error relative to the true depth, in %.
        delta1: Share of the pixels whose ratio to the true depth, or its inverse, is below 1.25, in %.
    """

    rmse: float
    abs_rel: float
    delta1: float


def depth_errors(predictions: Tensor, depth: Tensor) -> Tensor:
    """Compare predicted depth with measured depth, image by image.

    Args:
        predictions: ``(N, H, W)`` float metres, above 0.
        depth: ``(N, H, W)`` float metres, not positive or not finite = not measured.

    Returns:
        ``(M, 3)`` float64 RMSE in metres, AbsRel and delta1 as shares, of the M images that have a measured
        pixel. Errors of several batches are concatenated.
    """
    import torch

    known = is_measured(depth)
    counts = known.flatten(1).sum(1)
    predictions = predictions.double()
    # 1 m in place of what was not measured, where the errors are then taken for 0.
    truth = depth.double().where(known, 1.0)
    error = (predictions - truth).abs()
    is_near = torch.maximum(predictions / truth, truth / predictions) < 1.25
    sums = torch.stack(
        [term.where(known, 0.0).flatten(1).sum(1) for term in (error.square(), error / truth, is_near.double())], dim=1
    )
    means = sums[counts > 0] / counts[counts > 0, None]
    return torch.cat([means[:, :1].sqrt(), means[:, 1:]], dim=1)


def depth_scores(errors: Tensor) -> DepthScores:
    """Average the errors of images.

    Args:
        errors: ``(M, 3)`` from ``depth_errors``.

    Returns:
        The scores.

    Raises:
        DataError: If there is no image.
    """
    if len(errors) == 0:
        raise DataError("depth scores need at least 1 pixel whose depth is measured, not 0")
    rmse, abs_rel, delta1 = errors.mean(0).tolist()
    return DepthScores(rmse=rmse, abs_rel=100 * abs_rel, delta1=100 * delta1)


def is_measured(depth: Tensor) -> Tensor:
    """Return which pixels have a depth: ``(N, H, W)`` bool, False where it is not positive or not finite."""
    return (depth > 0) & depth.isfinite()


def has_depth(depth: Tensor) -> Tensor:
    """Return which of ``(N, H, W)`` depth maps have a measured pixel: ``(N,)`` bool."""
    import torch

    # A part at a time: maps of whole splits are large, and so is every mask of them.
    return torch.cat([is_measured(part).flatten(1).any(1) for part in torch.split(depth, _MAPS_AT_ONCE)])


def require_labels(labels: Tensor | None, *, num_classes: int, probe: str, split: str) -> Tensor:
    """Check labels before they are used as indices.

    Args:
        labels: ``(N,)`` int64, or None.
        num_classes: Number of classes, K.
        probe: Name of the probe, for the message.
        split: Name of the split, for the message.

    Returns:
        The labels.

    Raises:
        DataError: If there are none, or one is outside [0, K).
    """
    if labels is None or len(labels) == 0:
        raise DataError(f"probe {probe!r}: the {split} split has no labels")
    outside = labels[(labels < 0) | (labels >= num_classes)]
    if len(outside):
        raise DataError(
            f"probe {probe!r}: {split} labels must be in [0, {num_classes}), but one is {int(outside[0])}"
        )
    return labels


def require_depth(depth: Tensor | None, *, grid: tuple[int, int], probe: str, split: str) -> Tensor:
    """Check depth maps before they are used.

    Args:
        depth: ``(N, H, W)`` float metres, or None.
        grid: Patches per column and per row.
        probe: Name of the probe, for the message.
        split: Name of the split, for the message.

    Returns:
        The depth maps.

    Raises:
        DataError: If there are none, their size is no multiple of the grid, or no pixel is measured.
    """
    if depth is None or len(depth) == 0:
        raise DataError(f"probe {probe!r}: the {split} split has no depth")
    height, width = depth.shape[1:]
    if height % grid[0] or width % grid[1]:
        raise DataError(
            f"probe {probe!r}: the size of {split} depth maps must be a multiple of the patch grid "
            f"{grid[0]} x {grid[1]}, not {height} x {width}"
        )
    if not has_depth(depth).any():
        raise DataError(f"probe {probe!r}: no pixel of the {split} depth maps is measured")
    return depth


def require_masks(
    masks: Tensor | None, *, num_classes: int, grid: tuple[int, int], probe: str, split: str
) -> Tensor:
    """Check masks before they are used as indices.

    Args:
        masks: ``(N, H, W)`` uint8, or None.
        num_classes: Number of classes, K.
        grid: Patches per column and per row.
        probe: Name of the probe, for the message.
        split: Name of the split, for the message.

    Returns:
        The masks.

    Raises:
        DataError: If there are none, their size is no multiple of the grid, a value is neither in [0, K) nor
            255, or every pixel is ignored.
    """
    if masks is None or len(masks) == 0:
        raise DataError(f"probe {probe!r}: the {split} split has no masks")
    height, width = masks.shape[1:]
    if height % grid[0] or width % grid[1]:
        raise DataError(
            f"probe {probe!r}: the size of {split} masks must be a multiple of the patch grid "
            f"{grid[0]} x {grid[1]}, not {height} x {width}"
        )
    is_labelled = masks != IGNORE_INDEX
    outside = masks[is_labelled & (masks >= num_classes)]
    if len(outside):
        raise DataError(
            f"probe {probe!r}: {split} masks must hold classes in [0, {num_classes}) or {IGNORE_INDEX} = "
            f"ignore, but a pixel is {int(outside[0])}"
        )
    if not is_labelled.any():
        raise DataError(f"probe {probe!r}: every pixel of the {split} masks is ignored ({IGNORE_INDEX})")
    return masks


def require_boxes(
    boxes: Tensor | None, *, num_classes: int, image_size: tuple[int, int] | None, probe: str, split: str
) -> tuple[int, int]:
    """Check boxes before a detector learns from them.

    Args:
        boxes: ``(N, M, 5)`` int16 rows ``x0, y0, x1, y1, class``, class -1 = no object; or None.
        num_classes: Number of classes, K.
        image_size: Height and width of the images in pixels, or None if not known.
        probe: Name of the probe, for the message.
        split: Name of the split, for the message.

    Returns:
        The size of the images.

    Raises:
        DataError: If there are no boxes, the size is not known, a class is outside [-1, K), or a box is empty
            or reaches out of its image.
    """
    if boxes is None or len(boxes) == 0:
        raise DataError(f"probe {probe!r}: the {split} split has no boxes")
    if image_size is None:
        raise DataError(f"probe {probe!r}: the {split} split does not say how large its images are")
    rows = boxes[boxes[..., 4] != -1].long()
    if len(rows) == 0:
        raise DataError(f"probe {probe!r}: no image of the {split} split has a box")
    classes = rows[:, 4]
    outside = classes[(classes < 0) | (classes >= num_classes)]
    if len(outside):
        raise DataError(
            f"probe {probe!r}: classes of {split} boxes must be in [0, {num_classes}), or -1 = no object, "
            f"but one is {int(outside[0])}"
        )
    height, width = image_size
    is_whole = (rows[:, :2] >= 0).all(1) & (rows[:, 2] <= width) & (rows[:, 3] <= height)
    broken = rows[~(is_whole & (rows[:, :2] < rows[:, 2:4]).all(1))]
    if len(broken):
        raise DataError(
            f"probe {probe!r}: {split} boxes must hold at least a pixel and lie within their image, "
            f"{width}x{height}, but one is {broken[0, :4].tolist()}"
        )
    return image_size
