"""COCO's average precision of detections in memory, computed by pycocotools; at the size of the images' files.

Legend: N images, M rows of boxes an image.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from specvit.data.boxes import OwnBoxes
from specvit.errors import DataError
from specvit.probes.base import ProbeSplit

MAX_DETECTIONS = 100
"""Most detections of an image, over all classes together, as in submissions to COCO; decoding keeps no more."""


@dataclass(frozen=True)
class Detections:
    """The L objects that were found in one image.

    Attributes:
        boxes: ``(L, 4)`` float ``x0, y0, x1, y1`` in pixels.
        scores: ``(L,)`` float32, higher = surer.
        classes: ``(L,)`` int64.
    """

    boxes: Tensor
    scores: Tensor
    classes: Tensor


@dataclass(frozen=True)
class AveragePrecision:
    """COCO's figures in %, in [0, 100], as means over the classes that occur in the truth.

    Attributes:
        ap: Mean over the IoU thresholds 0.50, 0.55, ..., 0.95.
        ap50: At the threshold 0.50.
    """

    ap: float
    ap50: float


def score_detections(
    found: Sequence[Detections], part: ProbeSplit, images: Tensor, *, num_classes: int
) -> AveragePrecision:
    """Score detections in some images of a split.

    Where boxes are known at the resolution of their files, detections are scaled to it, and compared with them.

    Args:
        found: What was found in each of M images, in pixels of the square that was looked at.
        part: The split, with boxes.
        images: ``(M,)`` int64 indices of the images.
        num_classes: Number of classes.

    Raises:
        DataError: If there is no object.
    """
    own = part.own.get("boxes")
    if own is None:
        assert part.boxes is not None
        return average_precision(found, part.boxes[images], num_classes=num_classes)
    assert isinstance(own, OwnBoxes)
    assert part.image_size is not None
    own = own.take(images.cpu().numpy())
    truth = [torch.from_numpy(own[image].copy()) for image in range(len(own))]
    padded = torch.nn.utils.rnn.pad_sequence(truth, batch_first=True, padding_value=-1)
    scales = (own.sides / part.image_size[0]).tolist()
    scaled = [replace(each, boxes=each.boxes.double() * scale) for each, scale in zip(found, scales, strict=True)]
    return average_precision(scaled, padded, num_classes=num_classes)


def average_precision(detections: Sequence[Detections], boxes: Tensor, *, num_classes: int) -> AveragePrecision:
    """Score detections against the truth, over a whole split.

    The figures are those that pycocotools calls AP and AP50, for objects of all sizes.

    Args:
        detections: What was found, image by image.
        boxes: ``(N, M, 5)`` rows ``x0, y0, x1, y1, class`` of whatever type, class -1 = no object.
        num_classes: Number of classes.

    Returns:
        AP and AP50.

    Raises:
        DataError: If there is no object.
    """
    from pycocotools.cocoeval import COCOeval

    if not bool((boxes[..., 4] >= 0).any()):
        raise DataError("AP needs at least 1 box, not 0")
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
        truth = _coco(_truth(boxes), num_images=len(boxes), num_classes=num_classes)
        found = _coco(_found(detections), num_images=len(boxes), num_classes=num_classes)
        evaluation = COCOeval(truth, found, "bbox")
        evaluation.params.maxDets = [MAX_DETECTIONS]
        # Objects of all sizes only: the other ranges would take three times as long again.
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"][..., 0, 0]  # (thresholds, recalls, classes), -1 = no such class
    occurs = precision > -1
    return AveragePrecision(
        ap=float(100 * np.mean(precision[occurs])), ap50=float(100 * np.mean(precision[0][occurs[0]]))
    )


def _truth(boxes: Tensor) -> list[dict[str, Any]]:
    image, slot = torch.nonzero(boxes[..., 4] >= 0, as_tuple=True)
    rows = boxes[image, slot]
    return _annotations(image, rows[:, :4].double(), rows[:, 4].long())


def _found(detections: Sequence[Detections]) -> list[dict[str, Any]]:
    if not detections:
        return []
    counts = torch.tensor([len(found.scores) for found in detections])
    image = torch.arange(len(detections)).repeat_interleave(counts)
    boxes, classes, scores = (
        torch.cat([getattr(found, name) for found in detections]) for name in ("boxes", "classes", "scores")
    )
    annotations = _annotations(image, boxes.double(), classes)
    return [{**row, "score": score} for row, score in zip(annotations, scores.tolist(), strict=True)]


def _annotations(image: Tensor, corners: Tensor, classes: Tensor) -> list[dict[str, Any]]:
    """Write boxes as COCO's annotations; ids start at 1, for 0 means unmatched there."""
    sides = corners[:, 2:] - corners[:, :2]
    columns = (image, classes, torch.cat([corners[:, :2], sides], dim=1), sides.prod(1))
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return [
        {"id": number, "image_id": of, "category_id": kind, "bbox": box, "area": area, "iscrowd": 0}
        for number, (of, kind, box, area) in enumerate(rows, start=1)
    ]


def _coco(annotations: list[dict[str, Any]], *, num_images: int, num_classes: int) -> Any:
    from pycocotools.coco import COCO

    coco = COCO()
    coco.dataset = {
        "images": [{"id": index} for index in range(num_images)],
        "categories": [{"id": index} for index in range(num_classes)],
        "annotations": annotations,
    }
    coco.createIndex()
    return coco
