"""Caches on disk: the same bits as in memory, made once, made anew when damaged, never made twice at once."""

from __future__ import annotations

import copy
import json
import logging
import multiprocessing
import os
import pickle
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from specvit.data import Dataset
from specvit.data.cache import array_storage, decoded_cache
from specvit.data.file_source import FileSource
from specvit.data.sources import imagenet as imagenet_module
from specvit.data.sources.image_folder import ImageFolder
from specvit.data.sources.imagenet import ImageNet
from specvit.data.sources.masks import Masks
from specvit.errors import DataError

from ....waiting import LIMIT_S

SIZE = 8


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Make an image folder of noise: 2 classes, 5 images each in train, 3 in val."""
    rng = np.random.default_rng(0)
    root = tmp_path / "images"
    for split, count in (("train", 5), ("val", 3)):
        for name in ("cat", "dog"):
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 256, (12, 17, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{number}.png")
    return root


@pytest.fixture
def masks(tmp_path: Path) -> Path:
    rng = np.random.default_rng(1)
    root = tmp_path / "masked"
    for split, count in (("train", 4), ("val", 2)):
        for kind in ("images", "masks"):
            (root / kind / split).mkdir(parents=True)
        for number in range(count):
            pixels = rng.integers(0, 256, (12, 17, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / "images" / split / f"{number}.jpg")
            Image.fromarray(pixels[..., 0] % 5).save(root / "masks" / split / f"{number}.png")
    return root


@pytest.fixture
def on_disk(folder: Path, tmp_path: Path) -> ImageFolder:
    return ImageFolder(root=str(folder), image_size=SIZE, cache="disk", cache_folder=str(tmp_path / "cache"))


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Record what is decoded into a cache from now on."""
    folders: list[Path] = []
    make = decoded_cache._make

    def recording(folder: Path, read: Callable[[Any], Dataset]) -> Dataset:
        folders.append(folder)
        return make(folder, read)

    monkeypatch.setattr(decoded_cache, "_make", recording)
    return folders


def assert_equal(one: Dataset, other: Dataset) -> None:
    for name in ("class_names", "mask_names", "box_names", "fingerprint"):
        assert getattr(one, name) == getattr(other, name)
    for split in ("train", "val"):
        first, second = getattr(one, split), getattr(other, split)
        assert first.targets == second.targets
        for name in ("images", *first.targets):
            assert getattr(first, name).dtype == getattr(second, name).dtype
            np.testing.assert_array_equal(getattr(first, name), getattr(second, name))


def caches(source: FileSource) -> list[Path]:
    return [path for path in Path(source.cache_folder).iterdir() if path.is_dir()]


def test_image_folder_on_disk_is_what_it_is_in_memory(on_disk: ImageFolder, folder: Path) -> None:
    dataset = on_disk.load()
    assert_equal(dataset, ImageFolder(root=str(folder), image_size=SIZE).load())
    assert_equal(on_disk.load(), dataset)
    assert isinstance(dataset.train.images, np.memmap)
    assert not dataset.train.images.flags.writeable


def test_imagenet_on_disk_is_what_it_is_in_memory(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(imagenet_module, "NUM_CLASSES", 2)
    cache: dict[str, Any] = {"cache": "disk", "cache_folder": str(tmp_path / "c")}
    dataset = ImageNet(root=str(folder), image_size=SIZE, keep="arrays", **cache).load()
    assert_equal(dataset, ImageNet(root=str(folder), image_size=SIZE, keep="arrays").load())
    assert isinstance(dataset.val.images, np.memmap)


def test_masks_on_disk_are_what_they_are_in_memory(masks: Path, tmp_path: Path) -> None:
    source = Masks(root=str(masks), image_size=SIZE, cache="disk", cache_folder=str(tmp_path / "cache"))
    dataset = source.load()
    assert_equal(dataset, Masks(root=str(masks), image_size=SIZE).load())
    assert_equal(source.load(), dataset)
    assert isinstance(dataset.val.masks, np.memmap)


def test_rows_are_taken_by_indices_and_slices_as_from_memory(on_disk: ImageFolder, folder: Path) -> None:
    images, expected = on_disk.load().train.images, ImageFolder(root=str(folder), image_size=SIZE).load().train.images
    indices = np.array([7, 0, 7, 3])
    np.testing.assert_array_equal(images[indices], expected[indices])
    np.testing.assert_array_equal(images[2:5], expected[2:5])
    assert type(images[indices]) is np.ndarray
    assert images[indices].flags.writeable


def test_where_images_are_kept_is_no_part_of_a_source_identity(on_disk: ImageFolder) -> None:
    kept = {"cache", "cache_folder", "max_pixels", "max_shared", "workers"}
    assert kept <= ImageFolder.path_fields & Masks.path_fields & ImageNet.path_fields


def test_a_second_start_reuses_the_cache_and_decodes_nothing(on_disk: ImageFolder, decoded: list[Path]) -> None:
    on_disk.load()
    on_disk.load()
    assert len(decoded) == 1
    assert caches(on_disk) == decoded


def test_touched_added_and_resized_data_get_a_cache_of_their_own(
    on_disk: ImageFolder, folder: Path, decoded: list[Path]
) -> None:
    first = on_disk.load()
    os.utime(folder / "val/dog/0.png", (1, 1))
    assert_equal(on_disk.load(), first)
    Image.new("RGB", (9, 9)).save(folder / "val/dog/9.png")
    assert len(on_disk.load().val) == 7
    ImageFolder(root=str(folder), image_size=4, cache="disk", cache_folder=on_disk.cache_folder).load()
    assert len(decoded) == len(set(decoded)) == 4


def _truncate(cache: Path) -> None:
    path = cache / "train_images.npy"
    os.truncate(path, path.stat().st_size - 1)


def _overwrite(cache: Path) -> None:
    with (cache / "val_images.npy").open("r+b") as file:
        file.seek(200)
        file.write(b"\xff\x00\xff")


def _lose_array(cache: Path) -> None:
    (cache / "val_labels.npy").unlink()


def _lose_description(cache: Path) -> None:
    (cache / "dataset.json").unlink()


def _cut_description(cache: Path) -> None:
    text = (cache / "dataset.json").read_text()
    (cache / "dataset.json").write_text(text[: len(text) // 2])


def _foreign_description(cache: Path) -> None:
    (cache / "dataset.json").write_text(json.dumps([1, 2]))


def _pickled_objects(cache: Path) -> None:
    """Plant an array of objects, and a description that vouches for it."""
    path = cache / "val_labels.npy"
    np.save(path, np.array([print], dtype=object), allow_pickle=True)
    about = json.loads((cache / "dataset.json").read_text())
    about["splits"]["val"]["labels"] = [path.stat().st_size, path.stat().st_mtime_ns]
    (cache / "dataset.json").write_text(json.dumps(about))


@pytest.mark.parametrize(
    "damage",
    [_truncate, _overwrite, _lose_array, _lose_description, _cut_description, _foreign_description, _pickled_objects],
)
def test_a_damaged_cache_is_made_anew(
    damage: Callable[[Path], None], on_disk: ImageFolder, folder: Path, decoded: list[Path]
) -> None:
    on_disk.load()
    damage(caches(on_disk)[0])
    assert_equal(on_disk.load(), ImageFolder(root=str(folder), image_size=SIZE).load())
    on_disk.load()
    assert len(decoded) == 2


def test_what_a_killed_process_left_is_no_hindrance(on_disk: ImageFolder, decoded: list[Path]) -> None:
    on_disk.load()
    cache = caches(on_disk)[0]
    left = cache.rename(cache.with_name(f".{cache.name}"))
    (left / "train_images.npy").write_bytes(b"half")
    on_disk.load()
    assert caches(on_disk) == [cache]
    assert len(decoded) == 2


def test_an_image_that_cannot_be_read_is_named_and_leaves_no_cache(on_disk: ImageFolder, folder: Path) -> None:
    path = folder / "val/cat/1.png"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DataError, match=r"cannot read the image '.*val/cat/1\.png'"):
        on_disk.load()
    assert caches(on_disk) == []


def test_a_full_disk_is_one_message_and_leaves_no_cache(on_disk: ImageFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(array_storage.os, "pwrite", full)
    with pytest.raises(DataError, match=r"data\.cache_folder: '.*cache' cannot be used \(No space left on device\)"):
        on_disk.load()
    assert caches(on_disk) == []


def test_a_cache_folder_that_is_a_file_is_refused(on_disk: ImageFolder) -> None:
    Path(on_disk.cache_folder).touch()
    with pytest.raises(DataError, match=r"data\.cache_folder: '.*cache' cannot be used"):
        on_disk.load()


def _load(source: ImageFolder, barrier: Any, results: Any) -> None:
    barrier.wait()
    dataset = source.load()
    results.put((dataset.fingerprint, int(dataset.train.images.astype(np.int64).sum())))


def test_processes_that_start_at_once_find_the_same_cache(on_disk: ImageFolder, folder: Path) -> None:
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(3), context.Queue()
    processes = [context.Process(target=_load, args=(on_disk, barrier, results)) for _ in range(3)]
    for process in processes:
        process.start()
    found = {results.get(timeout=LIMIT_S) for _ in processes}
    for process in processes:
        process.join()
    expected = ImageFolder(root=str(folder), image_size=SIZE).load()
    assert found == {(expected.fingerprint, int(expected.train.images.astype(np.int64).sum()))}
    assert len(caches(on_disk)) == 1


def test_a_second_process_waits_for_the_first_and_decodes_nothing(
    on_disk: ImageFolder, decoded: list[Path], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "specvit.data")
    started, waiting = threading.Event(), threading.Event()
    make = decoded_cache._make

    def slow(folder: Path, read: Callable[[Any], Dataset]) -> Dataset:
        started.set()
        assert waiting.wait(LIMIT_S)
        return make(folder, read)

    def noticing(message: str, *_: object) -> None:
        if message.startswith("waiting for another process"):
            waiting.set()

    monkeypatch.setattr(decoded_cache, "_make", slow)
    monkeypatch.setattr(decoded_cache.LOGGER, "info", noticing)
    # flock belongs to the open file, so two threads exclude each other as two processes do.
    results: list[Dataset] = []
    threads = [threading.Thread(target=lambda: results.append(on_disk.load())) for _ in range(2)]
    threads[0].start()
    assert started.wait(LIMIT_S)
    threads[1].start()
    for thread in threads:
        thread.join(LIMIT_S)
    assert len(decoded) == 1
    assert_equal(results[0], results[1])


def test_a_mapped_dataset_is_sent_as_the_names_of_its_files(on_disk: ImageFolder) -> None:
    dataset = on_disk.load()
    sent = pickle.dumps(dataset)
    for array in (dataset.train.images, dataset.val.images):
        assert array[0].tobytes() not in sent
    received = pickle.loads(sent)  # noqa: S301
    assert_equal(received, dataset)
    assert isinstance(received.train.images, np.memmap)
    assert_equal(copy.deepcopy(dataset), dataset)


def test_part_of_a_mapped_array_is_sent_as_what_it_holds(on_disk: ImageFolder) -> None:
    train = on_disk.load().train
    part = type(train)(images=train.images[3:6], labels=train.labels)
    received = pickle.loads(pickle.dumps(part))  # noqa: S301
    np.testing.assert_array_equal(received.images, train.images[3:6])


def test_a_worker_that_does_not_find_the_cache_says_so(on_disk: ImageFolder) -> None:
    sent = pickle.dumps(on_disk.load())
    (caches(on_disk)[0] / "train_images.npy").unlink()
    rule = r"train_images\.npy': No such file.*data\.cache_folder must be the same folder"
    with pytest.raises(DataError, match=rule):
        pickle.loads(sent)  # noqa: S301
