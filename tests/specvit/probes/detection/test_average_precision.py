import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from specvit.data.boxes import OwnBoxes
from specvit.errors import DataError
from specvit.probes import ProbeSplit
from specvit.probes.detection.average_precision import Detections, average_precision, score_detections

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


def _part(boxes, own=None, *, size):
    own = {} if own is None else {"boxes": own}
    tokens = torch.zeros(len(boxes), 1, 1)
    return ProbeSplit(
        cls=tokens[:, 0], patches=tokens, grid=(1, 1), labels=None, masks=None, boxes=boxes,
        image_size=(size, size), own=own,
    )  # fmt: skip


def test_detections_are_scored_on_the_boxes_of_the_file_where_these_are_known():
    # The square is 20 px in the file and 10 here: 2..12 x 2..12.9 is rounded to 1..6 x 1..6, which is found. In the
    # file that overlaps by 100 of 109, which passes 0.50 to 0.90; a box that has no pixel here is an object there.
    found, images = [_found([1, 1, 6, 6, 0.9, 0]), NOTHING], torch.arange(2)
    boxes = _truth([[1, 1, 6, 6, 0]], [NO_OBJECT])
    own = OwnBoxes.of([np.array([[2, 2, 12, 12.9, 0]]), np.empty((0, 5))], [20, 30])
    tiny = OwnBoxes.of([own[0], np.array([[3, 3, 4, 4, 0]])], [20, 30])

    assert score_detections(found, _part(boxes, size=10), images, num_classes=1).ap == pytest.approx(100)
    assert score_detections(found, _part(boxes, own, size=10), images, num_classes=1).ap == pytest.approx(90)
    # Of two objects one is found: 51 of 101 recalls, at nine thresholds of ten.
    score = score_detections(found, _part(boxes, tiny, size=10), images, num_classes=1)
    assert (score.ap, score.ap50) == pytest.approx((90 * 51 / 101, 100 * 51 / 101))


def test_ap_at_the_size_of_the_files_equals_that_of_pycocotools_on_boxes_in_their_pixels(capsys):
    rng = np.random.default_rng(0)
    sides = rng.integers(200, 600, 20)
    truth = np.empty((20, 4, 5))
    truth[..., :2] = rng.uniform(0, 0.6, (20, 4, 2)) * sides[:, None, None]
    truth[..., 2:4] = truth[..., :2] + rng.uniform(0.1, 0.4, (20, 4, 2)) * sides[:, None, None]
    truth[..., 4] = rng.integers(3, size=(20, 4))
    at_probe, at_file = [], []
    for rows, side in zip(truth, sides, strict=True):
        boxes = torch.from_numpy((rows[:, :4] + rng.normal(scale=0.02, size=(4, 4)) * side) * 32 / side).float()
        boxes[:, 2:] = boxes[:, 2:].maximum(boxes[:, :2] + 0.1)
        scores, classes = torch.from_numpy(rng.permutation(4) / 8 + 0.1).float(), torch.from_numpy(rows[:, 4]).long()
        at_probe.append(Detections(boxes, scores, classes))
        at_file.append(Detections(boxes.double() * (side / 32), scores, classes))
    images = torch.tensor([3, *range(5, 20)])
    chosen = [at_probe[image] for image in images]

    expected = _summary([at_file[image] for image in images], truth[images.numpy()], 3)
    part = _part(torch.full((20, 1, 5), -1), OwnBoxes.of(list(truth), sides.tolist()), size=32)
    score = score_detections(chosen, part, images, num_classes=3)
    assert (score.ap / 100, score.ap50 / 100) == pytest.approx(expected, abs=1e-6)
    assert 0.05 < expected[0] < expected[1] < 0.99
