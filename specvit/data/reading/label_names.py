"""Class indices and their names, where a source may give the one, the other, or both."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from specvit.data.reading.name_forms import composed
from specvit.errors import DataError
from specvit.lazy_numpy import np

if TYPE_CHECKING:
    from numpy.typing import NDArray

IGNORE_INDEX = 255
"""Mask value of pixels that belong to no class; left out of losses and metrics."""

MAX_CLASSES = 1_000_000
"""Most classes that an index in the data can make; a larger one is no class index."""


def check_names(names: Sequence[str], *, field: str, most: int | None = None) -> None:
    """Check that names differ from one another, and that there are not more than ``most``.

    Raises:
        ValueError: If a rule is broken; the text names ``field``.
    """
    if most is not None and len(names) > most:
        raise ValueError(f"{field} must name at most {most} classes, not {len(names)}")
    forms = list(map(composed, names))
    repeated = sorted({name for name in forms if forms.count(name) > 1})
    if repeated:
        raise ValueError(f"{field} must differ from one another, not repeat {repeated[0]!r}")


def name_classes(names: Sequence[str], labels: Iterable[NDArray[np.int64]]) -> tuple[str, ...]:
    """Return the name of each class: ``names``, or if there are none, "class 0" up to the largest index.

    Args:
        names: The names that were given.
        labels: The class indices of each split, none of them negative, no split empty.
    """
    return tuple(names) or tuple(f"class {index}" for index in range(1 + max(int(split.max()) for split in labels)))


def largest_class(mask: NDArray[np.uint8], names: Sequence[str], *, name: str, field: str) -> int:
    """Return the largest class index in a mask; -1 = all its pixels are ignored.

    Args:
        mask: ``(H, W)`` class indices, 255 = ignore.
        names: The name of each class; empty = any index may occur.
        name: What to call the mask in messages.
        field: The setting that holds the names, for messages.

    Raises:
        DataError: If the index has no name.
    """
    present = np.flatnonzero(np.bincount(mask.ravel(), minlength=IGNORE_INDEX + 1)[:IGNORE_INDEX])
    largest = int(present[-1]) if len(present) else -1
    if names and largest >= len(names):
        raise DataError(
            f"{name} must hold indices below {len(names)}, the number of {field}, or {IGNORE_INDEX}, not {largest}"
        )
    return largest


def encode_labels(
    labels: Mapping[str, Sequence[object]],
    *,
    names: Mapping[str, tuple[str, ...]],
    places: Mapping[str, str],
) -> tuple[tuple[str, ...], dict[str, NDArray[np.int64]]]:
    """Turn what a label column holds into class indices.

    Args:
        labels: The values of ``train`` and ``val``: integers, or text.
        names: The names that the column itself gives to its integers; empty = it gives none. They must be the same
            in both splits. Classes of a column of text are its values in ``train``, sorted.
        places: What to call each split in messages.

    Returns:
        The name of each class, and the class indices ``(N,)`` of each split.

    Raises:
        DataError: If a value is missing, is neither, or is no class.
    """
    if list(map(composed, names["train"])) != list(map(composed, names["val"])):
        raise DataError(f"{places['train']} and {places['val']} must have the same classes, in the same order")
    given = names["train"]
    if all(isinstance(value, str) for values in labels.values() for value in values):
        given = tuple(dict.fromkeys(composed(name) for name in sorted({str(value) for value in labels["train"]})))
        index_of: Mapping[object, int] = {name: index for index, name in enumerate(given)}
        rule = "one of the classes of the training split"
    else:
        index_of = {}
        rule = f"a class index from 0 to {(len(given) or MAX_CLASSES) - 1}"
    encoded = {}
    for split, values in labels.items():
        indices = np.empty(len(values), np.int64)
        for number, value in enumerate(values):
            index = index_of.get(composed(str(value))) if index_of else value
            if not isinstance(index, int) or not 0 <= index < (len(given) or MAX_CLASSES):
                raise DataError(f"the label of {places[split]}, row {number} must be {rule}, not {value!r}")
            indices[number] = index
        encoded[split] = indices
    return name_classes(given, encoded.values()), encoded
