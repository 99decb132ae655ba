"""Images that are in both splits: found under any name, by their content alone."""

from __future__ import annotations

import io
import os
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from specvit.data.encoded import EncodedImages
from specvit.data.reading import shared_images
from specvit.data.reading.image_decoding import decode
from specvit.data.reading.shared_images import Encoded, check_unshared
from specvit.data.sources.image_folder import ImageFolder
from specvit.data.sources.webdataset import WebDatasetShards
from specvit.errors import DataError

from .test_pixels import encode, photograph

LONG = 3 * 4096


def check(root: Path, most: int = 0, **options: Any) -> None:
    train, val = ([Encoded.of_file(path) for path in sorted((root / split).iterdir())] for split in ("train", "val"))
    check_unshared(train, val, most=most, **options)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Write files of equal lengths: some differ at their ends, some in front of them."""
    for number, split in enumerate(("train", "val")):
        (tmp_path / split).mkdir()
        for name in "abc":
            content = bytearray(LONG)
            content[0], content[-1] = ord(name) + 10 * number, ord(name)
            (tmp_path / split / name).write_bytes(content)
    return tmp_path


def test_files_of_one_length_that_differ_anywhere_are_not_shared(root: Path) -> None:
    check(root)


@pytest.mark.parametrize("share", [os.symlink, os.link, shutil.copy])
def test_a_file_under_another_name_is_shared(share: object, root: Path) -> None:
    share(root / "train" / "b", root / "val" / "other")  # type: ignore[operator]
    with pytest.raises(DataError, match=r"1 of 4 images .* the first '.*val/other', which is '.*train/b': metrics"):
        check(root)
    check(root, most=1)


def test_folder_that_is_a_link_shares_every_file(root: Path) -> None:
    shutil.rmtree(root / "val")
    (root / "val").symlink_to("train")
    with pytest.raises(DataError, match=r"3 of 3 images .* '.*val/a', which is '.*train/a': .*at most 2 may be"):
        check(root, most=2)


def test_empty_and_missing_files_are_left_to_whoever_reads_them(root: Path) -> None:
    for split in ("train", "val"):
        (root / split / "empty").touch()
        (root / split / "lost").symlink_to(root / "nowhere")
    check(root)


def test_only_files_of_one_length_are_opened(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "val" / "longer").write_bytes(bytes(LONG + 1))
    (root / "train" / "shorter").write_bytes(bytes(LONG - 1))
    opened: list[str] = []
    real = shared_images.open_regular

    def spy(path: Path, flags: int) -> int:
        opened.append(path.name)
        return real(path, flags)

    monkeypatch.setattr(shared_images, "open_regular", spy)
    check(root)
    assert set(opened) == {"a", "b", "c"}


def test_what_cannot_be_decoded_is_not_reported_on_where_bad_images_are_left_out(root: Path) -> None:
    page, image = b"not found", encode(photograph())
    for split in ("train", "val"):
        (root / split / "page.jpg").write_bytes(page)
        (root / split / "image.jpg").write_bytes(image)
    with pytest.raises(DataError, match="2 of 5 images"):
        check(root)
    with pytest.raises(DataError, match=r"1 of 5 images .* the first '.*val/image\.jpg'"):
        check(root, decode=decode)
    check(root, most=1, decode=decode)


def test_bad_images_that_are_skipped_may_be_in_both_splits_of_files_and_of_shards(tmp_path: Path) -> None:
    contents = {"train": [b"not found", *(encode(photograph(seed=seed)) for seed in range(2))]}
    contents["val"] = [b"not found", *(encode(photograph(seed=seed)) for seed in range(2, 4))]
    for split, images in contents.items():
        (tmp_path / split / "all").mkdir(parents=True)
        with tarfile.open(tmp_path / f"{split}.tar", "w") as shard:
            for number, content in enumerate(images):
                (tmp_path / split / "all" / f"{number}.jpg").write_bytes(content)
                for ending, part in (("jpg", content), ("cls", b"0")):
                    entry = tarfile.TarInfo(f"{number}.{ending}")
                    entry.size = len(part)
                    shard.addfile(entry, io.BytesIO(part))
    keep = {"root": str(tmp_path), "keep": "encoded"}
    for source in (ImageFolder(**keep), WebDatasetShards(train="train.tar", val="val.tar", **keep)):
        with pytest.raises(DataError, match="1 of 3 images to report on are training images"):
            source.load()
        images = replace(source, on_bad_image="skip").load().val.images
        assert isinstance(images, EncodedImages)
        images[:]
        assert len(images.skipped) == 1
