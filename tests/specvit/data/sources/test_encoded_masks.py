"""Images with masks that keep their aspect: central squares, and masks at the resolution of their files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional

from specvit.data import Dataset
from specvit.data.encoded import EncodedImages
from specvit.data.sources.masks import Masks
from specvit.errors import DataError
from specvit.probes.base import ProbeSplit
from specvit.probes.segmentation.base import Segmenter, score

from ..reading.test_pixels import encode, photograph

SIZES = ((48, 30), (30, 48), (32, 32), (70, 20))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Write four images a split, each with a mask of three classes, the class 0 ignored where asked."""
    for number, (width, height) in enumerate([*SIZES, *SIZES]):
        split = "train" if number < 4 else "val"
        for kind in ("images", "masks"):
            (tmp_path / kind / split).mkdir(parents=True, exist_ok=True)
        content = encode(photograph(width, height, seed=number))
        (tmp_path / "images" / split / f"{number}.jpg").write_bytes(content)
        mask = np.random.default_rng(number).integers(0, 3, (height, width), dtype=np.uint8)
        Image.fromarray(mask).save(tmp_path / "masks" / split / f"{number}.png")
    return tmp_path


def load(root: Path, **fields: Any) -> Dataset:
    return Masks(root=str(root), image_size=16, keep="encoded", **fields).load()


def middle(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    side = min(array.shape[:2])
    top, left = (array.shape[0] - side) // 2, (array.shape[1] - side) // 2
    return array[top : top + side, left : left + side]


def test_masks_are_the_middles_of_the_files_resized_and_at_their_own_size(root: Path) -> None:
    val = load(root, probe_size=24).val
    assert isinstance(val.images, EncodedImages)
    assert val.image_size == 16
    assert val.images.shape == (4, 3, 24, 24)
    assert val.masks is not None
    assert val.masks.shape == (4, 24, 24)
    for index, path in enumerate(sorted((root / "masks" / "val").iterdir())):
        mask = middle(np.asarray(Image.open(path)))
        np.testing.assert_array_equal(val.images.own["masks"][index], mask)
        resized = np.asarray(Image.fromarray(mask).resize((24, 24), Image.Resampling.NEAREST))
        np.testing.assert_array_equal(val.masks[index], resized)
    taken = val.take(np.array([3, 0]))
    assert isinstance(taken.images, EncodedImages)
    np.testing.assert_array_equal(taken.images.own["masks"][0], val.images.own["masks"][3])


def test_indices_become_classes_at_either_size(root: Path) -> None:
    plain, without_zero = load(root).val, load(root, ignore_zero=True).val
    assert isinstance(plain.images, EncodedImages)
    assert isinstance(without_zero.images, EncodedImages)
    own = plain.images.own["masks"][1], without_zero.images.own["masks"][1]
    for one, other in ((plain.masks, without_zero.masks), own):
        assert one is not None
        np.testing.assert_array_equal(np.where(one == 0, 255, one - 1), other)


def test_a_mask_that_is_gone_is_named(root: Path) -> None:
    images = load(root).val.images
    assert isinstance(images, EncodedImages)
    path = root / "masks" / "val" / "5.png"
    path.unlink()
    with pytest.raises(DataError, match=str(path)):
        images.own["masks"][1]


def test_of_a_mask_that_is_gone_no_pixel_counts_where_bad_images_are_skipped(root: Path) -> None:
    images = load(root, on_bad_image="skip").val.images
    assert isinstance(images, EncodedImages)
    path = root / "masks" / "val" / "5.png"
    path.unlink()
    own = images.take(np.array([3, 1])).own["masks"]
    assert own[1].tolist() == [[255]]
    assert list(images.skipped) == [str(path)]
    assert own[0].shape == (20, 20)


def test_where_bad_images_are_skipped_a_pair_that_cannot_be_read_makes_room_for_the_one_that_follows(
    root: Path,
) -> None:
    whole = load(root, on_bad_image="skip")
    image, mask = root / "images" / "train" / "0.jpg", root / "masks" / "train" / "2.png"
    image.write_bytes(image.read_bytes()[:100])
    Image.fromarray(np.zeros((32, 32), np.uint16)).save(mask)
    with pytest.raises(DataError, match="2 images cannot be used:") as error:
        load(root)
    assert str(image) in str(error.value)
    assert str(mask) in str(error.value)
    data = load(root, on_bad_image="skip")
    pixels, used = data.train.read(slice(None))
    assert used.tolist() == [1, 1, 3, 3]
    np.testing.assert_array_equal(pixels, whole.train.read(np.array([1, 1, 3, 3]))[0])
    assert whole.train.masks is not None
    assert data.train.masks is not None
    np.testing.assert_array_equal(data.train.masks[[1, 3]], whole.train.masks[[1, 3]])
    assert (data.train.masks[[0, 2]] == 255).all()
    assert isinstance(data.train.images, EncodedImages)
    assert set(data.train.images.skipped) == {str(root / "images" / "train" / name) for name in ("0.jpg", "2.jpg")}
    assert str(mask) in data.train.images.skipped[str(root / "images" / "train" / "2.jpg")]
    assert data.train.take(np.array([3, 2])).read(slice(None))[1].tolist() == [0, 0]
    assert data.fingerprint != whole.fingerprint


def test_an_image_that_is_damaged_between_header_and_end_is_found_when_it_is_used(root: Path) -> None:
    path = root / "images" / "val" / "5.jpg"
    content = bytearray(encode(photograph(30, 48, seed=5), "PNG"))
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"cannot read the image '{path}'"):
        load(root).val.read(slice(None))
    val = load(root, on_bad_image="skip").val
    assert isinstance(val.images, EncodedImages)
    assert val.images.known_bad == {}
    assert val.read(slice(None))[1].tolist() == [0, 2, 2, 3]
    assert set(val.images.skipped) == {str(path)}


def test_masks_and_images_of_more_pixels_than_allowed_are_refused(root: Path) -> None:
    with pytest.raises(DataError, match=r"8 images cannot be used:(\n.*more than 900 pixels.*){8}"):
        load(root, max_pixels=900)


class Known(Segmenter):
    """Predict what it is given."""

    def __init__(self, predictions: torch.Tensor) -> None:
        self.predictions = predictions

    def predict(self, part: ProbeSplit, images: torch.Tensor) -> Any:  # noqa: ARG002
        yield self.predictions[images]


def test_segmentations_are_scored_at_the_size_of_the_masks_files(root: Path) -> None:
    val = load(root).val
    assert isinstance(val.images, EncodedImages)
    assert val.masks is not None
    predictions = torch.from_numpy(np.random.default_rng(0).integers(0, 3, (4, 16, 16)))
    part = ProbeSplit(
        cls=torch.zeros(4, 1),
        patches=torch.zeros(4, 16, 1),
        grid=(4, 4),
        labels=None,
        masks=torch.from_numpy(val.masks.copy()),
        own=val.images.own,
    )
    (miou,) = score(Known(predictions), part, torch.arange(4), num_classes=3)
    intersection, union = np.zeros(3), np.zeros(3)
    for image in range(4):
        truth = val.images.own["masks"][image]
        given = predictions[image][None, None].double()
        predicted = functional.interpolate(given, size=truth.shape, mode="nearest-exact")
        for name in range(3):
            one, other = truth == name, predicted[0, 0].numpy() == name
            intersection[name] += (one & other).sum()
            union[name] += (one | other).sum()
    assert miou == pytest.approx(100 * (intersection / union).mean(), abs=1e-9)
    (of_taken,) = score(Known(predictions[2:]), part.subset(torch.tensor([2, 3])), torch.arange(2), num_classes=3)
    assert of_taken != miou
