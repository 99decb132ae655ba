"""The images and masks of the data set of these tests, and how it is loaded."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from specvit.data import Dataset
from specvit.data.sources.hugging_face import HuggingFace

SIZE = 8
COUNTS = {"train": 6, "validation": 4}
NAMES = ["cat", "dog"]


def pixels(split: str, number: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    rng = np.random.default_rng([len(split), number])
    return rng.integers(0, 256, (12, 17, 3), dtype=np.uint8)


def encode(array: np.ndarray[Any, Any], kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, kind)
    return buffer.getvalue()


def encoded(split: str, number: int) -> bytes:
    return encode(pixels(split, number))


def mask_of(split: str, number: int) -> bytes:
    return encode(pixels(split, number)[..., 0] % 5)


def load(path: Path | str, **fields: Any) -> Dataset:
    return HuggingFace(path=str(path), image_size=SIZE, **fields).load()


def by_class(split: Any) -> Any:
    return split.images[np.argsort(split.labels, kind="stable")]


def assert_expected(dataset: Dataset, expected: Dataset) -> None:
    assert dataset.class_names == ("cat", "dog")
    for found, wanted in ((dataset.train, expected.train), (dataset.val, expected.val)):
        assert found.targets == {"labels"}
        np.testing.assert_array_equal(by_class(found), wanted.images)
        assert found.labels is not None
        assert found.labels.dtype == np.int64
        np.testing.assert_array_equal(np.sort(found.labels), wanted.labels)
