"""What a start found in images that stay encoded: a second one decodes nothing, until a file has changed."""

from __future__ import annotations

import errno
import os
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from specvit.data import Dataset, PairSource, Split
from specvit.data.cache import found_targets
from specvit.data.encoded import EncodedImages
from specvit.data.reading import depth_maps, image_decoding, image_reader
from specvit.data.reading.image_reader import ImageReader
from specvit.data.sources.depth import DepthMaps
from specvit.data.sources.masks import Masks
from specvit.errors import DataError

from ..reading.test_pixels import encode, photograph

SIZES = ((24, 15), (15, 24), (16, 16))
KINDS: dict[str, Callable[..., PairSource]] = {"masks": Masks, "depth": DepthMaps}


@pytest.fixture(autouse=True)
def _few_files_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(found_targets, "LEAST_FILES", 12)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Write three images a split, each with a mask of three classes and a depth map."""
    for number, (width, height) in enumerate([*SIZES, *SIZES]):
        split = "train" if number < 3 else "val"
        for kind in ("images", *KINDS):
            (tmp_path / "data" / kind / split).mkdir(parents=True, exist_ok=True)
        place = tmp_path / "data" / "images" / split / f"{number}.jpg"
        place.write_bytes(encode(photograph(width, height, seed=number)))
        mask = np.random.default_rng(number).integers(0, 3, (height, width), dtype=np.uint8)
        Image.fromarray(mask).save(tmp_path / "data" / "masks" / split / f"{number}.png")
        np.save(tmp_path / "data" / "depth" / split / f"{number}.npy", mask.astype(np.float32))
    return tmp_path / "data"


def load(root: Path, kind: str = "masks", **fields: Any) -> Dataset:
    fields = {"image_size": 8, "keep": "encoded", "cache_folder": str(root.parent / "cache"), **fields}
    return KINDS[kind](root=str(root), **fields).load()


def kept(root: Path) -> list[Path]:
    return sorted((root.parent / "cache").glob("*"))


def encoded(split: Split) -> EncodedImages:
    assert isinstance(split.images, EncodedImages)
    return split.images


def assert_same(one: Dataset, other: Dataset, kind: str = "masks") -> None:
    for split, wanted in ((one.train, other.train), (one.val, other.val)):
        np.testing.assert_array_equal(getattr(split, kind), getattr(wanted, kind))
        assert getattr(split, kind).dtype == getattr(wanted, kind).dtype
        np.testing.assert_array_equal(split.images[:], wanted.images[:])
        assert encoded(split).known_bad == encoded(wanted).known_bad
        for image in set(range(len(split))) - set(encoded(split).known_bad):
            np.testing.assert_array_equal(encoded(split).own[kind][image], encoded(wanted).own[kind][image])
    for name in ("class_names", "mask_names", "fingerprint", "passed_over"):
        assert getattr(one, name) == getattr(other, name)


@pytest.mark.parametrize("kind", KINDS)
def test_a_second_start_reads_no_file_and_the_first_decodes_no_image(
    kind: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrays = load(root, kind, keep="arrays")
    decode = image_decoding.decode

    def decode_targets(content: bytes, name: str, *rest: Any, **more: Any) -> Image.Image:
        assert not name.endswith(".jpg"), name
        return decode(content, name, *rest, **more)

    def refuse(*_: object) -> bytes:
        raise AssertionError("read a file")

    with monkeypatch.context() as patch:
        patch.setattr(image_reader, "decode", decode_targets)
        first = load(root, kind)
        assert len(kept(root)) == 1
        patch.setattr(ImageReader, "map", refuse)
        second = load(root, kind)
        other = load(root, kind, image_size=16, probe_size=8, workers=2)
    assert_same(second, first, kind)
    assert other.train.image_size == 16
    assert second.fingerprint == arrays.fingerprint
    assert second.mask_names == arrays.mask_names
    assert len(kept(root)) == 1


def test_a_file_that_was_written_over_is_noticed(root: Path) -> None:
    first = load(root)
    path = root / "masks" / "val" / "4.png"
    Image.fromarray(np.full((24, 15), 7, np.uint8)).save(path)
    assert load(root).mask_names == tuple(f"class {index}" for index in range(8))
    image = root / "images" / "val" / "3.jpg"
    os.utime(image, (1e9, 1e9))  # as of another time, it may be another one
    load(root)
    assert len(kept(root)) == 3
    assert load(root).fingerprint != first.fingerprint


def test_another_file_of_the_same_size_and_time_is_noticed(root: Path) -> None:
    first = load(root, "depth")
    path = root / "depth" / "val" / "4.npy"
    before = path.stat()
    np.save(path, np.full((24, 15), 7, np.float32))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # as "cp -p" does, and archives of one time for all
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    second = load(root, "depth")
    assert second.val.depth is not None
    assert second.val.depth[1].min() == second.val.depth[1].max() == 7
    assert second.fingerprint != first.fingerprint


@pytest.mark.parametrize(
    "fields",
    [
        {"probe_size": 12},
        {"ignore_zero": True},
        {"class_names": ("a", "b", "c")},
        {"orientation": "shown"},
        {"on_bad_image": "skip"},
        {"max_pixels": 1000},
    ],
)
def test_settings_that_decide_what_is_found_are_told_apart(fields: dict[str, Any], root: Path) -> None:
    load(root)
    found = load(root, **fields)
    assert len(kept(root)) == 2
    assert_same(load(root, **fields), found)


def test_another_map_of_labels_is_told_apart(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load(root)
    monkeypatch.setattr(Masks, "label_map", {0: 1, 1: 0})
    mapped = load(root).val.masks
    assert mapped is not None
    assert set(np.unique(mapped)) <= {0, 1, 255}
    assert len(kept(root)) == 2


def test_settings_that_refuse_what_was_found_are_heard(root: Path) -> None:
    load(root)
    with pytest.raises(DataError, match=r"more than 300 pixels, the limit that data\.max_pixels raises"):
        load(root, max_pixels=300)
    with pytest.raises(DataError, match=r"must hold indices below 2, the number of data\.class_names"):
        load(root, class_names=("a", "b"))
    assert len(kept(root)) == 1


def test_what_cannot_be_used_is_known_at_a_second_start_until_it_can(root: Path) -> None:
    whole = load(root)
    image, mask = root / "images" / "train" / "0.jpg", root / "masks" / "val" / "5.png"
    content = image.read_bytes()
    image.write_bytes(content[:300])
    mask.rename(root / "gone")
    mask.symlink_to(root / "gone else")
    with pytest.raises(DataError, match="2 images cannot be used"):
        load(root)
    first, second = (load(root, on_bad_image="skip") for _ in range(2))
    assert_same(second, first)
    assert list(encoded(second.train).known_bad) == [0]
    assert list(encoded(second.val).known_bad) == [2]
    with pytest.raises(DataError, match="2 images cannot be used"):
        load(root)
    mask.unlink()
    (root / "gone").rename(mask)
    assert encoded(load(root, on_bad_image="skip").val).known_bad == {}
    image.write_bytes(content)
    mended = load(root, on_bad_image="skip")
    assert mended.fingerprint == whole.fingerprint
    assert encoded(mended.train).known_bad == {}


@pytest.mark.parametrize(("kind", "name"), [("masks", "0.jpg"), ("masks", "4.png"), ("depth", "4.npy")])
def test_what_could_not_be_read_for_a_moment_is_found_again(
    kind: str, name: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = load(root, kind)

    def failing(path: Path) -> bytes:
        if path.name == name:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return path.read_bytes()

    with monkeypatch.context() as moment:
        moment.setattr(image_decoding, "read_regular", failing)
        moment.setattr(depth_maps, "read_regular", failing)
        for _ in range(2):  # the second time it is known, and is so still
            missing = load(root, kind, on_bad_image="skip")
            assert sum(len(encoded(split).known_bad) for split in (missing.train, missing.val)) == 1
            assert missing.fingerprint != whole.fingerprint
    assert_same(load(root, kind, on_bad_image="skip"), whole, kind)


@pytest.mark.parametrize(
    "changed",
    [
        {"train_masks": np.zeros(9, np.float32)},
        {"train_masks": np.array(1, np.uint8)},
        {"train_masks_ends": np.array([10, 20, 30], np.float64)},
        {"train_masks_ends": np.array([-5, 99, 2**62])},
        {"train_masks_ends": np.array([1, 2])},
        {"train_masks": np.frombuffer(zlib.compress(bytes(10**6)), np.uint8), "train_masks_ends": np.full(3, 10**6)},
        {"about": np.array('{"targets": {"train": {"masks": [[1000000, 1000000], "|u1"]}, "val": []}}')},
        {"about": np.array('{"targets": {"train": ["labels"], "val": []}}')},
        {"about": np.array("[]")},
    ],
)
def test_what_is_not_as_it_was_written_is_found_again(changed: dict[str, Any], root: Path) -> None:
    first = load(root)
    (path,) = kept(root)
    with np.load(path) as stored:
        arrays = dict(stored)
    assert changed.keys() <= arrays.keys()
    np.savez(path, **(arrays | changed))
    assert_same(load(root), first)
    with np.load(path) as stored:
        assert all(np.array_equal(stored[name], array) for name, array in arrays.items())


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_damaged_is_found_again(kind: str, root: Path) -> None:
    first = load(root, kind)
    (path,) = kept(root)
    whole = path.read_bytes()
    middle = len(whole) // 2
    content = whole.index(zlib.compress(b"", 1)[:2])  # of the first target
    cuts = [b"", b"nothing", whole[:middle], *(whole[:at] + b"\xaa" * 8 + whole[at + 8 :] for at in (100, content))]
    for damaged in cuts:
        path.write_bytes(damaged)
        assert_same(load(root, kind), first, kind)
        assert path.read_bytes() == whole


def test_two_that_start_at_once_find_the_same(root: Path) -> None:
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda _: load(root), range(4)))
    for other in found[1:]:
        assert_same(other, found[0])
    assert [path.suffix for path in kept(root)] == [".npz"]


def test_where_the_folder_cannot_be_written_nothing_is_kept(root: Path) -> None:
    (root.parent / "cache").write_text("a file")
    assert len(load(root).train) == 3


def test_of_few_files_nothing_is_kept(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(found_targets, "LEAST_FILES", 13)
    load(root)
    assert kept(root) == []


def test_targets_of_another_kind_are_not_kept_in_part(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(source: Masks, *rest: Any) -> Dataset:
        found = _read(source, *rest)
        return replace(found, train=replace(found.train, labels=np.zeros(3, np.int64)), class_names=("a",))

    _read = Masks._read
    monkeypatch.setattr(Masks, "_read", read)
    for _ in range(2):
        assert load(root).train.targets == {"masks", "labels"}
    assert kept(root) == []


def test_there_must_be_room_for_what_was_found(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load(root)
    monkeypatch.setattr("specvit.data.cache.array_storage.usable_memory", lambda: 300)
    with pytest.raises(DataError, match=r"the targets at the size of probes take .*: set a smaller data\.probe_size"):
        load(root)
