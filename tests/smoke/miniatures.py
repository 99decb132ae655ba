"""ImageNet and ADE20K in miniature: laid out as their archives unpack, with photographs as odd as theirs."""

from __future__ import annotations

import io
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image

NUM_CLASSES = 1000
"""Class folders of ImageNet, which the source asks for."""

ADE20K_IMAGES = {"training": 20, "validation": 8}

SIZES = ((96, 72), (72, 96), (80, 80), (47, 33), (130, 40), (200, 150), (33, 120))
"""Widths and heights in pixels; that of 33 is smaller than what probes see."""


def photograph(width: int, height: int, rng: np.random.Generator) -> Image.Image:
    """Return smooth colours with some noise."""
    coarse = Image.fromarray(rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)).resize((width, height), Image.BICUBIC)
    return Image.fromarray(np.clip(np.asarray(coarse) + rng.normal(0, 8, (height, width, 3)), 0, 255).astype(np.uint8))


def encoded(image: Image.Image, kind: str = "JPEG", **options: Any) -> bytes:
    """Return the content of an image's file."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def odd_photographs(rng: np.random.Generator) -> list[bytes]:
    """Return files of each kind that ImageNet has: one of them is a PNG by another name, as there."""
    found = []
    for width, height in SIZES:
        image = photograph(width, height, rng)
        turned = Image.Exif()
        turned[ExifTags.Base.Orientation] = 6
        found += [
            encoded(image, quality=85),
            encoded(image, quality=60, subsampling=0, progressive=True),
            encoded(image.convert("L")),
            encoded(image.convert("CMYK")),
            encoded(image, exif=turned),
        ]
    return [*found, encoded(photograph(60, 44, rng), "PNG")]


def make_imagenet(root: Path, *, num_classes: int = NUM_CLASSES, seed: int = 0) -> None:
    """Write ``root/{train,val}/WNID/*.JPEG``, one image a class and split.

    Few photographs are encoded, and each file ends with bytes of its own: no image to report on may be in training.
    """
    rng = np.random.default_rng(seed)
    number = count()
    for split in ("train", "val"):
        photographs = odd_photographs(rng)
        for name in range(num_classes):
            folder = root / split / f"n{name:08}"
            folder.mkdir(parents=True)
            file, content = next(number), photographs[name % len(photographs)]
            (folder / f"{folder.name}_{file}.JPEG").write_bytes(content + b"%d" % file)


def make_ade20k(root: Path, *, seed: int = 1) -> None:
    """Write ``root/{images,annotations}/{training,validation}``: photographs, and masks of their sizes.

    Masks are greyscale or palette PNGs of a few of the 151 indices, in areas. Photographs are in colour, some grey;
    one has an EXIF orientation and lies as its mask does.
    """
    rng = np.random.default_rng(seed)
    for split, number in ADE20K_IMAGES.items():
        for index, (image, mask) in enumerate(_pairs(number, rng)):
            name = f"ADE_{split}_{index:08}"
            for kind, suffix, content in (("images", "jpg", image), ("annotations", "png", mask)):
                path = root / kind / split / f"{name}.{suffix}"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)


def _pairs(number: int, rng: np.random.Generator) -> Iterator[tuple[bytes, bytes]]:
    for index in range(number):
        width, height = SIZES[index % len(SIZES)]
        image, options = photograph(width, height, rng), {}
        if index % 5 == 3:
            image = image.convert("L")
        if index == 1:
            options["exif"] = Image.Exif()
            options["exif"][ExifTags.Base.Orientation] = 6
        areas = rng.choice([0, 1, 2, 3, 4, 5, 150], (4, 6)).astype(np.uint8)
        mask = Image.fromarray(areas).resize((width, height), Image.NEAREST)
        if index % 2:
            mask.putpalette([value for entry in range(256) for value in (entry, 255 - entry, 7 * entry % 256)])
        yield encoded(image, **options), encoded(mask, "PNG")
