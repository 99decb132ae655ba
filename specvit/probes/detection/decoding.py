"""From what the head says of every cell to the detections of an image.

Legend: N images, P cells, K classes.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import batched_nms

from specvit.probes.detection.average_precision import MAX_DETECTIONS, Detections
from specvit.probes.detection.boxes import Cells, area
from specvit.probes.detection.head import DetectionHead, Predictions

MIN_SCORE = 0.05
MAX_CANDIDATES = 1000
"""Cells and classes of an image that take part in suppression, those of the highest scores."""
NMS_IOU = 0.6

_BATCH_SIZE = 256


@torch.inference_mode()
def detect(head: DetectionHead, tokens: Tensor, images: Tensor, cells: Cells) -> list[Detections]:
    """Detect objects in some images.

    Args:
        head: A fitted head.
        tokens: ``(N, P, D)`` float32 patch tokens.
        images: ``(M,)`` int64 indices of the images to look at.
        cells: The cells of the images.

    Returns:
        The detections of every image, in the order of ``images``.
    """
    return [
        found for batch in torch.split(images, _BATCH_SIZE) for found in decode_batch(head(tokens[batch]), cells)
    ]


def decode_batch(predictions: Predictions, cells: Cells) -> list[Detections]:
    """Turn predictions into detections.

    The score of a cell for a class is the geometric mean of the class's probability and the expected IoU.
    Boxes are clipped to the image; those without area and scores of ``MIN_SCORE`` or less fall away. Of boxes
    of one class that overlap by an IoU above ``NMS_IOU``, the one of the highest score stays. At most
    ``MAX_DETECTIONS`` of an image are kept.

    Source: FCOS (Tian et al., arXiv 2006.09214), whose thresholds these are.

    Args:
        predictions: What the head says of B images.
        cells: The cells of the images.

    Returns:
        The B images' detections, by falling score.
    """
    scores = (predictions.classes.sigmoid() * predictions.fit.sigmoid()[..., None]).sqrt()
    boxes = cells.clip(cells.decode(predictions.codes))
    scores = scores.where((area(boxes) > 0)[..., None], 0.0)
    return [_decode(*image) for image in zip(scores, boxes, strict=True)]


def _decode(scores: Tensor, boxes: Tensor) -> Detections:
    flat = scores.flatten()
    top, at = flat.topk(min(MAX_CANDIDATES, len(flat)))
    at = at[top > MIN_SCORE]
    cell, classes = at // scores.shape[1], at % scores.shape[1]
    kept = batched_nms(boxes[cell], flat[at], classes, NMS_IOU)[:MAX_DETECTIONS]
    return Detections(boxes=boxes[cell][kept], scores=flat[at][kept], classes=classes[kept])
