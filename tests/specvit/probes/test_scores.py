import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import mean_absolute_percentage_error
from torchmetrics import MeanSquaredError
from torchmetrics.classification import MulticlassAccuracy, MulticlassJaccardIndex

from specvit.errors import DataError
from specvit.probes.scores import (
    confusion,
    depth_errors,
    depth_scores,
    has_depth,
    mean_iou,
    require_boxes,
    require_depth,
    require_labels,
    require_masks,
    top1,
)

SHAPE = (2, 3, 4)
PREDICTIONS = arrays(np.int64, SHAPE, elements=st.integers(0, 3))
MASKS = arrays(np.uint8, SHAPE, elements=st.sampled_from([0, 1, 2, 3, 255]))


def reference_miou(predictions, masks):
    pixels = [(p, t) for p, t in zip(predictions.ravel(), masks.ravel(), strict=True) if t != 255]
    ious = []
    for c in {c for pair in pixels for c in pair}:
        both = sum(p == c and t == c for p, t in pixels)
        either = sum(p == c or t == c for p, t in pixels)
        ious.append(both / either)
    return 100 * sum(ious) / len(ious)


@given(predictions=PREDICTIONS, masks=MASKS)
def test_mean_iou_equals_a_count_pixel_by_pixel(predictions, masks):
    counts = confusion(torch.from_numpy(predictions), torch.from_numpy(masks), num_classes=4)

    if (masks == 255).all():
        with pytest.raises(DataError, match="at least 1 pixel"):
            mean_iou(counts)
    else:
        assert mean_iou(counts) == pytest.approx(reference_miou(predictions, masks), abs=1e-9)


@settings(max_examples=25, deadline=None)
@given(predictions=PREDICTIONS, masks=MASKS.filter(lambda m: (m != 255).any()))
def test_mean_iou_equals_torchmetrics(predictions, masks):
    predictions, masks = torch.from_numpy(predictions), torch.from_numpy(masks)
    metric = MulticlassJaccardIndex(num_classes=4, average="macro", ignore_index=255)

    ours = mean_iou(confusion(predictions, masks, num_classes=4))

    assert ours == pytest.approx(100 * float(metric(predictions, masks.long())), abs=1e-4)


def test_mean_iou_sums_over_the_dataset_before_it_divides():
    # Image 1: class 0 fills it and is found. Image 2: 1 of 4 pixels is class 1, none is found.
    first = confusion(torch.zeros(1, 2, 2).long(), torch.zeros(1, 2, 2, dtype=torch.uint8), num_classes=2)
    masks = torch.tensor([[[1, 0], [0, 0]]], dtype=torch.uint8)
    second = confusion(torch.zeros(1, 2, 2).long(), masks, num_classes=2)

    # Class 0: 7 of 8; class 1: 0 of 1.
    assert mean_iou(first + second) == pytest.approx(100 * (7 / 8 + 0) / 2)


def test_confusion_takes_255_as_ignore_also_with_255_classes():
    masks = torch.tensor([[[254, 255]]], dtype=torch.uint8)

    counts = confusion(torch.tensor([[[254, 3]]]), masks, num_classes=255)

    assert counts.sum() == 1
    assert counts[254, 254] == 1


def test_top1_equals_torchmetrics():
    generator = torch.Generator().manual_seed(0)
    predictions, labels = torch.randint(5, (2, 997), generator=generator)
    metric = MulticlassAccuracy(num_classes=5, average="micro")

    assert top1(predictions, labels) == pytest.approx(100 * float(metric(predictions, labels)), abs=1e-5)


def test_top1_without_images_is_an_error():
    with pytest.raises(DataError, match="at least 1 image"):
        top1(torch.zeros(0).long(), torch.zeros(0).long())


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (None, "probe 'knn': the val split has no labels"),
        (torch.tensor([0, 3]), r"\[0, 3\), but one is 3"),
        (torch.tensor([0, -1]), r"\[0, 3\), but one is -1"),
    ],
)
def test_require_labels_rejects_what_is_no_class(labels, message):
    with pytest.raises(DataError, match=message):
        require_labels(labels, num_classes=3, probe="knn", split="val")


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        (None, "the val split has no masks"),
        (torch.zeros(1, 5, 4, dtype=torch.uint8), "multiple of the patch grid 2 x 2, not 5 x 4"),
        (torch.full((1, 4, 4), 3, dtype=torch.uint8), r"\[0, 3\) or 255 = ignore, but a pixel is 3"),
        (torch.full((1, 4, 4), 255, dtype=torch.uint8), "every pixel of the val masks is ignored"),
    ],
)
def test_require_masks_rejects_what_cannot_be_scored(masks, message):
    with pytest.raises(DataError, match=message):
        require_masks(masks, num_classes=3, grid=(2, 2), probe="segmentation", split="val")


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        (None, "the val split has no boxes"),
        ([], "no image of the val split has a box"),
        ([[0, 0, 0, 0, -1]], "no image of the val split has a box"),
        ([[0, 0, 2, 2, 3]], r"in \[0, 3\), or -1 = no object, but one is 3"),
        ([[0, 0, 2, 2, -2]], r"in \[0, 3\), or -1 = no object, but one is -2"),
        ([[1, 0, 1, 2, 0]], r"at least a pixel and lie within their image, 6x4, but one is \[1, 0, 1, 2\]"),
        ([[1, 3, 2, 2, 0]], r"but one is \[1, 3, 2, 2\]"),
        ([[0, 0, 7, 2, 0]], r"but one is \[0, 0, 7, 2\]"),
        ([[0, 0, 6, 5, 0]], r"but one is \[0, 0, 6, 5\]"),
        ([[0, -1, 6, 2, 0]], r"but one is \[0, -1, 6, 2\]"),
    ],
)
def test_require_boxes_rejects_what_cannot_be_learned(boxes, message):
    rows = None if boxes is None else torch.tensor(boxes, dtype=torch.int16).view(1, -1, 5)
    with pytest.raises(DataError, match=f"probe 'detection': .*{message}"):
        require_boxes(rows, num_classes=3, image_size=(4, 6), probe="detection", split="val")


def test_require_boxes_passes_boxes_that_fill_their_image_and_padding_of_any_kind():
    rows = torch.tensor([[[0, 0, 6, 4, 2], [9, 9, -9, 9, -1]]], dtype=torch.int16)

    assert require_boxes(rows, num_classes=3, image_size=(4, 6), probe="detection", split="val") == (4, 6)
    with pytest.raises(DataError, match="does not say how large its images are"):
        require_boxes(rows, num_classes=3, image_size=None, probe="detection", split="val")


DEPTH = arrays(np.float64, SHAPE, elements=st.floats(0.1, 50))
HOLES = arrays(np.bool_, SHAPE)


@settings(max_examples=50, deadline=None)
@given(predictions=DEPTH, depth=DEPTH, holes=HOLES, hole=st.sampled_from([0.0, -1.0, np.nan, np.inf]))
def test_depth_scores_equal_libraries_image_by_image(predictions, depth, holes, hole):
    per_image = []
    for p, d, missing in zip(predictions, depth, holes, strict=True):
        p, d = p[~missing], d[~missing]
        if len(d):
            squared = MeanSquaredError(squared=False).set_dtype(torch.float64)
            rmse = float(squared(torch.from_numpy(p), torch.from_numpy(d)))
            near = sum(max(a / b, b / a) < 1.25 for a, b in zip(p, d, strict=True)) / len(d)
            per_image.append((rmse, mean_absolute_percentage_error(d, p), near))
    errors = depth_errors(torch.from_numpy(predictions), torch.from_numpy(np.where(holes, hole, depth)))

    np.testing.assert_allclose(errors.numpy(), np.array(per_image).reshape(-1, 3), rtol=1e-6, atol=1e-6)
    if per_image:
        scores = depth_scores(errors)
        rmse, abs_rel, delta1 = np.mean(per_image, axis=0)
        assert scores.rmse == pytest.approx(rmse, rel=1e-6)
        assert (scores.abs_rel, scores.delta1) == pytest.approx((100 * abs_rel, 100 * delta1), rel=1e-6)
    else:
        with pytest.raises(DataError, match="at least 1 pixel whose depth is measured"):
            depth_scores(errors)


def test_depth_scores_average_over_images_not_over_pixels():
    depth = torch.tensor([[[4.0, 4.0, 4.0, 4.0]], [[2.0, 0.0, 0.0, 0.0]]])
    predictions = torch.tensor([[[4.0, 4.0, 4.0, 6.0]], [[3.0, 9.0, 9.0, 9.0]]])

    scores = depth_scores(depth_errors(predictions, depth))

    # Image 1: errors 0, 0, 0, 2, so RMSE 1, AbsRel 1/8, 3 of 4 near. Image 2: error 1 of 2.
    assert scores.rmse == pytest.approx((1 + 1) / 2)
    assert scores.abs_rel == pytest.approx(100 * (1 / 8 + 1 / 2) / 2)
    assert scores.delta1 == pytest.approx(100 * (3 / 4 + 0) / 2)


def test_delta1_leaves_out_the_ratio_of_1_25_itself():
    errors = depth_errors(torch.tensor([[[5.0, 4.0, 4.9, 4.1]]]), torch.tensor([[[4.0, 5.0, 4.0, 5.0]]]))

    assert errors[0, 2] == pytest.approx(2 / 4)


def test_depth_errors_of_half_precision_maps_are_those_of_double():
    depth = torch.tensor([[[0.3, 9.7], [1.1, 60000.0]]]).half()
    predictions = torch.tensor([[[0.2, 9.0], [1.0, 50000.0]]])

    torch.testing.assert_close(
        depth_errors(predictions, depth), depth_errors(predictions.double(), depth.double()), rtol=1e-12, atol=0
    )


def test_has_depth_tells_which_maps_have_a_measured_pixel_also_of_many():
    depth = torch.zeros(600, 2, 3)
    depth[[0, 255, 256, 599], 1, 2] = torch.tensor([1.0, 2.0, 0.5, 9.0])
    depth[100, 0, 0], depth[101, 0, 1] = torch.nan, torch.inf

    assert has_depth(depth).nonzero().flatten().tolist() == [0, 255, 256, 599]


def test_depth_is_checked_before_it_is_used():
    depth = torch.ones(2, 6, 4).half()

    assert require_depth(depth, grid=(3, 2), probe="p", split="val") is depth
    for missing in (None, depth[:0]):
        with pytest.raises(DataError, match="probe 'p': the val split has no depth"):
            require_depth(missing, grid=(3, 2), probe="p", split="val")
    with pytest.raises(DataError, match="multiple of the patch grid 4 x 2, not 6 x 4"):
        require_depth(depth, grid=(4, 2), probe="p", split="val")
    for hole in (0.0, -1.0, torch.nan, torch.inf):
        with pytest.raises(DataError, match="probe 'p': no pixel of the val depth maps is measured"):
            require_depth(torch.full_like(depth, hole), grid=(3, 2), probe="p", split="val")
