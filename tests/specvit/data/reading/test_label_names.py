from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from specvit.data.reading.label_names import check_names, encode_labels, largest_class, name_classes
from specvit.errors import DataError


def encode(
    train: Sequence[object],
    val: Sequence[object],
    names: tuple[str, ...] = (),
    val_names: tuple[str, ...] | None = None,
) -> tuple[tuple[str, ...], list[int], list[int]]:
    classes, labels = encode_labels(
        {"train": train, "val": val},
        names={"train": names, "val": names if val_names is None else val_names},
        places={"train": "split 'train'", "val": "split 'val'"},
    )
    assert all(split.dtype == np.int64 for split in labels.values())
    return classes, labels["train"].tolist(), labels["val"].tolist()


def test_indices_with_names_stay_what_they_are() -> None:
    assert encode([1, 0, 1], [0], ("a", "b", "c")) == (("a", "b", "c"), [1, 0, 1], [0])


def test_indices_without_names_are_numbered_up_to_the_largest_of_both_splits() -> None:
    assert encode([1, 0], [3]) == (("class 0", "class 1", "class 2", "class 3"), [1, 0], [3])


def test_text_is_numbered_in_the_order_of_the_alphabet() -> None:
    assert encode(["dog", "ant", "dog"], ["ant"]) == (("ant", "dog"), [1, 0, 1], [0])


@pytest.mark.parametrize(
    ("train", "val", "names", "rule"),
    [
        (["a", "b"], ["c"], (), "split 'val', row 0 must be one of the classes of the training split, not 'c'"),
        ([0, 2], [0], ("a", "b"), "split 'train', row 1 must be a class index from 0 to 1, not 2"),
        ([0, -1], [0], (), "split 'train', row 1 must be a class index from 0 to 999999, not -1"),
        ([0], [None], (), "split 'val', row 0 must be a class index from 0 to 999999, not None"),
        ([0], [0.5], (), "not 0.5"),
        ([0], ["a"], (), "not 'a'"),
        ([10**12], [0], (), "not 1000000000000"),
    ],
)
def test_a_value_that_is_no_class_is_refused_by_its_row(
    train: Sequence[object], val: Sequence[object], names: tuple[str, ...], rule: str
) -> None:
    with pytest.raises(DataError, match=rule):
        encode(train, val, names)


def test_splits_of_other_classes_are_refused() -> None:
    with pytest.raises(DataError, match="split 'train' and split 'val' must have the same classes, in the same order"):
        encode([0], [0], ("a", "b"), ("b", "a"))


def test_names_that_are_given_are_kept_and_must_differ() -> None:
    assert name_classes(("x", "y"), [np.array([0])]) == ("x", "y")
    check_names(("x", "y"), field="class_names")
    with pytest.raises(ValueError, match="class_names must differ from one another, not repeat 'x'"):
        check_names(("x", "y", "x"), field="class_names")
    with pytest.raises(ValueError, match="class_names must name at most 1 classes, not 2"):
        check_names(("x", "y"), field="class_names", most=1)


def test_the_largest_class_of_a_mask_leaves_ignored_pixels_out() -> None:
    mask = np.array([[0, 255], [3, 1]], dtype=np.uint8)
    assert largest_class(mask, (), name="m", field="f") == 3
    assert largest_class(mask, tuple("abcd"), name="m", field="f") == 3
    assert largest_class(np.full((2, 2), 255, np.uint8), tuple("ab"), name="m", field="f") == -1
    with pytest.raises(DataError, match="m must hold indices below 3, the number of f, or 255, not 3"):
        largest_class(mask, tuple("abc"), name="m", field="f")
