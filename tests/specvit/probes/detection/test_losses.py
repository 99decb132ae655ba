import math

import pytest
import torch
from torchvision.ops import generalized_box_iou, sigmoid_focal_loss

from specvit.probes.detection.boxes import Cells
from specvit.probes.detection.head import Predictions
from specvit.probes.detection.losses import detection_loss
from specvit.probes.detection.targets import Targets

CELLS = Cells(grid=(1, 2), image_size=(4, 8))


def _predictions(classes, codes=((0.0,) * 4,) * 2, fit=(0.0, 0.0)):
    return Predictions(torch.tensor([classes]), torch.tensor([codes]), torch.tensor([fit]))


def _targets(classes, boxes=((0.0, 0.0, 4.0, 4.0),) * 2):
    return Targets(classes=torch.tensor([classes]), boxes=torch.tensor([boxes]))


def test_loss_without_objects_is_the_focal_loss_alone():
    # Every probability is 1/2: -0.75 * 0.5^2 * log 0.5 for each of 2 cells and 3 classes.
    loss = detection_loss(_predictions([[0.0] * 3] * 2), _targets([-1, -1]), CELLS)

    assert float(loss) == pytest.approx(6 * 0.75 * 0.25 * math.log(2))


def test_loss_of_an_object_adds_box_and_fit_by_hand():
    # The first cell's box is its own 4x4 square; the object is the half of it: IoU 1/2, which is also GIoU.
    loss = detection_loss(
        _predictions([[40.0, -40.0], [-40.0, -40.0]], fit=(math.log(3.0), 5.0)),
        _targets([0, -1], boxes=((0.0, 0.0, 2.0, 4.0), (0.0, 0.0, 8.0, 4.0))),
        CELLS,
    )

    assert float(loss) == pytest.approx(0.5 - 0.5 * math.log(0.75) - 0.5 * math.log(0.25), rel=1e-4)


def test_loss_equals_torchvisions_parts_over_the_number_of_cells_with_an_object():
    generator = torch.Generator().manual_seed(0)
    cells = Cells(grid=(3, 3), image_size=(12, 12))
    classes = torch.randint(-1, 4, (5, 9), generator=generator)
    low = torch.rand(5, 9, 2, generator=generator) * 8
    boxes = torch.cat([low, low + 1 + torch.rand(5, 9, 2, generator=generator) * 3], dim=2)
    codes = 0.3 * torch.randn(5, 9, 4, generator=generator)
    logits = torch.randn(5, 9, 4, generator=generator)
    # An expected fit of no doubt costs nothing where it is right: leave it to the test by hand.
    predictions = Predictions(logits, codes, torch.zeros(5, 9))

    has_object = classes >= 0
    one_hot = (classes[..., None] == torch.arange(4)).float()
    decoded = cells.decode(codes)[has_object]
    giou = generalized_box_iou(decoded, boxes[has_object]).diagonal()
    expected = sigmoid_focal_loss(logits, one_hot).sum() + (1 - giou).sum() + has_object.sum() * math.log(2)

    loss = detection_loss(predictions, Targets(classes=classes, boxes=boxes), cells)
    torch.testing.assert_close(loss, expected / has_object.sum())


def test_fit_teaches_the_box_nothing():
    predictions = _predictions([[0.0], [0.0]])
    fit, codes = predictions.fit.requires_grad_(), predictions.codes.requires_grad_()

    # A box right on the object: GIoU is at its best, and only the fit has something to learn.
    detection_loss(Predictions(predictions.classes, codes, fit), _targets([0, -1]), CELLS).backward()

    assert fit.grad is not None
    assert fit.grad.tolist() == [[pytest.approx(-0.5, abs=1e-5), 0.0]]
    assert codes.grad is not None
    assert codes.grad[0, 1].tolist() == [0.0] * 4
