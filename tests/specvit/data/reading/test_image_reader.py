"""Reading many images: what is wrong with them at once, how large they may be, and which way they are turned."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from specvit.data.reading.image_decoding import Header
from specvit.data.reading.image_reader import ImageReader, Orientation
from specvit.errors import DataError

from .test_pixels import encode, photograph

WIDE = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
SQUARE = WIDE[:, :6]


def save(path: Path, pixels: np.ndarray, orientation: int) -> Path:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(path, exif=exif)
    return path


def read_all(reader: ImageReader, paths: list[Path]) -> None:
    reader.map(lambda path: reader.read(path)[1], paths)
    reader.check()


def broken(folder: Path, num: int, of: int) -> list[Path]:
    paths = [folder / f"{index:03}.png" for index in range(of)]
    for index, path in enumerate(paths):
        if index % 2 and index < 2 * num:
            path.touch()
        else:
            Image.new("L", (4, 4)).save(path)
    return paths


def test_one_file_that_cannot_be_read_is_the_whole_message(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^cannot read the image '.*001\.png': its content is not .*$"):
        read_all(ImageReader(), broken(tmp_path, 1, 10))


def test_files_that_cannot_be_read_are_listed_in_their_order(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        read_all(ImageReader(), broken(tmp_path, 3, 50))
    first, *others = str(caught.value).split("\n")
    assert first == "3 images cannot be used:"
    numbers = [line.removeprefix(f"  cannot read the image '{tmp_path}/")[:3] for line in others]
    assert numbers == ["001", "003", "005"]


def test_no_more_than_twenty_files_are_listed(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        read_all(ImageReader(), broken(tmp_path, 25, 50))
    first, *others = str(caught.value).split("\n")
    assert first == "at least 20 images cannot be used:"
    assert len(others) == 20


def test_what_is_wrong_with_two_splits_is_listed_together(tmp_path: Path) -> None:
    reader = ImageReader()
    for path in broken(tmp_path, 2, 4)[1::2]:
        assert reader.map(lambda path: reader.read(path)[1], [path]) == [b""]
    with pytest.raises(DataError, match="2 images cannot be used:"):
        reader.check()


@pytest.mark.parametrize("num_pixels", [150, 60], ids=["Pillow warns", "Pillow raises"])
def test_image_with_more_pixels_than_the_limit_is_refused(num_pixels: int, tmp_path: Path) -> None:
    Image.new("L", (16, 16)).save(tmp_path / "huge.png")
    limit = Image.MAX_IMAGE_PIXELS
    with pytest.raises(DataError, match=rf"huge\.png': it has more than {num_pixels} pixels, .* data\.max_pixels"):
        read_all(ImageReader(max_pixels=num_pixels), [tmp_path / "huge.png"])
    read_all(ImageReader(max_pixels=256), [tmp_path / "huge.png"])
    assert limit == Image.MAX_IMAGE_PIXELS


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", ["png", "webp"])
def test_image_is_turned_as_pillow_turns_it(orientation: int, ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{ending}"
    save(path, np.kron(WIDE, np.ones((8, 8, 1), np.uint8)), orientation)
    with Image.open(path) as image:
        stored, shown = (np.asarray(each.convert("RGB")) for each in (image, ImageOps.exif_transpose(image)))
    for setting, expected in ((None, stored), ("stored", stored), ("shown", shown)):
        read, _ = ImageReader(orientation=setting).read(path)
        np.testing.assert_array_equal(np.asarray(read), expected)


def place(path: Path, size: tuple[int, int] | None, setting: Orientation, *, of_target: int = 1) -> None:
    """Check where a mask lies, by the image and by its header, which must say the same."""
    reader = ImageReader(orientation=setting)
    image, _ = reader.read(path)
    told = []
    for looked in (image, reader.look(path.read_bytes(), str(path))):
        try:
            reader.check_place(looked, "a.png", target="the mask 'm.png'", size=size, orientation=of_target)
        except DataError as error:
            told.append(str(error))
    assert told in ([], told[:1] * 2)
    if told:
        raise DataError(told[0])


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", ["png", "jpg", "webp", "bmp"])
def test_a_header_says_how_large_an_image_is_and_how_it_is_turned(
    orientation: int, ending: str, tmp_path: Path
) -> None:
    path = save(tmp_path / f"a.{ending}", WIDE, orientation)
    content = path.read_bytes()
    with Image.open(path) as image:
        turned = orientation if ending != "bmp" else 1
        shown = ImageOps.exif_transpose(image).size
    for setting, size in ((None, (9, 6)), ("shown", shown)):
        reader = ImageReader(orientation=setting)  # type: ignore[arg-type]
        assert reader.look(content, "a") == reader.look_at_file(path) == Header(size, turned)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP"])
def test_an_image_that_does_not_end_as_a_whole_one_is_refused_by_its_header_too(kind: str, tmp_path: Path) -> None:
    image, reader, path = photograph(), ImageReader(), tmp_path / "a"
    content = encode(image, kind)
    for whole in (content, content + b"what a camera may add"):
        path.write_bytes(whole)
        assert reader.look(whole, "a").size == reader.look_at_file(path).size == image.size
    for part in (b"", content[:10], content[: len(content) // 2]):
        with pytest.raises(DataError) as looked:
            reader.look(part, "a")
        with pytest.raises(DataError) as decoded:
            reader.decode(part, "a")
        path.write_bytes(part)
        with pytest.raises(DataError) as looked_at_file:
            reader.look_at_file(path)
        assert str(looked.value) == str(decoded.value) == str(looked_at_file.value).replace(str(path), "a")


def test_of_a_jpeg_that_ends_as_a_whole_one_only_the_header_is_read(tmp_path: Path) -> None:
    path, reader = tmp_path / "a.jpg", ImageReader()
    content = encode(photograph(200, 100))
    path.write_bytes(content[:700] + bytes(len(content) - 702) + content[-2:])
    assert reader.look_at_file(path).size == (200, 100)
    path.write_bytes(content[:100] + bytes(len(content) - 102) + content[-2:])
    with pytest.raises(DataError, match=rf"cannot read the image '{path}': its content is not JPEG"):
        reader.look_at_file(path)
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"'{path}': it has more than 19999 pixels"):
        ImageReader(max_pixels=19999).look_at_file(path)


def test_a_file_that_is_none_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    for path, reason in ((tmp_path / "pipe.jpg", "Not a regular file"), (tmp_path / "no.jpg", "No such file")):
        with pytest.raises(DataError, match=f"cannot read the image '{path}': {reason}"):
            ImageReader().look_at_file(path)


@pytest.mark.parametrize(("image", "most"), [(Image.new("I;16", (4, 4)), 99), (photograph(), 99)])
def test_what_a_header_shows_to_be_of_no_use_is_refused_as_when_it_is_decoded(image: Image.Image, most: int) -> None:
    content, reader = encode(image, "PNG"), ImageReader(max_pixels=most)
    with pytest.raises(DataError) as looked:
        reader.look(content, "a")
    with pytest.raises(DataError) as decoded:
        reader.decode(content, "a")
    assert str(looked.value) == str(decoded.value)


@pytest.mark.parametrize("orientation", [2, 3, 4, 5, 6, 7, 8])
def test_target_that_fits_both_ways_is_refused_until_the_source_says_which(orientation: int, tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", SQUARE, orientation)
    with pytest.raises(DataError, match=rf"'a\.png' has the EXIF orientation {orientation}, so that the mask 'm\.png'"):
        place(path, (6, 6), None)
    with pytest.raises(DataError, match=r"set data\.orientation to stored, or to shown"):
        place(path, None, None)
    place(path, (6, 6), "stored")
    place(path, (6, 6), "shown")
    place(path, (6, 6), None, of_target=orientation)


def test_target_of_the_stored_size_lies_as_the_image_is_stored(tmp_path: Path) -> None:
    place(save(tmp_path / "a.png", WIDE, 6), (9, 6), None)
    with pytest.raises(DataError, match="EXIF orientation 3"):
        place(save(tmp_path / "b.png", WIDE, 3), (9, 6), None)


def test_sizes_that_differ_by_the_orientation_are_told_of_with_it(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", WIDE, 6)
    message = r"must have the size of its image, 9x6, not 6x9; .* has the EXIF orientation 6, which was not applied"
    with pytest.raises(DataError, match=message):
        place(path, (6, 9), None)
    place(path, (6, 9), "shown")
    with pytest.raises(DataError, match=r"6x9, not 9x6; .* which was applied: see data\.orientation"):
        place(path, (9, 6), "shown")
    with pytest.raises(DataError, match=r"9x6, not 9x7$"):
        place(path, (9, 7), "stored")


def test_image_without_an_orientation_may_have_a_target_anywhere(tmp_path: Path) -> None:
    place(save(tmp_path / "a.png", SQUARE, 1), None, None)
