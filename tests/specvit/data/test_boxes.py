"""Boxes that move with their images, by arithmetic."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from specvit.data.boxes import OwnBoxes, crop_boxes, pad_boxes, squash_boxes


@given(
    corners=st.tuples(*[st.floats(-50, 150)] * 4),
    image_size=st.tuples(st.integers(1, 120), st.integers(1, 120)),
    size=st.integers(1, 64),
)
def test_squashed_boxes_lie_in_the_square_within_half_a_pixel_of_their_place(
    corners: tuple[float, float, float, float], image_size: tuple[int, int], size: int
) -> None:
    x0, x1 = sorted(corners[:2])
    y0, y1 = sorted(corners[2:])
    rows = squash_boxes(np.array([[x0, y0, x1, y1, 6.0]]), image_size, size)
    assert len(rows) <= 1
    for row in rows.tolist():
        assert row[4] == 6
        assert 0 <= row[0] < row[2] <= size
        assert 0 <= row[1] < row[3] <= size
        for got, given_, side in zip(row, (x0, y0, x1, y1), image_size * 2, strict=False):
            assert abs(got - min(max(given_ * size / side, 0), size)) <= 0.5 + 1e-9


def test_padding_appends_rows_of_no_class() -> None:
    rows = np.array([[1, 2, 3, 4, 5]], dtype=np.int16)
    assert pad_boxes(rows, 3).tolist() == [[1, 2, 3, 4, 5], [0, 0, 0, 0, -1], [0, 0, 0, 0, -1]]
    assert pad_boxes(rows[:0], 0).shape == (0, 5)


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ([15, 5, 25.5, 20], [5, 5, 15.5, 20]),
        ([0, 5, 30.25, 20], [0, 5, 20, 20]),  # over both edges
        ([4, -3, 10.6, 2], [0, 0, 0.6, 2]),  # a pixel is left when rounded
        ([4, 3, 10.4, 9], None),  # none is
        ([1, 1, 9, 9], None),  # outside
        ([31, 1, 39, 9], None),
        ([12, 3, 18, 3.4], None),  # never had one
    ],
)
def test_boxes_are_cut_off_at_the_edges_of_the_central_square(box: list[float], expected: list[float] | None) -> None:
    # 40x20 px: the square is x from 10 to 30. The same upright.
    wanted = [] if expected is None else [[*expected, 7]]
    np.testing.assert_allclose(crop_boxes(np.array([[*box, 7.0]]), (40, 20)).tolist(), wanted, atol=1e-12)
    x0, y0, x1, y1 = box
    upright = [[of[1], of[0], of[3], of[2], 7] for of in wanted]
    np.testing.assert_allclose(crop_boxes(np.array([[y0, x0, y1, x1, 7.0]]), (20, 40)).tolist(), upright, atol=1e-12)


def test_a_square_of_an_odd_rest_begins_between_two_pixels_as_the_image_does() -> None:
    assert crop_boxes(np.array([[3.0, 0, 9, 4, 0]]), (11, 4)).tolist() == [[0, 0, 4, 4, 0]]
    assert crop_boxes(np.array([[5.0, 1, 7, 3, 0]]), (11, 4)).tolist() == [[1.5, 1, 3.5, 3, 0]]


def test_own_boxes_are_those_of_each_image_and_travel() -> None:
    first, none, last = np.array([[0.5, 1, 2, 3, 4]]), np.empty((0, 5)), np.arange(10.0).reshape(2, 5)
    boxes = OwnBoxes.of([first, none, last], [10, 20, 30])
    assert len(boxes) == 3
    for image, expected in enumerate((first, none, last)):
        np.testing.assert_array_equal(boxes[image], expected)
    taken = pickle.loads(pickle.dumps(boxes.take(np.array([2, 1, 2]))))  # noqa: S301
    assert [of.tolist() for of in (taken[0], taken[1], taken[2])] == [last.tolist(), [], last.tolist()]
    assert taken.sides.tolist() == [30, 20, 30]
