"""Which rows of a sequence are special, counted by hand."""

from __future__ import annotations

import pytest

from specvit.errors import ConfigError
from specvit.specialization.token_rows import PatchRow


@pytest.mark.parametrize(
    ("grid", "position", "patches", "index"),
    [
        # Row 2, column 1 of 4 x 4 is the 9th patch.
        ((4, 4), (2, 1), 16, 9),
        ((4, 4), (2, 2), 16, 10),
        # In a grid of 2 x 2 the patch at the same place is in row 1 (2.5 / 4 of the height), column 0 (1.5 / 4).
        ((4, 4), (2, 1), 4, 2),
        # In one of 8 x 8: 2.5 / 4 x 8 = row 5, 1.5 / 4 x 8 = column 3.
        ((4, 4), (2, 1), 64, 43),
        ((4, 4), (3, 3), 1, 0),
        # Of 2 x 4 patches, row 1, column 3; in 4 x 8: row 3 (1.5 / 2 x 4), column 7 (3.5 / 4 x 8).
        ((2, 4), (1, 3), 8, 7),
        ((2, 4), (1, 3), 32, 31),
    ],
)
@pytest.mark.parametrize("registers", [0, 3])
def test_the_placebo_is_the_patch_at_its_place_whatever_the_size_of_the_crop(
    grid: tuple[int, int], position: tuple[int, int], patches: int, index: int, registers: int
) -> None:
    rows = PatchRow(num_prefix=1 + registers, grid=grid, position=position)
    first = 1 + registers + index
    assert rows.of(1 + registers + patches) == (first, first + 1)


@pytest.mark.parametrize("position", [(4, 0), (0, 4), (-1, 0), (0, 0, 0)])
def test_a_place_outside_the_grid_is_refused(position: tuple[int, int]) -> None:
    with pytest.raises(ConfigError, match=r"placebo position .* within the grid .* row < 4"):
        PatchRow(num_prefix=1, grid=(4, 4), position=position)


@pytest.mark.parametrize(("grid", "patches"), [((4, 4), 15), ((4, 4), 8), ((2, 4), 16), ((4, 4), 0)])
def test_images_of_other_proportions_have_no_such_place(grid: tuple[int, int], patches: int) -> None:
    with pytest.raises(ConfigError, match=f"proportions, {grid[0]} x {grid[1]} patches, but got {patches}"):
        PatchRow(num_prefix=1, grid=grid, position=(0, 0)).of(1 + patches)
