"""Images with depth maps: miniature trees for every rule."""

from __future__ import annotations

import gc
import pickle
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from specvit.data import DATA_SOURCES
from specvit.data.reading.depth_maps import read_depth, squash_depth
from specvit.data.sources.depth import DepthMaps
from specvit.errors import DataError

from ..apart import tell_apart

SIZE = (24, 18)


def _millimetres(left: int, right: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Make a map whose left half holds the first value and whose right half the second."""
    depth = np.full(size[::-1], left, dtype=np.uint16)
    depth[:, size[0] // 2 :] = right
    return depth


def _save_png(path: Path, left: int, right: int, size: tuple[int, int] = SIZE) -> None:
    Image.fromarray(_millimetres(left, right, size)).save(path)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Make two images in both splits: one with a PNG of 1.5 m and nothing, one with floats of 0.25 m and 12 m."""
    root = tmp_path / "set"
    for split in ("train", "val"):
        for kind in ("images", "depth"):
            (root / kind / split).mkdir(parents=True)
        Image.new("RGB", SIZE, (10, 200, 30)).save(root / "images" / split / "a.PNG")
        Image.new("RGB", SIZE, (90, 20, 130)).save(root / "images" / split / "b.bmp")
        _save_png(root / "depth" / split / "a.png", 1500, 0)
        np.save(root / "depth" / split / "b.npy", _millimetres(250, 12000).astype(np.float64) / 1000)
    tell_apart(root)
    return root


def _load_fails(root: Path, match: str, **fields: object) -> None:
    with pytest.raises(DataError, match=match):
        DepthMaps(root=str(root), image_size=8, **fields).load()


def test_depth_is_found_by_name_and_its_root_is_no_part_of_its_identity() -> None:
    assert DATA_SOURCES["depth"] is DepthMaps
    assert DepthMaps.path_fields == {"root", "cache", "cache_folder", "max_pixels", "max_shared", "workers"}
    assert DepthMaps.targets == {"depth"}


def test_tree_of_two_images_loads_metres_in_the_order_of_names(tree: Path) -> None:
    dataset = DepthMaps(root=str(tree), image_size=8).load()
    assert (dataset.class_names, dataset.mask_names, dataset.num_classes["depth"]) == ((), (), 0)
    for split in (dataset.train, dataset.val):
        assert split.targets == {"depth"}
        assert split.images.shape == (2, 3, 8, 8)
        assert split.depth is not None
        assert split.depth.dtype == np.float16
        assert split.images[:, :, 0, 0].tolist() == [[10, 200, 30], [90, 20, 130]]
        # Squashed: both halves of 24x18 survive whole, and nothing lies between the two depths.
        assert split.depth.tolist() == [[[1.5] * 4 + [0.0] * 4] * 8, [[0.25] * 4 + [12.0] * 4] * 8]


def test_pixels_beyond_the_largest_depth_count_as_not_measured(tree: Path) -> None:
    depth = DepthMaps(root=str(tree), image_size=8, max_depth_m=10.0).load().val.depth
    assert depth is not None
    assert depth[1].tolist() == [[0.25] * 4 + [0.0] * 4] * 8
    at_most = DepthMaps(root=str(tree), image_size=8, max_depth_m=12.0).load().val.depth
    assert at_most is not None
    assert at_most[1, 0, 7] == 12.0


def test_every_way_to_say_not_measured_becomes_zero(tree: Path) -> None:
    depth = np.ones(SIZE[::-1], dtype=np.float32)
    depth[:, :4], depth[:, 4:8], depth[:, 8:12], depth[:, 12:16], depth[:, 16:20] = np.nan, np.inf, -np.inf, -2.0, 1e6
    np.save(tree / "depth" / "val" / "b.npy", depth)
    loaded = DepthMaps(root=str(tree), image_size=6).load().val.depth
    assert loaded is not None
    assert loaded[1].tolist() == [[0.0] * 5 + [1.0]] * 6


@given(arrays(np.uint16, (6, 8)))
def test_png_millimetres_become_metres(tmp_path_factory: pytest.TempPathFactory, millimetres: np.ndarray) -> None:
    path = tmp_path_factory.mktemp("png") / "a.png"
    Image.fromarray(millimetres).save(path)
    depth, digest = read_depth(path)
    np.testing.assert_allclose(depth, millimetres / 1000, rtol=1e-6)
    assert len(digest) == 32


@given(st.sampled_from([np.float16, np.float32, np.float64]), st.booleans())
def test_arrays_of_any_float_type_and_order_are_read(
    tmp_path_factory: pytest.TempPathFactory, dtype: type, fortran: bool
) -> None:
    path = tmp_path_factory.mktemp("npy") / "a.NPY"
    metres = np.arange(12, dtype=dtype).reshape(3, 4) / 4
    with path.open("wb") as file:
        np.save(file, np.asfortranarray(metres) if fortran else metres)
    np.testing.assert_array_equal(read_depth(path)[0], metres)


@given(arrays(np.float32, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.floats(0, 8, width=16)))
def test_nearest_neighbour_takes_the_pixel_under_the_centre(depth: np.ndarray) -> None:
    height, width = depth.shape
    rows, columns = (((np.arange(5) + 0.5) * n / 5).astype(int) for n in (height, width))
    np.testing.assert_array_equal(squash_depth(depth, 5), depth[np.ix_(rows, columns)])


def test_threads_read_arrays_beside_each_other(tmp_path: Path) -> None:
    """Python 3.11 may parse wrongly where another thread parses, too, which a switch in the middle brings about."""
    np.save(tmp_path / "a.npy", np.ones((2, 2), np.float32))

    def switch(phase: str, info: object) -> None:
        time.sleep(0)

    before = gc.get_threshold()
    gc.callbacks.append(switch)
    gc.set_threshold(5)
    try:
        with ThreadPoolExecutor(8) as threads:
            found = list(threads.map(lambda _: read_depth(tmp_path / "a.npy")[0].sum(), range(500)))
    finally:
        gc.set_threshold(*before)
        gc.callbacks.remove(switch)
    assert found == [4.0] * 500


def test_fingerprint_tells_files_apart_but_not_places(tree: Path, tmp_path: Path) -> None:
    before = DepthMaps(root=str(tree), image_size=8).load().fingerprint
    moved = tmp_path / "moved"
    shutil.copytree(tree, moved)
    assert DepthMaps(root=str(moved), image_size=8).load().fingerprint == before
    (tree / "depth" / "train" / ".DS_Store").touch()
    assert DepthMaps(root=str(tree), image_size=8).load().fingerprint == before
    _save_png(tree / "depth" / "train" / "a.png", 1501, 0)
    assert DepthMaps(root=str(tree), image_size=8).load().fingerprint != before


def test_missing_root_and_folders_are_refused(tree: Path, tmp_path: Path) -> None:
    _load_fails(tmp_path / "nowhere", r"data\.root: no folder '.*nowhere'")
    shutil.rmtree(tree / "depth" / "val")
    _load_fails(tree, r"no folder '.*set/depth/val': depth reads ROOT/images")


def test_image_without_depth_is_refused(tree: Path) -> None:
    (tree / "depth" / "val" / "b.npy").unlink()
    _load_fails(tree, r"images/val/b\.bmp' has no depth map '.*depth/val/b\.png' or '.*depth/val/b\.npy'")


def test_depth_without_image_is_refused(tree: Path) -> None:
    (tree / "images" / "train" / "a.PNG").unlink()
    _load_fails(tree, r"the depth map '.*depth/train/a\.png' has no image '.*images/train/a'\.\*")


def test_two_depth_maps_of_one_image_are_refused(tree: Path) -> None:
    np.save(tree / "depth" / "val" / "a.npy", np.ones(SIZE[::-1]))
    _load_fails(tree, r"depth/val/a\.npy' and '.*depth/val/a\.png' would share one image")


def test_depth_of_another_size_is_refused_with_both_sizes(tree: Path) -> None:
    _save_png(tree / "depth" / "val" / "a.png", 1, 2, size=(12, 18))
    _load_fails(tree, r"depth/val/a\.png' must have the size of its image, 24x18, not 12x18")


@pytest.mark.parametrize(("mode", "bits"), [("L", 8), ("RGB", 8), ("1", 1), ("P", 1)])
def test_png_of_another_kind_is_refused(mode: str, bits: int, tree: Path) -> None:
    Image.new(mode, SIZE).save(tree / "depth" / "val" / "a.png")
    _load_fails(tree, rf"a\.png' must be a 16-bit greyscale PNG, .*, not mode '{mode}' with {bits} bits")


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.ones(SIZE[::-1], dtype=np.int32), "not 18x24 of int32"),
        (np.ones((1, *SIZE[::-1])), "not 1x18x24 of float64"),
        (np.array(3.0), "not a scalar of float64"),
    ],
)
def test_array_that_is_no_map_of_floats_is_refused(array: np.ndarray, words: str, tree: Path) -> None:
    np.save(tree / "depth" / "val" / "b.npy", array)
    _load_fails(tree, rf"b\.npy' must hold a height x width array of floats in metres, {words}")


def test_pickles_are_not_read(tree: Path) -> None:
    path = tree / "depth" / "val" / "b.npy"
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    _load_fails(tree, r"cannot read the depth map '.*val/b\.npy': .*[Oo]bject arrays")
    path.write_bytes(pickle.dumps(np.ones(SIZE[::-1])))
    _load_fails(tree, r"cannot read the depth map '.*val/b\.npy': .*magic")


@pytest.mark.parametrize("name", ["a.png", "b.npy"])
@pytest.mark.parametrize("num_bytes", [0, 40, 200])
def test_truncated_depth_is_refused(name: str, num_bytes: int, tree: Path) -> None:
    path = tree / "depth" / "train" / name
    path.write_bytes(path.read_bytes()[:num_bytes] if name == "b.npy" else path.read_bytes()[: num_bytes // 4])
    _load_fails(tree, rf"cannot read the (image|depth map) '.*depth/train/{name}': .")


def test_array_that_claims_to_be_huge_is_refused(tree: Path) -> None:
    path = tree / "depth" / "train" / "b.npy"
    content = path.read_bytes().replace(b"(18, 24), }          ", b"(99999999, 99999999)}")
    path.write_bytes(content)
    _load_fails(tree, r"cannot read the depth map '.*depth/train/b\.npy': .")


@pytest.mark.parametrize(
    "header",
    [
        b"{",
        b"'''",
        b"  {}\n {}",
        b"{[]: 1}",
        b"-" * 4000 + b"1",
        b"(" * 4000,
        b"{'descr': ('<f8',), 'fortran_order': False, 'shape': (2, 2)}",
        b"{'descr': [3], 'fortran_order': False, 'shape': (2, 2)}",
        b"{'descr': '<f8', 'fortran_order': False, 'shape': (-2, 2)}",
        b"{1: 2, 'a': 3, 'b': 4}",
    ],
)
def test_damaged_header_is_refused_by_file(header: bytes, tree: Path) -> None:
    for magic, width in ((b"\x93NUMPY\x01\x00", 2), (b"\x93NUMPY\x02\x00", 4)):
        content = magic + len(header).to_bytes(width, "little") + header + bytes(64)
        (tree / "depth" / "val" / "b.npy").write_bytes(content)
        _load_fails(tree, r"cannot read the depth map '.*val/b\.npy': .")


@settings(deadline=None)
@given(place=st.integers(0, 127), value=st.integers(0, 255))
def test_one_wrong_byte_in_a_header_is_read_or_refused(
    place: int, value: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "wrong.npy"
    np.save(path, np.ones((3, 4)))
    content = bytearray(path.read_bytes())
    content[place] = value
    path.write_bytes(content)
    try:
        depth, _ = read_depth(path)
    except DataError:
        return
    assert depth.ndim == 2
    assert depth.size > 0


def test_jpeg_under_the_name_of_a_depth_map_is_refused(tree: Path) -> None:
    Image.new("L", SIZE).save(tree / "depth" / "val" / "a.png", format="JPEG")
    _load_fails(tree, r"cannot read the image '.*depth/val/a\.png': its content is not PNG")


def test_split_without_a_measured_pixel_is_refused(tree: Path) -> None:
    _save_png(tree / "depth" / "val" / "a.png", 0, 0)
    np.save(tree / "depth" / "val" / "b.npy", np.full(SIZE[::-1], 10.5))
    DepthMaps(root=str(tree), image_size=8).load()
    _load_fails(
        tree,
        r"the depth maps of val in '.*set', such as '.*val/a\.png', must hold a measured pixel; a measured depth "
        r"is above 0 and at most data\.max_depth_m = 10 m, and finite",
        max_depth_m=10.0,
    )


def test_a_cache_on_disk_gives_the_arrays_that_memory_does(tree: Path, tmp_path: Path) -> None:
    in_memory = DepthMaps(root=str(tree), image_size=8).load()
    for _ in range(2):  # made, then found
        cached = DepthMaps(root=str(tree), image_size=8, cache="disk", cache_folder=str(tmp_path / "cache")).load()
        assert cached.fingerprint == in_memory.fingerprint
        assert cached.box_names == in_memory.box_names
        for split, expected in ((cached.train, in_memory.train), (cached.val, in_memory.val)):
            assert isinstance(split.images, np.memmap)
            assert split.targets == expected.targets
            for name in ("images", *split.targets):
                np.testing.assert_array_equal(getattr(split, name), getattr(expected, name))


def test_png_in_other_units_is_read_in_metres(tree: Path) -> None:
    dataset = DepthMaps(root=str(tree), image_size=8, units_per_m=256).load()
    assert dataset.train.depth is not None
    assert dataset.train.depth[0, 0].tolist() == [np.float16(1500 / 256)] * 4 + [0] * 4
    assert dataset.train.depth[1, 0].tolist() == [0.25] * 4 + [12] * 4  # an NPY file is in metres
