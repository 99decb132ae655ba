"""Reading and resizing single files, and hashing many."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from specvit.data.reading.image_files import (
    crop_to_square,
    existing_root,
    fingerprint,
    list_images,
    squash_mask,
    squash_to_square,
)
from specvit.data.reading.image_reader import ImageReader
from specvit.errors import DataError


def _grey_png(path: Path, *, bits: int, row: bytes) -> None:
    """Write a greyscale PNG of one row, from the PNG specification."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", len(row) * 8 // bits, 1, bits, 0, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" + row)) + chunk(b"IEND", b"")
    )


def test_list_images_takes_known_endings_in_any_case_and_passes_over_the_rest(tmp_path: Path) -> None:
    images = ["a.png", "b.JPG", "c.Jpeg", "d.webp", "e.bmp"]
    for name in (*reversed(images), ".DS_Store", "Thumbs.db", "notes.txt", "._a.png", "f.gif"):
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    assert [path.name for path in list_images(tmp_path)] == images


def test_root_with_tilde_and_relative_root_are_resolved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "set").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert existing_root("~/set") == tmp_path / "set"
    assert existing_root("set") == tmp_path / "set"


@pytest.mark.parametrize("root", ["", "  ", "missing", "~nobody-of-that-name/set"])
def test_root_that_is_no_folder_is_refused_by_name(root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=rf"data\.root: .*{root.strip()}"):
        existing_root(root)


def test_root_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"no folder '.*file'"):
        existing_root(str(tmp_path / "file"))


@pytest.mark.parametrize("mode", ["L", "P", "1", "LA", "RGBA", "CMYK"])
def test_image_of_any_8_bit_mode_becomes_rgb(mode: str, tmp_path: Path) -> None:
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    Image.new("RGB", (5, 4), (255, 255, 255)).convert(mode).save(path)
    image, _ = ImageReader().read(path)
    assert image.mode == "RGB"
    assert image.size == (5, 4)
    assert set(image.tobytes()) == {255}


def test_image_with_16_bits_a_channel_is_refused(tmp_path: Path) -> None:
    Image.fromarray(np.full((4, 4), 1000, dtype=np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(DataError, match=r"deep\.png' must have 8 bits a channel, not mode 'I;16'"):
        ImageReader().read(tmp_path / "deep.png")


@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "bmp"])
def test_truncated_image_is_refused_by_name(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"cut.{ending}"
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError, match=rf"cannot read the image '.*cut\.{ending}'"):
        ImageReader().read(path)


@pytest.mark.parametrize("content", [b"", b"no image at all", b"\x89PNG\r\n\x1a\n"])
def test_file_that_is_no_image_is_refused_by_name(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "fake.png").write_bytes(content)
    with pytest.raises(DataError, match=r"cannot read the image '.*fake\.png'"):
        ImageReader().read(tmp_path / "fake.png")


def test_link_to_itself_is_refused_and_does_not_hang(tmp_path: Path) -> None:
    loop = tmp_path / "loop.png"
    loop.symlink_to(loop)
    assert list_images(tmp_path) == [loop]
    with pytest.raises(DataError, match=r"loop\.png': Too many levels of symbolic links"):
        ImageReader().read(loop)


@pytest.mark.parametrize(("height", "width"), [(8, 24), (24, 8)])
def test_crop_equals_resizing_the_shorter_side_and_cutting_out_the_centre(height: int, width: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    whole = np.asarray(Image.fromarray(pixels).resize((width // 2, height // 2), Image.Resampling.BILINEAR))
    centre = whole[:, 4:8] if width > height else whole[4:8]
    cropped = crop_to_square(Image.fromarray(pixels), 4)
    np.testing.assert_allclose(cropped, centre.transpose(2, 0, 1), atol=1)


def test_crop_of_a_square_at_its_own_size_changes_nothing() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    np.testing.assert_array_equal(crop_to_square(Image.fromarray(pixels), 9), pixels.transpose(2, 0, 1))


def test_squash_averages_the_pixels_it_joins() -> None:
    # A checkerboard of single pixels is grey once it is antialiased.
    board = (np.indices((32, 64)).sum(axis=0) % 2 * 255).astype(np.uint8)
    squashed = squash_to_square(Image.fromarray(board).convert("RGB"), 4)
    assert squashed.shape == (3, 4, 4)
    assert np.abs(squashed.astype(float) - 127.5).max() < 4


def test_mask_is_squashed_to_existing_indices_of_the_same_places() -> None:
    mask = np.repeat(np.repeat(np.array([[1, 7], [255, 3]], dtype=np.uint8), 6, axis=0), 20, axis=1)
    expected = np.repeat(np.repeat(np.array([[1, 7], [255, 3]], dtype=np.uint8), 2, axis=0), 2, axis=1)
    np.testing.assert_array_equal(squash_mask(Image.fromarray(mask), 4), expected)


def test_mask_in_a_palette_of_few_colours_keeps_its_indices(tmp_path: Path) -> None:
    mask = Image.fromarray(np.array([[0, 1], [2, 3]], dtype=np.uint8), mode="P")
    mask.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0, 255])
    mask.save(tmp_path / "m.png", bits=2)
    read, _ = ImageReader().read(tmp_path / "m.png", mask=True)
    np.testing.assert_array_equal(np.asarray(read), [[0, 1], [2, 3]])


@pytest.mark.parametrize(("bits", "mode"), [(1, "1"), (2, "L"), (4, "L"), (16, "I;16")])
def test_greyscale_mask_of_other_than_8_bits_is_refused(bits: int, mode: str, tmp_path: Path) -> None:
    _grey_png(tmp_path / "m.png", bits=bits, row=b"\x12\x30")
    rule = r"m\.png' must be an 8-bit PNG with one channel \(greyscale or palette\)"
    with pytest.raises(DataError, match=f"{rule}, not mode '{mode}' with {bits} bits"):
        ImageReader().read(tmp_path / "m.png", mask=True)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA"])
def test_mask_with_several_channels_is_refused(mode: str, tmp_path: Path) -> None:
    Image.new(mode, (4, 4)).save(tmp_path / "m.png")
    with pytest.raises(DataError, match=rf"m\.png' must be .* not mode '{mode}' with 8 bits"):
        ImageReader().read(tmp_path / "m.png", mask=True)


def test_fingerprint_tells_names_and_contents_apart(tmp_path: Path) -> None:
    one, other = tmp_path / "a" / "1.png", tmp_path / "a" / "2.png"
    x, y = b"x" * 32, b"y" * 32
    sets = ([(one, x)], [(other, x)], [(one, y)], [(one, x), (other, x)])
    values = {fingerprint(tmp_path, files) for files in sets}
    assert len(values) == 4
    assert all(len(value) == 16 and int(value, 16) >= 0 for value in values)


def test_fingerprint_does_not_depend_on_where_the_root_lies() -> None:
    assert fingerprint(Path("/a"), [(Path("/a/x"), b"1")]) == fingerprint(Path("/b/c"), [(Path("/b/c/x"), b"1")])
