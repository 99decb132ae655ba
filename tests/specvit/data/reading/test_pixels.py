"""Pixels of encoded images: those of Pillow, whatever decodes them, or a message that names the image."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from specvit.data.reading import pixels
from specvit.data.reading.image_decoding import limit_pixels
from specvit.data.reading.pixels import decode_pixels
from specvit.errors import DataError


def photograph(width: int = 61, height: int = 43, *, seed: int = 0) -> Image.Image:
    """Return smooth colours with some noise, which JPEG neither keeps exactly nor blurs away."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)).resize((width, height), Image.BICUBIC)
    return Image.fromarray(np.clip(np.asarray(coarse) + rng.normal(0, 8, (height, width, 3)), 0, 255).astype(np.uint8))


def encode(image: Image.Image, kind: str = "JPEG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@pytest.fixture(params=["simplejpeg", "Pillow alone"])
def decoder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Decode with both packages, or as where the faster one is not installed."""
    if request.param == "Pillow alone":
        monkeypatch.setattr(pixels, "faster_decoder", lambda: None)
    return str(request.param)


@pytest.mark.parametrize(
    "content",
    [
        *(encode(photograph(), quality=q, subsampling=s) for q in (50, 95) for s in (0, 1, 2)),
        encode(photograph(), progressive=True),
        encode(photograph().convert("L")),
        encode(photograph().convert("CMYK")),
        encode(photograph(), "PNG"),
        encode(photograph().convert("P"), "PNG"),
        encode(photograph().convert("RGBA"), "PNG"),
        encode(photograph(1, 1)),
        encode(photograph()) + b"what a camera may add",
    ],
)
def test_pixels_are_pillows_bit_for_bit(content: bytes, decoder: str) -> None:
    expected = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
    np.testing.assert_array_equal(decode_pixels(content, "it"), expected)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_exif_orientation_is_applied_where_images_are_shown_and_only_there(orientation: int, decoder: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encode(photograph(), exif=exif)
    stored = Image.open(io.BytesIO(content))
    np.testing.assert_array_equal(decode_pixels(content, "it"), np.asarray(stored))
    turned = np.asarray(ImageOps.exif_transpose(stored))
    np.testing.assert_array_equal(decode_pixels(content, "it", shown=True), turned)


def test_an_orientation_that_xmp_alone_tells_is_applied_as_pillow_does(decoder: str) -> None:
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    content = encode(photograph(), xmp=xmp)
    turned = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(content))))
    assert turned.shape == (61, 43, 3)
    np.testing.assert_array_equal(decode_pixels(content, "it", shown=True), turned)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (encode(photograph())[:700], "truncated"),
        (b"\xff\xd8nothing", "cannot read"),
        (b"", "content is not JPEG"),
        (encode(Image.fromarray(np.arange(64, dtype=np.uint16).reshape(8, 8)), "PNG"), "8 bits a channel"),
    ],
    ids=["cut off", "no JPEG", "empty", "16 bits"],
)
def test_an_image_that_cannot_be_decoded_is_named(content: bytes, reason: str, decoder: str) -> None:
    with pytest.raises(DataError, match=reason) as error:
        decode_pixels(content, "n01440764/one.JPEG")
    assert "'n01440764/one.JPEG'" in str(error.value)


def test_an_image_of_more_pixels_than_allowed_is_refused_before_it_is_decoded(decoder: str) -> None:
    content = encode(photograph(50, 40))
    with limit_pixels(900):  # of another source, whose images are decoded at the same time
        assert decode_pixels(content, "it", max_pixels=2000).shape == (40, 50, 3)
    with limit_pixels(2000), pytest.raises(DataError, match=r"'it'.* more than 900 pixels"):
        decode_pixels(content, "it", max_pixels=900)


def test_pillow_opens_what_the_largest_limit_in_use_allows(decoder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    content = encode(photograph(50, 40), "PNG")
    with limit_pixels(2000), limit_pixels(900):
        assert decode_pixels(content, "it", max_pixels=2000).shape == (40, 50, 3)
    with pytest.raises(DataError, match="more than 2000 pixels"):
        decode_pixels(content, "it", max_pixels=2000)  # four times Pillow's limit
