import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from specvit.errors import DataError
from specvit.probes.detection.average_precision import Detections, average_precision

BOX, OTHER, AWAY = [2, 2, 12, 12], [20, 20, 30, 28], [40, 40, 45, 45]
NO_OBJECT = [0, 0, 0, 0, -1]
NOTHING = Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64))


def _found(*rows):
    """Make detections of rows x0, y0, x1, y1, score, class."""
    table = torch.tensor(np.array(rows), dtype=torch.float32)
    return Detections(boxes=table[:, :4], scores=table[:, 4], classes=table[:, 5].long())


def _truth(*images):
    return torch.tensor(images, dtype=torch.int16)


def test_perfect_detections_have_an_ap_of_100():
    truth = _truth([[*BOX, 0], [*OTHER, 1]], [[*AWAY, 1], NO_OBJECT])
    score = average_precision([_found([*BOX, 0.9, 0], [*OTHER, 0.3, 1]), _found([*AWAY, 0.2, 1])], truth, num_classes=3)

    assert (score.ap, score.ap50) == pytest.approx((100, 100))


def test_no_detections_have_an_ap_of_0():
    score = average_precision([NOTHING, NOTHING], _truth([[*BOX, 0]], [[*OTHER, 1]]), num_classes=2)

    assert (score.ap, score.ap50) == (0, 0)


def test_one_of_two_objects_found_after_a_false_one_counts_51_recalls_at_half_precision():
    # Recall reaches 1/2 with precision 1/2: 51 of the 101 recalls 0, 0.01, ..., 0.5.
    found = [_found([*AWAY, 0.9, 0], [*BOX, 0.8, 0])]
    score = average_precision(found, _truth([[*BOX, 0], [*OTHER, 0]]), num_classes=1)

    assert (score.ap, score.ap50) == pytest.approx((100 * 51 / 101 / 2,) * 2)


def test_box_that_overlaps_by_three_fifths_counts_at_three_thresholds_of_ten():
    # 10x10 against its 10x6.2: IoU 0.62 passes 0.50, 0.55 and 0.60.
    score = average_precision([_found([2, 2, 12, 8.2, 0.9, 0])], _truth([[*BOX, 0]]), num_classes=1)

    assert (score.ap, score.ap50) == pytest.approx((30, 100))


def test_classes_that_do_not_occur_are_left_out_of_the_mean():
    found = [_found([*BOX, 0.9, 0], [*OTHER, 0.9, 2])]

    assert average_precision(found, _truth([[*BOX, 0], [*OTHER, 1]]), num_classes=5).ap == pytest.approx(50)


def test_padding_changes_nothing():
    found = [_found([*AWAY, 0.9, 0], [*BOX, 0.8, 0])]
    plain = average_precision(found, _truth([[*BOX, 0], [*OTHER, 0]]), num_classes=2)
    padded = average_precision(found, _truth([NO_OBJECT, [*BOX, 0], NO_OBJECT, [*OTHER, 0]]), num_classes=2)

    assert plain == padded


def test_truth_without_objects_is_refused():
    with pytest.raises(DataError, match="AP needs at least 1 box, not 0"):
        average_precision([NOTHING], _truth([NO_OBJECT]), num_classes=2)


def test_nothing_is_printed(capsys):
    average_precision([_found([*BOX, 0.9, 0])], _truth([[*BOX, 0]]), num_classes=1)

    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("seed", range(5))
def test_ap_equals_that_of_pycocotools_own_summary(seed, capsys):
    rng = np.random.default_rng(seed)
    num_images, num_rows, num_classes = 30, 5, 4
    low = rng.integers(0, 90, (num_images, num_rows, 2))
    truth = np.concatenate(
        [low, low + rng.integers(3, 110, low.shape), rng.integers(-1, num_classes, (*low.shape[:2], 1))], axis=2
    ).astype(np.int16)
    detections = []
    for rows in truth:
        jittered = rows[rng.integers(num_rows, size=12)].astype(np.float64)
        jittered[:, :4] += rng.normal(scale=3, size=(12, 4))
        jittered[:, 2:4] = np.maximum(jittered[:, 2:4], jittered[:, :2] + 1)
        jittered = jittered[rng.random(12) < 0.7]
        classes = np.where(rng.random(len(jittered)) < 0.2, 0, np.maximum(jittered[:, 4], 0))
        scores = rng.integers(1, 20, len(jittered)) / 20  # with ties
        detections.append(_found(*np.column_stack([jittered[:, :4], scores, classes])) if len(jittered) else NOTHING)

    expected = _summary(detections, truth, num_classes)
    score = average_precision(detections, torch.from_numpy(truth), num_classes=num_classes)
    assert (score.ap / 100, score.ap50 / 100) == pytest.approx(expected, abs=1e-6)
    assert 0.05 < expected[0] < expected[1] < 0.99


def _summary(detections, truth, num_classes):
    """Score by the way through pycocotools that its documentation shows."""
    coco = COCO()
    images, slots = np.nonzero(truth[..., 4] >= 0)
    coco.dataset = {
        "images": [{"id": i} for i in range(len(truth))],
        "categories": [{"id": k} for k in range(num_classes)],
        "annotations": [],
    }
    for number, (image, slot) in enumerate(zip(images.tolist(), slots.tolist(), strict=True)):
        x0, y0, x1, y1, kind = truth[image, slot].tolist()
        box = [x0, y0, x1 - x0, y1 - y0]
        places = {"id": 100 + number, "image_id": image, "category_id": kind}
        coco.dataset["annotations"].append({**places, "bbox": box, "area": box[2] * box[3], "iscrowd": 0})
    coco.createIndex()
    results = [
        [image, x0, y0, x1 - x0, y1 - y0, score, kind]
        for image, found in enumerate(detections)
        for (x0, y0, x1, y1), score, kind in zip(
            found.boxes.double().tolist(), found.scores.tolist(), found.classes.tolist(), strict=True
        )
    ]
    evaluation = COCOeval(coco, coco.loadRes(np.array(results)), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return tuple(evaluation.stats[:2])
