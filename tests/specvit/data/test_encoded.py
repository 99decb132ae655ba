"""Encoded images: to whoever takes rows the squares of a source that decodes, and what becomes of bad ones."""

from __future__ import annotations

import logging
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from specvit.data import Dataset, Split
from specvit.data.encoded import Decoding, EncodedImages, left_out
from specvit.data.places import Places
from specvit.data.sources.image_folder import ImageFolder
from specvit.errors import DataError

from .reading.test_pixels import encode, photograph

SIZES = ((61, 43), (30, 70), (50, 50), (24, 90), (33, 32), (80, 40))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Make two classes of three photographs each in both splits, all of different sizes."""
    for number, split in enumerate(("train", "val")):
        for image, (width, height) in enumerate(SIZES):
            folder = tmp_path / split / "ab"[image // 3]
            folder.mkdir(parents=True, exist_ok=True)
            content = encode(photograph(width, height, seed=10 * number + image), quality=92)
            (folder / f"{image}.jpg").write_bytes(content)
    return tmp_path


def load(root: Path, **fields: object) -> Dataset:
    return ImageFolder(root=str(root), image_size=16, keep="encoded", **fields).load()  # type: ignore[arg-type]


def test_rows_are_those_of_a_source_that_decodes_and_so_are_the_targets(tree: Path) -> None:
    decoded, encoded = ImageFolder(root=str(tree), image_size=16).load(), load(tree)
    for split, expected in ((encoded.train, decoded.train), (encoded.val, decoded.val)):
        assert split.images.shape == expected.images.shape == (6, 3, 16, 16)
        np.testing.assert_array_equal(split.images[:], expected.images[:])
        np.testing.assert_array_equal(split.images[np.array([4, 1, 4])], expected.images[np.array([4, 1, 4])])
        assert split.labels is not None
        np.testing.assert_array_equal(split.labels, expected.labels)
    assert encoded.class_names == decoded.class_names


def test_what_is_taken_or_sent_to_another_process_stays_encoded(tree: Path) -> None:
    split = load(tree).train
    taken = pickle.loads(pickle.dumps(split.take(np.array([5, 2]))))  # noqa: S301
    assert isinstance(taken.images, EncodedImages)
    np.testing.assert_array_equal(taken.images[:], split.images[np.array([5, 2])])
    np.testing.assert_array_equal(taken.labels, [1, 0])


def test_the_fingerprint_follows_names_and_sizes_of_files(tree: Path) -> None:
    before = load(tree).fingerprint
    assert load(tree).fingerprint == before
    path = tree / "train" / "a" / "0.jpg"
    path.write_bytes(path.read_bytes() + b"x")
    assert load(tree).fingerprint != before


def test_entries_of_a_shard_are_read_by_their_place(tmp_path: Path) -> None:
    contents = [encode(photograph(40, 30, seed=seed)) for seed in range(3)]
    shard = tmp_path / "shard"
    shard.write_bytes(b"head" + b"".join(contents))
    starts = np.cumsum([4, *map(len, contents)])
    entries = np.array([(0, start, len(c)) for start, c in zip(starts[:-1], contents, strict=True)], np.int64)
    places = Places(np.array([bytes(shard)]), entries, names=np.array([b"s: 0", b"s: 1", b"s: 2"]))
    assert [places.read(image) for image in range(3)] == contents
    assert places.take(np.array([2])).read(0) == contents[2]
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"'s: 2': the shard is cut off"):
        places.read(2)


def _spoil(tree: Path, how: str) -> Path:
    path = tree / "train" / "a" / "1.jpg"
    match how:
        case "damaged":
            path.write_bytes(path.read_bytes()[:200])
        case "16 bits":
            Image.fromarray(np.arange(64, dtype=np.uint16).reshape(8, 8)).save(path, "PNG")
        case "gone":
            path.unlink()
    return path


@pytest.mark.parametrize("how", ["damaged", "16 bits", "gone"])
def test_a_bad_image_ends_the_reading_with_its_name_or_makes_room_for_the_one_that_follows(
    tree: Path, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    failing, skipping = load(tree).train, load(tree, on_bad_image="skip").train
    good = failing.images[:]
    path = _spoil(tree, how)
    with pytest.raises(DataError, match=r"\(on_bad_image: skip") as error:
        failing.images[:]
    assert str(path) in str(error.value)
    with caplog.at_level(logging.WARNING):
        pixels, used = skipping.read(slice(None))
        skipping.read(np.array([1]))
    assert used.tolist() == [0, 2, 2, 3, 4, 5]
    np.testing.assert_array_equal(pixels, good[used])
    assert isinstance(skipping.images, EncodedImages)
    assert list(skipping.images.skipped) == [str(path)]
    assert sum(str(path) in record.getMessage() for record in caplog.records) == 1


def test_a_file_that_is_gone_at_the_start_is_named_or_skipped(tree: Path) -> None:
    path = tree / "train" / "a" / "1.jpg"
    path.unlink()
    path.symlink_to(tree / "nowhere")
    with pytest.raises(DataError, match=f"cannot read the image '{path}': No such file"):
        load(tree)
    split = load(tree, on_bad_image="skip").train
    assert split.read(np.array([0, 1]))[1].tolist() == [0, 2]
    assert list(split.images.skipped) == [str(path)]  # type: ignore[union-attr]


def test_an_image_that_is_held_out_is_not_taken_for_a_bad_one(tree: Path) -> None:
    split = load(tree, on_bad_image="skip").train
    _spoil(tree, "damaged")  # image 1
    held_out = split.without_substitutes(np.array([2, 3]))
    assert held_out.read(np.array([1, 2]))[1].tolist() == [4, 2]
    assert split.read(np.array([1]))[1].tolist() == [2]
    assert held_out.take(np.array([1, 2])).read(np.array([0]))[1].tolist() == [1]  # of others nothing is known


def test_where_all_images_are_bad_skipping_ends(tree: Path) -> None:
    split = load(tree, on_bad_image="skip").train
    for path in (tree / "train").rglob("*.jpg"):
        path.write_bytes(b"nothing")
    with pytest.raises(DataError, match="so it is with the 6 images from there on"):
        split.read(np.array([3]))


def test_pixels_beyond_the_limit_of_the_source_are_refused(tree: Path) -> None:
    images = load(tree, max_pixels=2000).train.images
    with pytest.raises(DataError, match=r"more than 2000 pixels, the limit that data.max_pixels raises"):
        images[:]


@pytest.mark.parametrize("workers", [1, 3])
def test_the_number_of_threads_changes_no_bit(tree: Path, workers: int) -> None:
    images = load(tree).train.images
    assert isinstance(images, EncodedImages)
    one = replace(images, decoding=Decoding(workers=workers))
    np.testing.assert_array_equal(one[:], images[:])
    assert len(Split(images=one)) == 6


@pytest.mark.parametrize(
    ("fields", "rule"),
    [
        ({"cache": "disk"}, "cache must be 'memory' with keep: encoded"),
        ({"keep": "arrays", "on_bad_image": "skip"}, "on_bad_image must not be given without keep: encoded"),
        ({"keep": "arrays", "workers": 2}, "workers must not be given without keep: encoded"),
    ],
)
def test_fields_that_contradict_keep_are_refused(fields: dict[str, object], rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        ImageFolder(root=".", **{"keep": "encoded", **fields})  # type: ignore[arg-type]


def test_the_first_image_that_is_left_out_is_named_in_whatever_order_they_were_found() -> None:
    assert left_out({7: "b", 2: "a"}, total=9) == "; 2 of 9 images left out: a"
    assert left_out({}, total=9) == ""
