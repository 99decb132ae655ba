"""Rows with masks that stay encoded: what ``masks`` makes of the same files, in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from specvit.data.encoded import EncodedImages
from specvit.data.sources.masks import Masks
from specvit.errors import DataError

from ...reading.test_pixels import encode as encode_image
from ...reading.test_pixels import photograph
from .small_images import COUNTS, SIZE, encode, load, mask_of, pixels

Rows = dict[str, list[tuple[bytes, bytes | None]]]


def write(hf: Any, folder: Path, rows: Rows) -> Path:
    folder.mkdir()
    for split, pairs in rows.items():
        columns = {
            "image": [{"bytes": image, "path": None} for image, _ in pairs],
            "mask": [{"bytes": mask, "path": None} for _, mask in pairs],
            "label": [number % 2 for number in range(len(pairs))],
        }
        hf.Dataset.from_dict(columns).to_parquet(str(folder / f"{split}.parquet"))
    return folder


@pytest.fixture
def rows() -> Rows:
    """Make JPEGs of 48 x 30 pixels, each with a mask."""
    made: Rows = {}
    for split, count in COUNTS.items():
        seeds = [count + 9 * number for number in range(count)]
        made[split] = [
            (
                encode_image(photograph(48, 30, seed=seed)),
                encode(np.random.default_rng(seed).integers(0, 5, (30, 48), np.uint8)),
            )
            for seed in seeds
        ]
    return made


@pytest.mark.parametrize("fields", [{}, {"streaming": True, "num_train": 100, "num_val": 100}], ids=["whole", "stream"])
def test_they_are_what_the_source_masks_makes_of_the_same_files(
    hf: Any, rows: Rows, fields: dict[str, Any], tmp_path: Path
) -> None:
    root = tmp_path / "masks"
    for split, folder in (("train", "train"), ("validation", "val")):
        for place, (kind, ending) in enumerate((("images", "jpg"), ("masks", "png"))):
            (root / kind / folder).mkdir(parents=True)
            for number, row in enumerate(rows[split]):
                (root / kind / folder / f"{number}.{ending}").write_bytes(row[place] or b"")
    theirs = Masks(root=str(root), image_size=SIZE, keep="encoded", probe_size=12).load()
    path = write(hf, tmp_path / "rows", rows)

    ours = load(path, keep="encoded", probe_size=12, mask_column="mask", **fields)

    assert ours.mask_names == theirs.mask_names
    assert ours.fingerprint == load(path, mask_column="mask", **fields).fingerprint
    for found, wanted in ((ours.train, theirs.train), (ours.val, theirs.val)):
        assert found.targets == {"labels", "masks"}
        assert isinstance(found.images, EncodedImages)
        assert isinstance(wanted.images, EncodedImages)
        assert found.masks is not None
        assert wanted.masks is not None
        assert found.labels is not None
        assert found.labels.tolist() == [number % 2 for number in range(len(found))]
        np.testing.assert_array_equal(found.images[:], wanted.images[:])
        np.testing.assert_array_equal(found.masks, wanted.masks)
        taken = found.take(np.array([2, 0])).images
        assert isinstance(taken, EncodedImages)
        for one, other in ((1, 1), (2, 2)):
            np.testing.assert_array_equal(found.images.own["masks"][one], wanted.images.own["masks"][other])
        np.testing.assert_array_equal(taken.own["masks"][0], wanted.images.own["masks"][2])


def test_squares_of_the_size_of_probes_are_those_of_arrays(hf: Any, tmp_path: Path) -> None:
    square: Rows = {
        split: [
            (encode(pixels(split, number)[:SIZE, :SIZE]), encode(pixels(split, number)[:SIZE, :SIZE, 0] % 5))
            for number in range(count)
        ]
        for split, count in COUNTS.items()
    }
    path = write(hf, tmp_path / "rows", square)
    encoded, arrays = (load(path, keep=keep, mask_column="mask") for keep in ("encoded", "arrays"))
    for one, other in ((encoded.train, arrays.train), (encoded.val, arrays.val)):
        np.testing.assert_array_equal(one.images[:], other.images[:])
        np.testing.assert_array_equal(one.masks, other.masks)
        assert isinstance(one.images, EncodedImages)
        np.testing.assert_array_equal([one.images.own["masks"][image] for image in range(len(one))], other.masks)


def test_a_row_is_skipped_where_its_image_or_its_mask_cannot_be_read(hf: Any, rows: Rows, tmp_path: Path) -> None:
    whole = load(write(hf, tmp_path / "whole", rows), keep="encoded", mask_column="mask")
    deep = Image.fromarray(np.zeros((30, 48), np.uint16))
    rows["train"][1] = (rows["train"][1][0][:400], rows["train"][1][1])
    rows["train"][4] = (rows["train"][4][0], encode_image(deep, "PNG"))
    rows["validation"][0] = (rows["validation"][0][0], None)
    path = write(hf, tmp_path / "damaged", rows)
    with pytest.raises(DataError, match=r"3 images cannot be used:\n.*row 1.*\n.*row 4, mask.*16 bits\n.*row 0, mask"):
        load(path, keep="encoded", mask_column="mask")

    data = load(path, keep="encoded", mask_column="mask", on_bad_image="skip")

    for split, intact, wanted in (
        (data.train, whole.train, [0, 2, 2, 3, 5, 5]),
        (data.val, whole.val, [1, 1, 2, 3]),
    ):
        squares, used = split.read(slice(None))
        assert used.tolist() == wanted
        np.testing.assert_array_equal(squares, intact.images[np.array(wanted)])
        assert split.masks is not None
        assert intact.masks is not None
        np.testing.assert_array_equal(split.masks[np.unique(wanted)], intact.masks[np.unique(wanted)])
    assert data.train.masks is not None
    assert (data.train.masks[[1, 4]] == 255).all()


@pytest.mark.parametrize("mask_column", [None, "mask"])
def test_bad_images_that_are_skipped_may_be_in_both_splits(
    hf: Any, rows: Rows, mask_column: str | None, tmp_path: Path
) -> None:
    fields = {"keep": "encoded", "mask_column": mask_column, "on_bad_image": "skip"}
    for pairs in rows.values():
        pairs[1] = (b"not found", pairs[1][1])
    images = load(write(hf, tmp_path / "rows", rows), **fields).val.images
    assert isinstance(images, EncodedImages)
    images[:]
    assert len(images.skipped) == 1
    rows["validation"][0] = rows["train"][0]
    with pytest.raises(DataError, match=r"1 of 4 images .*row 0\", which is .*row 0\": "):
        load(write(hf, tmp_path / "shared", rows), **fields)


@pytest.mark.parametrize("policy", ["fail", "skip"])
def test_masks_that_do_not_fit_are_refused_as_with_arrays(hf: Any, rows: Rows, policy: str, tmp_path: Path) -> None:
    rows["train"][3] = (rows["train"][3][0], mask_of("train", 3))
    path = write(hf, tmp_path / "rows", rows)
    with pytest.raises(DataError, match=r"row 3 must have the size of its image, 48x30, not 17x12$"):
        load(path, keep="encoded", mask_column="mask", on_bad_image=policy)


def test_classes_without_a_name_and_masks_without_a_class_are_refused(hf: Any, rows: Rows, tmp_path: Path) -> None:
    path = write(hf, tmp_path / "rows", rows)
    with pytest.raises(DataError, match=r"row \d+ must hold indices below 4.*data\.mask_names"):
        load(path, keep="encoded", mask_column="mask", mask_names=tuple("abcd"))
    nothing = encode(np.full((30, 48), 255, np.uint8))
    ignored: Rows = {split: [(image, nothing) for image, _ in pairs] for split, pairs in rows.items()}
    with pytest.raises(DataError, match="must hold a class; all pixels are ignored"):
        load(write(hf, tmp_path / "ignored", ignored), keep="encoded", mask_column="mask")
