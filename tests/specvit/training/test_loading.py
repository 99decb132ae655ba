"""Batches of encoded images: crops of the files' own pixels, the same however many threads cut them, and when."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as tv

from specvit.data import Dataset, Split
from specvit.data.encoded import Decoding, EncodedImages
from specvit.data.own_targets import OwnMasks
from specvit.data.places import Places
from specvit.errors import DataError
from specvit.models.config import VitConfig
from specvit.models.vit import build_vit
from specvit.recipes import Recipe
from specvit.recipes.build import build_learner
from specvit.recipes.mae.settings import MaeCpu
from specvit.training import collectives
from specvit.training.checkpoint import Checkpoint
from specvit.training.crops import CropDraws, draw_crops, sample_boxes
from specvit.training.learner import Batch, Learner
from specvit.training.loading import batch_loader
from specvit.training.loop import StepReport, batches, pretrain
from specvit.training.measuring import LossMeasurement

from ..data.reading.test_pixels import encode, photograph
from .small_runs import CPU, DEIT, DINO, SCALE, SHORT

SIZES = ((61, 43), (30, 70), (50, 50), (24, 90), (33, 32), (80, 40))
MAE = MaeCpu(**SHORT)
RECIPES = pytest.mark.parametrize("recipe", [DINO, DEIT, MAE], ids=["dinov2", "deit3", "mae"])
SEED = 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write 20 photographs of six sizes, JPEGs but for every fifth."""
    folder = tmp_path_factory.mktemp("photographs")
    for number in range(20):
        kind = "PNG" if number % 5 == 4 else "JPEG"
        image = photograph(*SIZES[number % len(SIZES)], seed=number)
        (folder / f"{number:02}").write_bytes(encode(image, kind))
    return folder


def make_split(folder: Path, **decoding: Any) -> Split:
    places = Places.of_files(sorted(folder.iterdir()))
    return Split(images=EncodedImages(places, 16, Decoding(**decoding)), labels=np.arange(20) % 4)


def make_learner(recipe: Recipe, split: Split) -> Learner:
    data = Dataset(train=split, val=split, class_names=tuple("abcd"), mask_names=tuple("xyz"), fingerprint="")
    backbone = build_vit(VitConfig(SCALE, image_size=16, patch_size=4, cls_position=recipe.cls_position))
    return build_learner(recipe, backbone, data, seed=SEED)


def load(recipe: Recipe, split: Split, step: int) -> Batch:
    order = batches(len(split), batch_size=recipe.batch_size, seed=SEED, start=step)
    with batch_loader(make_learner(recipe, split), split, recipe, seed=SEED, device=CPU) as loader:
        return loader.load(step, next(order))


@pytest.mark.parametrize(("height", "width"), [(375, 500), (40, 31), (7, 400)])
def test_boxes_of_many_images_at_once_are_those_of_one_by_one_and_those_of_images_in_memory(
    height: int, width: int
) -> None:
    draws = draw_crops(200, scale=(0.05, 1.0), generator=torch.Generator().manual_seed(1))
    together = draws.boxes(height=height, width=width)
    for row in range(200):
        one = CropDraws(draws.share[row : row + 1], draws.ratio[row : row + 1], draws.corner[row : row + 1])
        np.testing.assert_array_equal(one.boxes(height=height, width=width)[0], together[row])
    generator = torch.Generator().manual_seed(1)
    in_memory = sample_boxes(200, height=height, width=width, scale=(0.05, 1.0), generator=generator)
    np.testing.assert_allclose(in_memory.numpy(), together, atol=1)  # torch's root may be a last bit off


@RECIPES
def test_crops_are_torchvisions_of_the_drawn_boxes_at_the_files_own_resolution(recipe: Recipe, folder: Path) -> None:
    split = make_split(folder)
    batch = load(recipe, split, step=2)
    indices = next(batches(20, batch_size=recipe.batch_size, seed=SEED, start=2))
    crops = make_learner(recipe, split).crops
    assert set(batch.crops) == {crop.name for crop in crops}
    assert batch.images.shape == (recipe.batch_size, 3, 0, 0)
    assert batch.labels is not None
    assert batch.labels.tolist() == (indices % 4).tolist()
    paths = sorted(folder.iterdir())
    for crop in crops:
        draws = draw_crops(recipe.batch_size, scale=crop.scale, generator=batch.stream(crop.name))
        for row, index in enumerate(indices):
            image = Image.open(paths[index]).convert("RGB")
            top, left, height, width = draws.boxes(height=image.height, width=image.width)[row].tolist()
            size = [crop.size, crop.size]
            pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
            expected = tv.resized_crop(
                pixels, top, left, height, width, size, interpolation=InterpolationMode.BICUBIC, antialias=True
            )
            torch.testing.assert_close(batch.crops[crop.name][row], expected, rtol=0, atol=0)
            box = (left, top, left + width, top + height)
            pillow = np.asarray(image.crop(box).resize((crop.size, crop.size), Image.Resampling.BICUBIC))
            assert np.abs(pillow.transpose(2, 0, 1) - batch.crops[crop.name][row].numpy().astype(int)).max() <= 1


@RECIPES
def test_views_are_those_of_images_in_memory_where_files_have_the_crops_size_and_are_kept_whole(
    recipe: Recipe, tmp_path: Path
) -> None:
    for number in range(20):
        (tmp_path / f"{number:02}").write_bytes(encode(photograph(16, 16, seed=number), "PNG"))
    encoded = make_split(tmp_path)
    decoded = dataclasses.replace(encoded, images=encoded.images[:])
    first, second = (make_learner(recipe, split).draw(load(recipe, split, 1)) for split in (encoded, decoded))  # type: ignore[attr-defined]
    for name in (field.name for field in dataclasses.fields(first)):
        one, other = getattr(first, name), getattr(second, name)
        if isinstance(one, torch.Tensor) and one.is_floating_point():
            # A rounding to 8 bits, which a blur evens out and the standard deviation of a colour makes larger.
            assert (one - other).abs().max() < 8 / 255 / 0.224
            assert (one - other).abs().mean() < 1 / 255 / 0.224


def run(
    recipe: Recipe, split: Split, *, checkpoint: Checkpoint | None = None, stop: int | None = None
) -> tuple[list[float], dict[str, torch.Tensor]]:
    learner = make_learner(recipe, split)
    losses: list[float] = []

    def note(report: StepReport) -> bool:
        losses.append(report.loss)
        return report.step == stop

    pretrain(learner, recipe, split, seed=SEED, device=CPU, after_step=note, checkpoint=checkpoint)
    losses += LossMeasurement(learner, recipe, split, seed=SEED, device=CPU).measure(step=len(losses)).values()
    return losses, learner.state_dict()


@RECIPES
def test_the_number_of_threads_changes_no_bit_of_a_run(recipe: Recipe, folder: Path) -> None:
    losses, weights = run(recipe, make_split(folder, workers=1))
    again, same = run(recipe, make_split(folder, workers=5))
    assert losses == again
    assert all(torch.equal(weights[name], same[name]) for name in weights)


def test_a_run_that_resumes_has_the_losses_of_one_that_was_not_stopped(folder: Path, tmp_path: Path) -> None:
    split = make_split(folder)
    losses, weights = run(DINO, split)
    checkpoint = Checkpoint(tmp_path / "state", identity="it", every_steps=1, at_stop=lambda: True)
    before, _ = run(DINO, split, checkpoint=checkpoint, stop=2)
    after, same = run(DINO, split, checkpoint=checkpoint)
    assert before[:2] + after[:2] == losses[:4]
    assert all(torch.equal(weights[name], same[name]) for name in weights)


def test_the_next_step_is_cut_while_one_is_computed(folder: Path) -> None:
    split = make_split(folder, workers=1)
    order: Iterator[Any] = batches(20, batch_size=DEIT.batch_size, seed=SEED)
    first, second = next(order), next(order)
    with batch_loader(make_learner(DEIT, split), split, DEIT, seed=SEED, device=CPU) as loader:
        loader.prepare(1, second)
        ahead = loader.load(1, second)
        loader.prepare(1, second)
        other = loader.load(0, first)  # not the step that was prepared
        late = loader.load(1, second)
    assert torch.equal(ahead.crops["crops"], late.crops["crops"])
    assert not torch.equal(other.crops["crops"], late.crops["crops"])


def test_a_damaged_image_in_the_middle_of_a_run_ends_it_with_its_name_or_is_left_out(
    folder: Path, tmp_path: Path
) -> None:
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    bad = tmp_path / f"{next(batches(20, batch_size=8, seed=SEED, start=2))[5]:02}"
    bad.write_bytes(bad.read_bytes()[:300])
    with pytest.raises(DataError, match=r"\(on_bad_image: skip") as error:
        run(DEIT, make_split(tmp_path))
    assert str(bad) in str(error.value)
    split = make_split(tmp_path, on_bad_image="skip")
    run(DEIT, split)
    assert isinstance(split.images, EncodedImages)
    assert list(split.images.skipped) == [str(bad)]
    following = (int(bad.name) + 1) % 20
    batch = load(DEIT, split, step=2)
    assert batch.labels is not None
    assert batch.labels[5] == following % 4


def test_the_main_process_knows_which_images_others_have_left_out(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[set[str]] = []

    def union(own: set[str]) -> set[str]:
        told.append(own)
        return own | {"of another"}

    split = make_split(folder, on_bad_image="skip")
    assert isinstance(split.images, EncodedImages)
    split.images.skipped["own"] = "damaged"
    monkeypatch.setattr(collectives, "num_processes", lambda: 4)
    monkeypatch.setattr(collectives, "rank", lambda: 0)
    monkeypatch.setattr(collectives, "union", union)
    order = batches(20, batch_size=8, seed=SEED)
    with batch_loader(make_learner(DEIT, split), split, DEIT, seed=SEED, device=CPU) as loader:
        for step in (0, 1):
            loader.load(step, next(order))
    assert told == [{"own"}, set()]  # nothing is told twice
    assert set(split.images.skipped) == {"own", "of another"}


@RECIPES
@pytest.mark.parametrize("rank", [0, 1, 3])
def test_of_several_processes_each_cuts_what_it_learns_from_and_sees_it_as_one_process_does(
    recipe: Recipe, rank: int, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    split = make_split(folder)
    assert isinstance(split.images, EncodedImages)
    learner: Any = make_learner(recipe, split)
    whole = learner.draw(load(recipe, split, 1))
    monkeypatch.setattr(collectives, "num_processes", lambda: 4)
    monkeypatch.setattr(collectives, "rank", lambda: rank)
    batch = load(recipe, split, 1)
    own = list(range(8))[collectives.own_slice(8)]
    assert batch.held is not None
    # DeiT-III mixes an image with its mirror in the batch.
    needed = sorted({*own, *(7 - row for row in own)} if recipe is DEIT else own)
    assert batch.held.rows.tolist() == needed
    assert all(len(pixels) == len(needed) for pixels in batch.crops.values())
    part = learner.draw(batch)
    for field in dataclasses.fields(part):
        one, other = getattr(part, field.name), getattr(whole, field.name)
        if isinstance(one, torch.Tensor):
            assert one.shape == other.shape
            views = (view.view(-1, 8, *view.shape[1:])[:, own] for view in (one, other))
            torch.testing.assert_close(*views, rtol=0, atol=1e-5)


def test_a_learner_that_names_no_crops_gets_squares(folder: Path) -> None:
    split = make_split(folder)
    learner = make_learner(DEIT, split)
    learner.crops = ()
    with batch_loader(learner, split, DEIT, seed=SEED, device=CPU) as loader:
        batch = loader.load(0, np.arange(8))
    torch.testing.assert_close(batch.images, torch.from_numpy(split.images[:8]) / 255)
    assert not batch.crops


@pytest.mark.parametrize("probe_size", [None, 24], ids=["probes see that size", "probes see another one"])
def test_masks_that_are_learnt_from_have_the_size_of_the_images_that_are(
    folder: Path, tmp_path: Path, probe_size: int | None
) -> None:
    masks, paths = [], sorted(folder.iterdir())
    for number, path in enumerate(paths):
        with Image.open(path) as image:
            shape, side = image.size[::-1], min(image.size)
        mask = np.random.default_rng(number).integers(0, 3, shape, np.uint8)
        (tmp_path / path.name).write_bytes(encode(Image.fromarray(mask), "PNG"))
        top, left = (shape[0] - side) // 2, (shape[1] - side) // 2
        masks.append(Image.fromarray(mask[top : top + side, left : left + side]))

    def resized(size: int) -> np.ndarray[Any, Any]:
        return np.stack([np.asarray(mask.resize((size, size), Image.Resampling.NEAREST)) for mask in masks])

    own = {"masks": OwnMasks(Places.of_files([tmp_path / path.name for path in paths]))}
    images = EncodedImages(Places.of_files(paths), 16, probe_size=probe_size, own=own)
    split = Split(images=images, labels=np.arange(20) % 4, masks=resized(probe_size or 16))
    recipe = dataclasses.replace(DEIT, dense_weight=0.5)
    batch = load(recipe, split, step=1)
    assert batch.images.shape == (recipe.batch_size, 3, 16, 16)
    assert batch.masks is not None
    drawn = next(batches(20, batch_size=recipe.batch_size, seed=SEED, start=1))
    np.testing.assert_array_equal(batch.masks, resized(16)[drawn])
