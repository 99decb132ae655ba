"""What a split tells of its targets."""

from __future__ import annotations

import numpy as np
import pytest

from specvit.data import Split
from specvit.data import base as base_module

IMAGES = np.zeros((3, 3, 2, 2), dtype=np.uint8)
NONE = [0, 0, 0, 0, -1]


@pytest.mark.parametrize(
    ("target", "values", "expected"),
    [
        ("labels", np.array([4, 4, 4]), (4,)),
        ("labels", np.array([4, 4, 255]), (4, 255)),
        ("masks", np.array([255, 255, 255], dtype=np.uint8), ()),
        ("masks", np.array([255, 0, 0], dtype=np.uint8), (0,)),
        ("masks", np.array([0, 255, 7], dtype=np.uint8), (0, 7)),
        ("depth", np.array([0, np.nan, np.inf], dtype=np.float16), ()),
        ("depth", np.array([-1, 2, 2], dtype=np.float16), (2,)),
        ("depth", np.array([0, 2, 0.5], dtype=np.float16), (2, 0.5)),
        ("boxes", np.array([[NONE], [NONE], [NONE]], dtype=np.int16), ()),
        ("boxes", np.array([[NONE], [[0, 0, 1, 1, 3]], [[0, 0, 1, 1, 1]]], dtype=np.int16), (3, 1)),
    ],
)
@pytest.mark.parametrize("at_once", [1, 256])
def test_distinct_values_leave_out_what_does_not_count(
    target: str, values: np.ndarray, expected: tuple[float, ...], at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base_module, "_IMAGES_AT_ONCE", at_once)
    if target in ("masks", "depth"):
        values = np.broadcast_to(values[:, None, None], (3, 2, 2))
    split = Split(images=IMAGES, **{target: values})
    assert split.distinct(target) == expected
    assert split.distinct(target, most=1) == expected[:1]


def test_distinct_values_of_a_target_that_is_not_there_are_none() -> None:
    assert Split(images=IMAGES).distinct("masks") == ()
