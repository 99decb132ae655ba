import pytest
import torch

from specvit.probes.detection.boxes import Cells
from specvit.probes.detection.decoding import decode_batch
from specvit.probes.detection.head import Predictions

CELLS = Cells(grid=(1, 3), image_size=(8, 24))
OFF = -20.0


def _logit(probability):
    return torch.tensor(probability).logit().item()


def _decode(classes, boxes, fit):
    codes = CELLS.encode(torch.tensor([boxes], dtype=torch.float32))
    (found,) = decode_batch(Predictions(torch.tensor([classes]), codes, torch.tensor([fit])), CELLS)
    return found


def test_detections_come_by_falling_score_with_their_classes():
    found = _decode(
        [[_logit(0.5), OFF], [OFF, _logit(0.9)], [OFF, OFF]],
        [[0, 0, 8, 8], [9, 1, 15, 7], [16, 0, 24, 8]],
        [_logit(0.5), _logit(0.4), 20.0],
    )

    assert found.classes.tolist() == [1, 0]
    assert found.scores.tolist() == pytest.approx([0.6, 0.5])
    torch.testing.assert_close(found.boxes, torch.tensor([[9.0, 1, 15, 7], [0, 0, 8, 8]]))


def test_of_overlapping_boxes_of_a_class_the_surest_stays():
    # 8x8 against 8x7: IoU 7/8. The third overlaps the first by 1/2, less than what is suppressed.
    boxes = [[0, 0, 8, 8], [0, 0, 8, 7], [0, 0, 8, 4]]
    fit = [0.0, 0.0, 0.0]

    same = _decode([[1.0, OFF], [2.0, OFF], [0.5, OFF]], boxes, fit)
    other = _decode([[1.0, OFF], [OFF, 2.0], [0.5, OFF]], boxes, fit)

    assert same.boxes[:, 3].tolist() == pytest.approx([7, 4])
    assert other.boxes[:, 3].tolist() == pytest.approx([7, 8, 4])


def test_boxes_are_clipped_and_those_outside_of_the_image_fall_away():
    found = _decode([[2.0], [1.0], [0.0]], [[-4, -4, 8, 8], [30, 0, 40, 8], [16, 0, 30, 9]], [0.0] * 3)

    torch.testing.assert_close(found.boxes, torch.tensor([[0.0, 0, 8, 8], [16, 0, 24, 8]]), atol=1e-5, rtol=0)


def test_image_without_any_score_has_no_detections():
    found = _decode([[OFF]] * 3, [[0, 0, 8, 8]] * 3, [0.0] * 3)

    assert found.boxes.shape == (0, 4)
    assert len(found.scores) == len(found.classes) == 0


def test_predictions_that_are_no_numbers_are_no_detections():
    cells = Cells(grid=(2, 2), image_size=(8, 8))
    broken = Predictions(torch.full((1, 4, 3), torch.nan), torch.full((1, 4, 4), torch.nan), torch.zeros(1, 4))

    assert len(decode_batch(broken, cells)[0].scores) == 0


def test_at_most_100_detections_of_an_image_are_kept():
    cells = Cells(grid=(12, 12), image_size=(96, 96))
    classes = torch.rand(2, 144, 2, generator=torch.Generator().manual_seed(0))
    predictions = Predictions(classes, torch.zeros(2, 144, 4), torch.zeros(2, 144))

    found = decode_batch(predictions, cells)

    assert [len(image.scores) for image in found] == [100, 100]
    # One cell each, so that nothing is suppressed: the 100 best of 288.
    best = (classes.sigmoid() / 2).sqrt().flatten(1).topk(100).values
    torch.testing.assert_close(torch.stack([image.scores for image in found]), best)
