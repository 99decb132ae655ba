"""From random numbers to scene descriptions."""

from __future__ import annotations

import numpy as np
import pytest

from specvit.data.scene_generator.categories import CATEGORIES
from specvit.data.scene_generator.sampling import num_draws, sample_scenes

_VARIETY = {"alike": 0.0, "ground_contrast": 1.0, "texture_rotation_deg": 20.0, "colour": 0.5, "light": 1.0}


def _table(num_scenes: int, max_objects: int = 4) -> np.ndarray:
    return np.random.default_rng(3).random((num_scenes, num_draws(max_objects)))


def test_scenes_from_many_rows_number_and_name_objects_as_asked() -> None:
    scenes = sample_scenes(_table(2000), num_objects=(2, 4), **_VARIETY)
    present = scenes.categories >= 0
    assert set(present.sum(axis=1)) == {2, 3, 4}
    assert present[:, 0].all()
    assert np.bincount(scenes.categories[:, 0], minlength=len(CATEGORIES)).min() > 2000 / len(CATEGORIES) * 0.75
    for row in scenes.categories:
        named = row[row >= 0]
        assert len(set(named)) == len(named)


@pytest.mark.parametrize("max_objects", [1, 4, 8])
def test_scenes_from_a_table_use_every_column_and_no_more(max_objects: int) -> None:
    table = _table(1, max_objects)
    sample_scenes(table, num_objects=(1, max_objects), **_VARIETY)
    with pytest.raises(ValueError, match=f"{table.shape[1] - 1} columns, {table.shape[1]} are needed"):
        sample_scenes(table[:, :-1], num_objects=(1, max_objects), **_VARIETY)


def test_scene_from_a_row_does_not_depend_on_other_rows() -> None:
    table = _table(20)
    alone = sample_scenes(table[7:8], num_objects=(2, 4), **_VARIETY)
    among = sample_scenes(table, num_objects=(2, 4), **_VARIETY)[7:8]
    for name in ("categories", "centres", "shape_axes", "texture_axes", "phases", "depths", "colours", "light"):
        np.testing.assert_array_equal(getattr(alone, name), getattr(among, name))


def test_colours_and_light_do_not_depend_on_the_category() -> None:
    # The same random numbers with the objects' categories turned around: everything else stays.
    table = _table(50)
    turned = table.copy()
    first = 6  # after the radii of the ground and four objects, and that of the main object
    turned[:, first : first + len(CATEGORIES)] = table[:, first : first + len(CATEGORIES)][:, ::-1]
    one, other = (sample_scenes(t, num_objects=(4, 4), **_VARIETY) for t in (table, turned))
    assert (one.categories != other.categories).any()
    for name in ("centres", "shape_axes", "phases", "depths", "colours", "light", "haze"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_light_of_strength_zero_is_even_and_white() -> None:
    scenes = sample_scenes(_table(5), num_objects=(2, 4), **{**_VARIETY, "light": 0.0})
    np.testing.assert_array_equal(scenes.light, np.tile(np.array([1, 0, 0], dtype=np.float32), (5, 3, 1)))


def test_ground_of_any_scene_lies_behind_all_objects() -> None:
    scenes = sample_scenes(_table(2000), num_objects=(4, 4), **_VARIETY)
    at_centre, slope_x, slope_y = np.moveaxis(scenes.depths, -1, 0)
    nearest_ground = at_centre[:, 0] - np.abs(slope_x[:, 0]) - np.abs(slope_y[:, 0])
    # No shape of area 2 reaches farther than 1.5 radii from its centre.
    radius = 1 / np.sqrt(np.abs(np.linalg.det(scenes.shape_axes[:, 1:])))
    farthest_object = at_centre[:, 1:] + 1.5 * radius * np.hypot(slope_x[:, 1:], slope_y[:, 1:])
    assert (farthest_object < nearest_ground[:, None]).all()


def test_objects_share_the_main_category_as_often_as_asked() -> None:
    table = _table(4000)
    always = sample_scenes(table, num_objects=(4, 4), **{**_VARIETY, "alike": 1.0}).categories
    assert (always == always[:, :1]).all()
    mostly = sample_scenes(table, num_objects=(4, 4), **{**_VARIETY, "alike": 0.8}).categories
    share = (mostly[:, 1:] == mostly[:, :1]).mean()
    # 12,000 draws at 0.8: a standard error of 0.0037.
    assert abs(share - 0.8) < 0.02


def test_ground_has_the_asked_share_of_the_contrast() -> None:
    table = _table(50)
    whole, half = (
        sample_scenes(table, num_objects=(2, 4), **{**_VARIETY, "ground_contrast": share}).colours
        for share in (1.0, 0.5)
    )
    np.testing.assert_allclose(half[:, 0, 1], whole[:, 0, 1] * 0.5, rtol=1e-6)
    np.testing.assert_array_equal(half[:, 1:], whole[:, 1:])
    np.testing.assert_array_equal(half[:, 0, 0], whole[:, 0, 0])
