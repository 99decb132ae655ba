"""What the head learns by: focal loss for classes, GIoU loss for boxes, and how well a box will fit.

Legend: B images, P cells, K classes.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import generalized_box_iou_loss, sigmoid_focal_loss

from specvit.probes.detection.boxes import Cells, iou
from specvit.probes.detection.head import Predictions
from specvit.probes.detection.targets import Targets


def detection_loss(predictions: Predictions, targets: Targets, cells: Cells) -> Tensor:
    """Compute the loss of a batch: class + box + fit, each summed and divided by the number of cells with an object.

    The class term is the focal loss (alpha 0.25, gamma 2) over all cells and classes. Cells with an object
    learn its box by the GIoU loss, and by binary cross-entropy the IoU that their box has with it.

    Source: FCOS (Tian et al., arXiv 2006.09214). Deviation: the third branch predicts the IoU (Wu et al.,
    arXiv 1912.05992) in place of centerness, which is not defined for a cell whose centre lies outside of a
    box that is smaller than the cell.

    Args:
        predictions: What the head says of B images.
        targets: What it should have said.
        cells: The cells of the images.

    Returns:
        A scalar.
    """
    has_object = targets.classes >= 0
    num_objects = has_object.sum().clamp(min=1)
    one_hot = F.one_hot(targets.classes + 1, predictions.classes.shape[-1] + 1)[..., 1:]
    loss = cast(Tensor, sigmoid_focal_loss(predictions.classes, one_hot.to(predictions.classes), reduction="sum"))
    boxes, truth = cells.decode(predictions.codes)[has_object], targets.boxes[has_object]
    loss = loss + cast(Tensor, generalized_box_iou_loss(boxes, truth, reduction="sum"))
    fit = iou(boxes.detach(), truth)
    loss = loss + F.binary_cross_entropy_with_logits(predictions.fit[has_object], fit, reduction="sum")
    return loss / torch.as_tensor(num_objects).to(loss)
