import pytest
import torch

from specvit.probes.detection import targets
from specvit.probes.detection.boxes import Cells
from specvit.probes.detection.targets import assign

CELLS = Cells(grid=(4, 4), image_size=(16, 16))
WHOLE = [0.0, 0.0, 16.0, 16.0]
NO_OBJECT = [0, 0, 0, 0, -1]


def _classes(*rows):
    return assign(torch.tensor([rows], dtype=torch.int16), CELLS).classes.view(4, 4).tolist()


def test_object_is_learned_by_the_cells_whose_centres_lie_in_it():
    # Centres of cells are 2, 6, 10, 14: those from 4 to 12 along x and from 0 to 8 along y.
    assert _classes([4, 0, 12, 8, 3]) == [[-1, 3, 3, -1], [-1, 3, 3, -1], [-1] * 4, [-1] * 4]


def test_large_object_is_learned_within_a_square_around_its_centre():
    # 1.5 cells of 4 px around (8, 8): from 2 to 14, which reaches every centre; around (6, 6) from 0 to 12.
    assert _classes([0, 0, 16, 16, 1]) == [[1] * 4] * 4
    assert _classes([0, 0, 12, 12, 1]) == [[1, 1, 1, -1]] * 3 + [[-1] * 4]
    # A band as wide as the image: 8 px from the middle of 16 is more than 6.
    assert _classes([0, 0, 16, 3, 2]) == [[2, 2, 2, 2], *[[-1] * 4] * 3]


def test_edges_of_a_box_are_half_open():
    # From x = 2 to 10: the centre at 2 lies within, the one at 10 does not.
    assert _classes([2, 4, 10, 8, 0]) == [[-1] * 4, [0, 0, -1, -1], [-1] * 4, [-1] * 4]


def test_object_between_the_centres_is_learned_by_the_cell_that_holds_its_own():
    assert _classes([4, 12, 6, 13, 5]) == [*[[-1] * 4] * 3, [-1, 5, -1, -1]]
    assert _classes([15, 15, 16, 16, 5]) == [*[[-1] * 4] * 3, [-1, -1, -1, 5]]


def test_cell_that_several_objects_claim_learns_the_smallest():
    large, small = [0, 0, 12, 12, 1], [4, 4, 8, 8, 2]
    expected = [[1, 1, 1, -1], [1, 2, 1, -1], [1, 1, 1, -1], [-1] * 4]
    assert _classes(large, small) == _classes(small, large) == expected
    assert _classes([0, 0, 4, 4, 7], [0, 0, 4, 4, 6])[0][0] == 7


def test_boxes_of_the_targets_are_those_of_the_objects_and_else_the_image():
    found = assign(torch.tensor([[[4, 0, 12, 8, 3], [0, 12, 3, 16, 1]]], dtype=torch.int16), CELLS)

    boxes = found.boxes.view(4, 4, 4)
    assert found.classes.dtype == torch.int64
    assert boxes[0, 1].tolist() == boxes[1, 2].tolist() == [4, 0, 12, 8]
    assert boxes[3, 0].tolist() == [0, 12, 3, 16]
    assert boxes[0, 0].tolist() == boxes[2, 2].tolist() == WHOLE


def test_padding_changes_nothing():
    rows = [[4, 0, 12, 8, 3], [0, 12, 3, 16, 1]]
    plain = assign(torch.tensor([rows], dtype=torch.int16), CELLS)
    padded = assign(torch.tensor([[NO_OBJECT, rows[0], NO_OBJECT, rows[1], [0, 0, 16, 16, -1]]]).short(), CELLS)

    assert torch.equal(plain.classes, padded.classes)
    assert torch.equal(plain.boxes, padded.boxes)


@pytest.mark.parametrize("rows", [torch.zeros(2, 0, 5), torch.tensor([NO_OBJECT]).expand(2, 3, 5)])
def test_images_without_objects_have_no_targets(rows):
    found = assign(rows.short(), CELLS)

    assert (found.classes == -1).all()
    assert found.classes.shape == (2, 16)
    assert (found.boxes == torch.tensor(WHOLE)).all()


def test_targets_are_the_same_in_chunks(monkeypatch):
    corners = torch.randint(0, 12, (20, 3, 2), generator=torch.Generator().manual_seed(0))
    boxes = torch.cat([corners, corners + 4, torch.arange(60).view(20, 3, 1)], dim=2).short()
    whole = assign(boxes, CELLS)
    monkeypatch.setattr(targets, "_CHUNK_VALUES", 150)
    chunked = assign(boxes, CELLS)

    assert torch.equal(whole.classes, chunked.classes)
    assert torch.equal(whole.boxes, chunked.boxes)
    assert torch.equal(whole.subset(torch.tensor([3])).classes, whole.classes[3:4])
