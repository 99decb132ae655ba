"""Images with boxes that keep their aspect: central squares, and boxes at the resolution of the files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from specvit.data import Dataset, Split
from specvit.data.boxes import OwnBoxes
from specvit.data.encoded import EncodedImages
from specvit.data.sources.coco import Coco
from specvit.errors import DataError

from ..reading.test_pixels import encode, photograph

NONE = [0, 0, 0, 0, -1]
LANDSCAPE, PORTRAIT, SMALL, EMPTY = (40, 20), (20, 41), (5, 5), (30, 20)
SIZES = (LANDSCAPE, PORTRAIT, SMALL, EMPTY)
BOXES: tuple[list[list[float]], ...] = (  # x, y, width, height
    [
        [12, 4, 8, 10.6],  # whole
        [0, 5, 16.5, 15],  # cut off at x = 10
        [0, 0, 9, 9],  # outside
        [13, 3, 1, 1],  # a pixel of the file, none of the probe's: x from 1.5 to 2
        [13, 3, 0.3, 9],  # none of the file
    ],
    [[4, 12.5, 10, 40]],  # cut off at y = 30.5
    [[1, 1, 2.5, 3]],
    [],
)
OWN = (
    [[2, 4, 10, 14.6, 0], [0, 5, 6.5, 20, 0], [3, 3, 4, 4, 0]],
    [[4, 2, 14, 20, 0]],
    [[1, 1, 3.5, 4, 0]],
    [],
)
PROBED = (  # at 10 px: by 1/2, 1/2, 2, 1/2; halves are rounded to even numbers
    [[1, 2, 5, 7, 0], [0, 2, 3, 10, 0], NONE, NONE, NONE],
    [[2, 1, 7, 10, 0], NONE, NONE, NONE, NONE],
    [[2, 2, 7, 8, 0], NONE, NONE, NONE, NONE],
    [NONE] * 5,
)


def write(root: Path, sizes: Any = SIZES, boxes: Any = BOXES, *, stated: bool = True) -> Path:
    """Write both splits, with an image of each size, and the boxes of each."""
    for number, split in enumerate(("train2017", "val2017")):
        (root / split).mkdir(parents=True, exist_ok=True)
        (root / "annotations").mkdir(exist_ok=True)
        images, annotations = [], []
        for key, ((width, height), rows) in enumerate(zip(sizes, boxes, strict=True)):
            content = encode(photograph(width, height, seed=100 * number + key))
            (root / split / f"{key}.jpg").write_bytes(content)
            size = {"width": width, "height": height} if stated else {}
            images.append({"id": key, "file_name": f"{key}.jpg", **size})
            annotations += [{"image_id": key, "category_id": 4, "bbox": row} for row in rows]
        document = {"images": images, "annotations": annotations, "categories": [{"id": 4, "name": "car"}]}
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(document))
    return root


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write(tmp_path)


def load(root: Path, **fields: Any) -> Dataset:
    return Coco(root=str(root), **{"image_size": 16, "probe_size": 10, "keep": "encoded", **fields}).load()


def own_boxes(split: Split) -> OwnBoxes:
    assert isinstance(split.images, EncodedImages)
    own = split.images.own["boxes"]
    assert isinstance(own, OwnBoxes)
    return own


@pytest.mark.parametrize("stated", [True, False], ids=["sizes in the file", "no sizes in the file"])
def test_boxes_move_with_the_middles_of_images_and_are_kept_at_their_own_size(tmp_path: Path, stated: bool) -> None:
    val = load(write(tmp_path, stated=stated)).val
    assert (val.image_size, val.images.shape, val.targets) == (16, (4, 3, 10, 10), {"boxes"})
    assert val.boxes is not None
    assert val.boxes.dtype == np.int16
    assert val.boxes.tolist() == list(PROBED)
    own = own_boxes(val)
    assert [own[image].tolist() for image in range(4)] == list(OWN)
    assert own.sides.tolist() == [20, 20, 5, 20]
    taken = val.take(np.array([2, 0]))
    assert own_boxes(taken)[0].tolist() == OWN[2]
    assert taken.boxes is not None
    assert taken.boxes.tolist() == [PROBED[2], PROBED[0]]


def test_pixels_are_the_middles_of_the_files_resized(root: Path) -> None:
    images = load(root).train.images
    with Image.open(root / "train2017" / "0.jpg") as image:
        middle = image.resize((10, 10), Image.Resampling.BILINEAR, box=(10, 0, 30, 20))
    np.testing.assert_array_equal(images[:][0], np.asarray(middle).transpose(2, 0, 1))


@pytest.mark.parametrize("size", [24, 10])
def test_square_images_are_those_of_arrays_bit_for_bit_with_their_boxes(tmp_path: Path, size: int) -> None:
    rng = np.random.default_rng(0)
    boxes = [[[*rng.uniform(-4, 20, 2), *rng.uniform(0, 16, 2)] for _ in range(number)] for number in (6, 0, 3)]
    arrays = Coco(root=str(write(tmp_path, [(24, 24)] * 3, boxes)), image_size=size).load()
    encoded = load(tmp_path, image_size=size, probe_size=None)
    for one, other in ((encoded.train, arrays.train), (encoded.val, arrays.val)):
        np.testing.assert_array_equal(one.images[:], other.images)
        assert one.boxes is not None
        np.testing.assert_array_equal(one.boxes, other.boxes)
    assert encoded.box_names == arrays.box_names == ("car",)


def test_an_image_that_vanishes_after_the_start_is_named(root: Path) -> None:
    split, path = load(root).train, root / "train2017" / "1.jpg"
    path.unlink()
    with pytest.raises(DataError, match=rf"{path}.*\(on_bad_image: skip"):
        split.images[:]


def test_what_headers_say_is_checked_for_all_images_at_once(root: Path) -> None:
    (root / "train2017" / "0.jpg").write_bytes(b"nothing")
    Image.new("RGB", (20, 40)).save(root / "train2017" / "1.jpg")
    Image.fromarray(np.zeros((20, 30), np.uint16)).save(root / "val2017" / "3.jpg", "PNG")
    with pytest.raises(DataError, match="3 images cannot be used:") as error:
        load(root, on_bad_image="fail")
    for text in (
        "train2017/0.jpg': its content is not JPEG",
        "instances_train2017.json' must have the size of its image, 20x40, not 20x41",
        "val2017/3.jpg' must have 8 bits a channel",
    ):
        assert text in str(error.value)
    with pytest.raises(DataError, match=r"must have the size of its image, 20x40, not 20x41$"):
        load(root, on_bad_image="skip")
    with pytest.raises(DataError, match=r"more than 700 pixels, the limit that data\.max_pixels raises"):
        load(root, max_pixels=700)


def test_images_that_are_stored_turned_are_refused_or_turned_with_their_boxes_where_they_are(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    write(tmp_path, [(40, 20)], [[[12, 4, 8, 10]]], stated=False)
    for split in ("train2017", "val2017"):
        content = encode(photograph(20, 40, seed=len(split)), exif=exif)
        (tmp_path / split / "0.jpg").write_bytes(content)
    with pytest.raises(DataError, match="has the EXIF orientation 6, so that the entry"):
        load(tmp_path)
    shown, stored = load(tmp_path, orientation="shown").val, load(tmp_path, orientation="stored").val
    assert own_boxes(shown)[0].tolist() == [[2, 4, 10, 14, 0]]
    assert own_boxes(stored)[0].tolist() == [[12, 0, 20, 4, 0]]
    turned = np.rot90(stored.images[:][0], -1, (1, 2)).astype(int)
    np.testing.assert_allclose(shown.images[:][0], turned, atol=1)  # sides are resized one after the other


@pytest.mark.parametrize("how", ["no image", "cut off", "gone", "gone after the start"])
def test_a_bad_image_makes_room_for_the_one_that_follows_with_its_boxes(root: Path, how: str) -> None:
    whole = load(root, on_bad_image="skip")
    path, later = root / "train2017" / "0.jpg", how == "gone after the start"
    data = whole
    match how:
        case "no image":
            path.write_bytes(b"nothing")
        case "cut off":
            path.write_bytes(path.read_bytes()[:-60])
        case _:
            path.unlink()
    if not later:
        with pytest.raises(DataError, match=r"1 of 4 images .*'0\.jpg'" if how == "gone" else str(path)):
            load(root)
        data = load(root, on_bad_image="skip")
        assert data.fingerprint != whole.fingerprint
    pixels, used = data.train.read(slice(None))
    assert used.tolist() == [1, 1, 2, 3]
    np.testing.assert_array_equal(pixels, whole.train.read(used)[0])
    assert len(np.unique(pixels.reshape(4, -1), axis=0)) == 3
    taken = data.train.take(used)
    assert taken.boxes is not None
    assert taken.boxes.tolist() == [PROBED[number] for number in used]
    assert [own_boxes(taken)[row].tolist() for row in range(4)] == [OWN[number] for number in used]
    assert isinstance(data.train.images, EncodedImages)
    assert list(data.train.images.skipped) == [str(path)]
    assert data.train.boxes is not None
    assert data.train.boxes[0].tolist() == (PROBED[0] if later else [NONE] * 5)


def test_where_all_images_of_a_split_are_bad_nothing_is_skipped(root: Path) -> None:
    for path in (root / "val2017").iterdir():
        path.unlink()
    with pytest.raises(DataError, match=r"val2017/0\.jpg': No such file .*; so it is with all 4 images of val$"):
        load(root, on_bad_image="skip")


def test_a_split_without_a_box_in_the_centres_is_refused(tmp_path: Path) -> None:
    write(tmp_path, [(40, 20), (30, 20)], [[[0, 0, 9, 20], [31, 0, 9, 20]], []])
    assert Coco(root=str(tmp_path), image_size=10).load().box_names == ("car",)
    message = r"train2017\.json' must hold at least 1 box that covers a pixel of the centre of its image, crowds"
    with pytest.raises(DataError, match=message + r" aside, at data\.probe_size 10$"):
        load(tmp_path)
    with pytest.raises(DataError, match=message + r" aside, at data\.image_size 16$"):
        load(tmp_path, probe_size=None)
    (tmp_path / "train2017" / "0.jpg").write_bytes(b"nothing")
    with pytest.raises(DataError, match=message + r".*; 1 of 2 images left out: cannot .*0\.jpg': its content"):
        load(tmp_path, on_bad_image="skip")


def test_the_fingerprint_follows_annotations_and_the_names_and_sizes_of_images(root: Path) -> None:
    first = load(root).fingerprint
    moved = root.rename(root.parent / "elsewhere")
    found = [first, load(moved).fingerprint]
    image, file = moved / "val2017" / "2.jpg", moved / "annotations" / "instances_val2017.json"
    image.write_bytes(image.read_bytes() + b"x")
    found.append(load(moved).fingerprint)
    file.write_text(file.read_text().replace("10.6", "10.7"))
    found.append(load(moved).fingerprint)
    assert found[0] == found[1]
    assert len(set(found)) == 3


def test_boxes_are_held_as_int16_at_the_size_of_the_probe() -> None:
    with pytest.raises(ValidationError, match="probe_size must be at most 32767 for boxes, not 32768"):
        Coco(root="anywhere", keep="encoded", probe_size=32768)
    assert Coco(root="anywhere", keep="encoded", image_size=40000, probe_size=16).probed_size == 16
