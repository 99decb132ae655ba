import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.ops import box_iou

from specvit.probes.detection.boxes import Cells, area, iou


def test_cells_are_numbered_row_by_row_and_have_their_centres_in_pixels():
    cells = Cells(grid=(2, 3), image_size=(8, 24))

    assert cells.sides == (8.0, 4.0)
    assert cells.centres().tolist() == [[4, 2], [12, 2], [20, 2], [4, 6], [12, 6], [20, 6]]


def test_encode_gives_offset_and_log_size_in_cells_by_hand():
    cells = Cells(grid=(1, 1), image_size=(4, 8))

    # Centre (6, 1) against (4, 2); 4 px of 8 wide, 2 px of 4 high.
    (code,) = cells.encode(torch.tensor([[4.0, 0.0, 8.0, 2.0]]))

    torch.testing.assert_close(code, torch.tensor([0.25, -0.25, -math.log(2), -math.log(2)]))


@given(
    grid=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    side=st.integers(1, 16),
    corner=st.tuples(st.integers(-8, 80), st.integers(-8, 80)),
    sides=st.tuples(st.integers(1, 80), st.integers(1, 80)),
)
def test_decode_undoes_encode(grid, side, corner, sides):
    cells = Cells(grid=grid, image_size=(grid[0] * side, grid[1] * side))
    box = torch.tensor([*corner, corner[0] + sides[0], corner[1] + sides[1]]).float()
    boxes = box.expand(2, grid[0] * grid[1], 4)

    torch.testing.assert_close(cells.decode(cells.encode(boxes)), boxes, atol=1e-3, rtol=1e-5)


def test_decoded_sides_stay_finite():
    boxes = Cells(grid=(1, 1), image_size=(32, 32)).decode(torch.full((1, 4), 1e30))

    assert (boxes[:, 2:] - boxes[:, :2]).isnan().logical_not().all()


def test_clip_cuts_boxes_off_at_the_edges():
    boxes = Cells(grid=(1, 1), image_size=(10, 20)).clip(torch.tensor([[-1.0, 3.0, 30.0, 12.0]]))

    assert boxes.tolist() == [[0, 3, 20, 10]]


def test_iou_equals_torchvisions():
    corners = torch.rand(200, 2, 4, generator=torch.Generator().manual_seed(0)) * 10
    boxes = torch.cat([corners[..., :2], corners[..., :2] + corners[..., 2:]], dim=-1)

    torch.testing.assert_close(iou(boxes[:, 0], boxes[:, 1]), box_iou(boxes[:, 0], boxes[:, 1]).diagonal())


def test_iou_of_boxes_by_hand():
    first = torch.tensor([[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 1.0, 1.0], [3.0, 3.0, 3.0, 3.0]])
    second = torch.tensor([[1.0, 0.0, 3.0, 2.0], [5.0, 5.0, 6.0, 6.0], [3.0, 3.0, 3.0, 3.0]])

    assert iou(first, second).tolist() == pytest.approx([1 / 3, 0, 0])
    assert area(first).tolist() == [4, 1, 0]
