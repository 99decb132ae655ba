"""Images with depth that keep their aspect: central squares, and depth at the resolution of its files."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from specvit.data import Dataset
from specvit.data.encoded import EncodedImages
from specvit.data.sources.depth import DepthMaps
from specvit.data.sources.nyuv2 import Nyuv2
from specvit.errors import DataError

from ..reading.test_pixels import encode, photograph
from . import test_nyuv2
from .test_encoded_masks import middle
from .test_orientation import SHOWN, SIDE, STORED
from .test_orientation import depth as write_turned

SIZES = ((48, 30), (31, 48), (33, 33), (71, 10))


def write(root: Path, name: str, split: str, metres: np.ndarray[Any, Any], *, seed: int = 0) -> None:
    """Write a photograph with its depth map, an NPY file for an even seed, else a PNG in millimetres."""
    for kind in ("images", "depth"):
        (root / kind / split).mkdir(parents=True, exist_ok=True)
    content = encode(photograph(metres.shape[1], metres.shape[0], seed=seed))
    (root / "images" / split / f"{name}.jpg").write_bytes(content)
    if seed % 2:
        Image.fromarray((metres * 1000).round().astype(np.uint16)).save(root / "depth" / split / f"{name}.png")
    else:
        np.save(root / "depth" / split / f"{name}.npy", metres)


def metres_of(number: int) -> np.ndarray[Any, Any]:
    """Make whole millimetres, a third of which are not measured."""
    width, height = SIZES[number % 4]
    generator = np.random.default_rng(number)
    depth = generator.integers(1, 9000, (height, width)) / 1000
    return np.where(generator.random(depth.shape) < 1 / 3, 0, depth)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Write four images a split, of odd sides and aspects, upright and lying, every other depth map a PNG."""
    for number in range(8):
        write(tmp_path, str(number), "train" if number < 4 else "val", metres_of(number), seed=number)
    return tmp_path


def load(root: Path, **fields: Any) -> Dataset:
    return DepthMaps(root=str(root), **{"image_size": 16, "keep": "encoded", **fields}).load()


def test_depth_is_the_middles_of_the_files_resized_and_at_its_own_size(root: Path) -> None:
    val = load(root, probe_size=24).val
    assert isinstance(val.images, EncodedImages)
    assert val.image_size == 16
    assert val.images.shape == (4, 3, 24, 24)
    assert val.depth is not None
    assert (val.depth.shape, val.depth.dtype) == ((4, 24, 24), np.float16)
    own = val.images.own["depth"]
    assert len(own) == 4
    for index in range(4):
        expected = middle(metres_of(4 + index)).astype(np.float32)
        assert own[index].dtype == np.float32
        np.testing.assert_allclose(own[index], expected, rtol=1e-6)
        side = len(expected)
        nearest = ((np.arange(24) + 0.5) * side / 24).astype(int)  # a side of 10 is enlarged
        np.testing.assert_array_equal(val.depth[index], expected[np.ix_(nearest, nearest)].astype(np.float16))
    np.testing.assert_array_equal(own.take(np.array([3, 0]))[0], own[3])
    sent = pickle.loads(pickle.dumps(val.take(np.array([2, 1]))))  # noqa: S301
    np.testing.assert_array_equal(sent.images.own["depth"][0], own[2])
    np.testing.assert_array_equal(sent.depth[1], val.depth[1])


def test_on_square_images_of_the_size_of_the_probe_all_is_as_with_arrays(tmp_path: Path) -> None:
    for number in range(6):
        depth = np.random.default_rng(number).integers(0, 64, (16, 16)) / 8  # what float16 holds
        write(tmp_path, str(number), "train" if number < 3 else "val", depth, seed=number)
    arrays, encoded = load(tmp_path, keep="arrays"), load(tmp_path)
    assert encoded.fingerprint == arrays.fingerprint
    for split, expected in ((encoded.train, arrays.train), (encoded.val, arrays.val)):
        assert isinstance(split.images, EncodedImages)
        assert split.depth is not None
        np.testing.assert_array_equal(split.images[:], expected.images[:])
        np.testing.assert_array_equal(split.depth, expected.depth)
        for index in range(3):
            np.testing.assert_array_equal(split.images.own["depth"][index], split.depth[index])


def test_what_counts_is_the_same_at_either_size(tmp_path: Path) -> None:
    depth = np.ones((9, 9), np.float64)
    # Below 3e-8 and from 65,520 on float16 has nothing but 0 and infinity.
    depth[0], depth[1, :5], depth[1, 5:] = [np.nan, np.inf, -np.inf, -1, 0, 1e-9, 1e6, 10.01, 10], 65_520, 1e39
    for split, seed in (("train", 0), ("val", 2)):
        write(tmp_path, "a", split, depth, seed=seed)
    near, all_of_it = (load(tmp_path, image_size=9, max_depth_m=most).val for most in (10.0, None))
    assert isinstance(near.images, EncodedImages)
    assert isinstance(all_of_it.images, EncodedImages)
    assert near.images.own["depth"][0].tolist() == [[0] * 8 + [10], [0] * 9, *([[1] * 9] * 7)]
    assert all_of_it.images.own["depth"][0][0].tolist() == pytest.approx([0] * 6 + [0, 10.01, 10])
    for split in (near, all_of_it):
        assert split.depth is not None
        assert isinstance(split.images, EncodedImages)
        np.testing.assert_array_equal(split.depth[0] > 0, split.images.own["depth"][0] > 0)


def test_pngs_of_other_units_are_metres_at_their_own_size(root: Path) -> None:
    val = load(root, units_per_m=500.0).val
    assert isinstance(val.images, EncodedImages)
    for index, factor in ((0, 1), (1, 2)):
        np.testing.assert_allclose(val.images.own["depth"][index], factor * middle(metres_of(4 + index)), rtol=1e-6)


def test_the_crop_of_eigen_is_applied_before_the_middle_is_taken(tmp_path: Path) -> None:
    root = test_nyuv2._make(tmp_path, as_bts=True)
    source = Nyuv2(root=str(root), image_size=48, keep="encoded")
    val = source.load().val
    assert isinstance(val.images, EncodedImages)
    own = val.images.own["depth"][0]
    # 480 columns of 640 are left, 80 to 559, all within the crop; rows from 240 on are 2 m, until the crop ends at 471.
    expected = np.zeros((480, 480), np.float32)
    expected[240:471] = 2.0
    np.testing.assert_array_equal(own, expected)
    assert val.depth is not None
    # The centre of a row of 10 pixels is its sixth: 470 is no such, 465 is.
    np.testing.assert_array_equal(val.depth[0], expected[5::10, 5::10])
    whole = Nyuv2(root=str(root), image_size=48, keep="encoded", eigen_crop=False).load().val
    assert isinstance(whole.images, EncodedImages)
    assert whole.images.own["depth"][0][471:].min() == 2.0


def test_where_bad_images_are_skipped_a_pair_that_cannot_be_read_makes_room_for_the_one_that_follows(
    root: Path,
) -> None:
    whole = load(root, on_bad_image="skip")
    image, array, png = (root / place for place in ("images/train/0.jpg", "depth/train/2.npy", "depth/val/5.png"))
    image.write_bytes(image.read_bytes()[:100])
    array.write_bytes(array.read_bytes()[:200])
    Image.new("L", SIZES[1]).save(png)
    with pytest.raises(DataError, match="3 images cannot be used:") as error:
        load(root)
    assert all(str(path) in str(error.value) for path in (image, array, png))
    data = load(root, on_bad_image="skip")
    assert isinstance(data.train.images, EncodedImages)
    pixels, used = data.train.read(slice(None))
    assert used.tolist() == [1, 1, 3, 3]
    np.testing.assert_array_equal(pixels, whole.train.read(np.array([1, 1, 3, 3]))[0])
    assert whole.train.depth is not None
    assert data.train.depth is not None
    np.testing.assert_array_equal(data.train.depth[[1, 3]], whole.train.depth[[1, 3]])
    assert not data.train.depth[[0, 2]].any()
    taken = data.train.take(used).images
    assert isinstance(taken, EncodedImages)
    np.testing.assert_allclose(taken.own["depth"][0], middle(metres_of(1)), rtol=1e-6)
    assert set(data.train.images.skipped) == {str(root / "images" / "train" / name) for name in ("0.jpg", "2.jpg")}
    assert str(array) in data.train.images.skipped[str(root / "images" / "train" / "2.jpg")]
    assert data.val.read(slice(None))[1].tolist() == [0, 2, 2, 3]
    assert data.fingerprint != whole.fingerprint


def test_pairs_none_of_which_can_be_read_are_refused_with_the_first(root: Path) -> None:
    for path in (root / "depth" / "val").iterdir():
        path.write_bytes(b"")
    first = rf"cannot read the depth map '{root}/depth/val/4\.npy': .*; so it is with all 4 pairs of val"
    with pytest.raises(DataError, match=first):
        load(root, on_bad_image="skip")


def test_a_depth_map_that_is_gone_is_named(root: Path) -> None:
    images = load(root).val.images
    assert isinstance(images, EncodedImages)
    path = root / "depth" / "val" / "5.png"
    path.unlink()
    with pytest.raises(DataError, match=f"cannot read the depth map '{path}'"):
        images.own["depth"][1]


def test_a_split_that_is_measured_nowhere_in_its_middles_is_refused(root: Path) -> None:
    for number in range(4, 8):
        depth = np.zeros_like(metres_of(number))
        depth[:1, :1] = number != 6  # the square one has no outside
        write(root, str(number), "val", depth, seed=number)
    load(root, keep="arrays", image_size=71)
    words = r"such as '.*val/4.npy', must hold a measured pixel in the centre of an image, as it is at 16x16; a "
    with pytest.raises(DataError, match=words):
        load(root)
    (root / "images" / "val" / "5.jpg").write_bytes(b"")
    with pytest.raises(DataError, match=words + r".*; 1 of 4 images left out: cannot .*val/5\.jpg'"):
        load(root, on_bad_image="skip")


def test_a_map_one_pixel_high_is_one_pixel(tmp_path: Path) -> None:
    for split, seed in (("train", 0), ("val", 1)):
        write(tmp_path, "a", split, np.array([[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]]), seed=seed)
    val = load(tmp_path, image_size=4).val
    assert isinstance(val.images, EncodedImages)
    assert val.images[:].shape == (1, 3, 4, 4)
    assert val.images.own["depth"][0].tolist() == [[3.0]]
    assert val.depth is not None
    assert val.depth.tolist() == [[[3.0] * 4] * 4]


def test_sizes_that_differ_and_too_many_pixels_are_refused_even_where_bad_images_are_skipped(root: Path) -> None:
    with pytest.raises(DataError, match=r"8 images cannot be used:(\n.*more than 700 pixels.*){8}"):
        load(root, max_pixels=700)
    np.save(root / "depth" / "val" / "4.npy", np.ones((48, 30)))
    with pytest.raises(DataError, match=r"4\.npy' must have the size of its image, 48x30, not 30x48"):
        load(root, on_bad_image="skip")


def test_a_photograph_that_is_stored_turned_waits_for_a_word_and_is_turned_with_it(tmp_path: Path) -> None:
    write_turned(tmp_path)
    with pytest.raises(DataError, match=r"2 images cannot be used:(\n  the image .* the EXIF orientation 6, so .*){2}"):
        load(tmp_path, image_size=SIDE)
    for orientation, expected in (("shown", SHOWN), ("stored", STORED)):
        train = load(tmp_path, image_size=SIDE, orientation=orientation).train
        assert train.images[:][0, 0].tolist() == expected[..., 0].tolist()
        assert isinstance(train.images, EncodedImages)
        assert train.images.own["depth"][0][:, SIDE // 2 :].min() == 1.0
