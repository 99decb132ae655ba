"""NYU Depth v2 in miniature, in both layouts in which people have it."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from specvit.data import DATA_SOURCES
from specvit.data.encoded import EncodedImages
from specvit.data.sources.nyuv2 import Nyuv2
from specvit.errors import DataError

from ..apart import tell_apart

TRAIN = ("/kitchen_0028b/rgb_00045.jpg /kitchen_0028b/sync_depth_00045.png 518.8579",
         "/den_0001a/rgb_00000.jpg /den_0001a/sync_depth_00000.png 518.8579")  # fmt: skip
VAL = ("bathroom/rgb_00046.jpg bathroom/sync_depth_00046.png 518.8579",)


def _write(folder: Path, lines: tuple[str, ...], size: tuple[int, int]) -> None:
    for number, line in enumerate(lines):
        image, depth, _ = (part.lstrip("/") for part in line.split())
        (folder / image).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, (10, 200, 30)).save(folder / image)
        # 12 m, which is too far, in the upper half; 2 m, 3 m, ... in the lower one.
        millimetres = np.full(size[::-1], 12000, dtype=np.uint16)
        millimetres[size[1] // 2 :] = 2000 + 1000 * number
        Image.fromarray(millimetres).save(folder / depth)


def _make(root: Path, *, as_bts: bool, size: tuple[int, int] = (640, 480)) -> Path:
    train, val = (root / "sync", root / "official_splits" / "test") if as_bts else (root, root)
    _write(train, TRAIN, size)
    _write(val, VAL, size)
    names = ("nyudepthv2_train_files_with_gt.txt", "nyudepthv2_test_files_with_gt.txt")
    for name, lines in zip(names if as_bts else ("nyu_train.txt", "nyu_test.txt"), (TRAIN, VAL), strict=True):
        (root / name).write_text("".join(f"{line}\n" for line in lines))
    tell_apart(root)
    return root


@pytest.mark.parametrize("as_bts", [True, False])
def test_both_layouts_are_read_in_the_order_of_the_lists(as_bts: bool, tmp_path: Path) -> None:
    assert DATA_SOURCES["nyuv2"] is Nyuv2
    source = Nyuv2(root=str(_make(tmp_path, as_bts=as_bts)), image_size=8)
    dataset = source.load()
    assert (len(dataset.train), len(dataset.val)) == (2, 1)
    assert dataset.train.depth is not None
    # Far pixels do not count, nor the first of 8 columns, whose centre is column 40; the last one's is 600.
    upper, lower = [[0.0] * 8] * 4, [[0.0] + [2.0] * 7] * 4
    assert dataset.train.depth[0].tolist() == upper + lower
    assert dataset.train.depth[1].max() == 3.0


def test_files_that_a_list_names_may_be_gone_where_bad_images_are_skipped(tmp_path: Path) -> None:
    root = _make(tmp_path, as_bts=True)
    shutil.rmtree(root / "sync" / "den_0001a")
    with pytest.raises(DataError, match=r"line 2 of .*train_files_with_gt\.txt' names no image '.*den_0001a"):
        Nyuv2(root=str(root), image_size=8, keep="encoded").load()
    train = Nyuv2(root=str(root), image_size=8, keep="encoded", on_bad_image="skip").load().train
    assert train.read(slice(None))[1].tolist() == [0, 0]
    assert isinstance(train.images, EncodedImages)
    assert list(train.images.skipped) == [str(root / "sync" / "den_0001a" / "rgb_00000.jpg")]
    (root / "nyudepthv2_test_files_with_gt.txt").write_text("bathroom/rgb_00046.jpg\n")
    with pytest.raises(DataError, match=r"line 1 of .*test_files_with_gt\.txt' names no depth map"):
        Nyuv2(root=str(root), image_size=8, keep="encoded", on_bad_image="skip").load()


def test_the_crop_is_that_of_eigen(tmp_path: Path) -> None:
    source = Nyuv2(root=str(tmp_path))
    counted = source.counted(np.full((480, 640), 5.0, dtype=np.float32), Path("a.png"))
    rows, columns = np.nonzero(counted)
    # Rows 45 to 470 and columns 41 to 600: 426 x 560 pixels.
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (45, 470, 41, 600)
    assert len(rows) == 426 * 560
    whole = Nyuv2(root=str(tmp_path), eigen_crop=False).counted(np.full((2, 3), 5.0, dtype=np.float32), Path("a.png"))
    assert whole.tolist() == [[5.0] * 3] * 2
    assert source.max_depth_m == 10.0


def test_another_size_is_refused_unless_there_is_no_crop(tmp_path: Path) -> None:
    root = _make(tmp_path, as_bts=False, size=(32, 24))
    with pytest.raises(DataError, match=r"sync_depth_00045\.png' must have 640x480 pixels for .*, not 32x24"):
        Nyuv2(root=str(root), image_size=8).load()
    depth = Nyuv2(root=str(root), image_size=8, eigen_crop=False).load().val.depth
    assert depth is not None
    assert depth[0, 7].tolist() == [2.0] * 8


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("", r"nyu_test\.txt' names no image"),
        ("bathroom/rgb_1.jpg bathroom/sync_depth_00046.png 518", r"line 1 of .* names no image '.*rgb_1\.jpg'"),
        ("\nbathroom/rgb_00046.jpg None 518", r"line 2 of .* names no depth map '.*None'"),
        ("../x.jpg bathroom/sync_depth_00046.png", r"line 1 of .* must name files within '.*', not '\.\./x\.jpg'"),
        ("bathroom/rgb_00046.jpg /a/../../x.png", r"line 1 .* must name files within '.*', not 'a/\.\./\.\./x\.png'"),
        ("bathroom/rgb_00046.jpg", r"line 1 of .* names no depth map"),
    ],
)
def test_lists_that_name_nothing_or_too_much_are_refused(lines: str, words: str, tmp_path: Path) -> None:
    root = _make(tmp_path, as_bts=False, size=(32, 24))
    (root / "nyu_test.txt").write_text(lines)
    with pytest.raises(DataError, match=words):
        Nyuv2(root=str(root), image_size=8, eigen_crop=False).load()


def test_a_missing_list_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot read '.*nyu_train\.txt': .*nyuv2 reads ROOT/nyu_train\.txt"):
        Nyuv2(root=str(tmp_path)).load()
