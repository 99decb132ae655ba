"""How fast crops are cut from JPEGs: beside a bare loop of the fastest decoder, and torchvision's own pipeline.

Run by ``make bench``; nothing here asserts a time, since machines differ. Times are of one core's work
(``time.process_time``), which other programs on the machine disturb less, but for those of several threads.
"""

from __future__ import annotations

import hashlib
import os
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms import v2 as tv

from specvit.data import Dataset, Split
from specvit.data.encoded import Decoding, EncodedImages
from specvit.data.places import Places
from specvit.device import Device
from specvit.models.config import VitConfig
from specvit.models.scales import Scale
from specvit.models.vit import build_vit
from specvit.recipes.build import build_learner
from specvit.recipes.dinov2.masking import sample_masks
from specvit.recipes.dinov2.settings import DinoV2
from specvit.training.crops import Crop, draw_crops
from specvit.training.learner import Batch
from specvit.training.loading import batch_loader

from ..specvit.recipes.dinov2.plain_masks import plain_masks

NUM_IMAGES, WIDTH, HEIGHT = 64, 500, 375
ROUNDS = 7
CPU = Device(torch.device("cpu"))
DINO = (
    *(Crop(f"global {number}", 224, (0.32, 1.0)) for number in (1, 2)),
    *(Crop(f"local {number}", 96, (0.05, 0.32)) for number in range(8)),
)
ONE = (Crop("crops", 224, (0.08, 1.0)),)


class Cutting:
    """What a loader asks of a learner that cuts crops and checks no classes."""

    target_classes: dict[str, int] = {}
    mixes_mirror = False

    def __init__(self, crops: tuple[Crop, ...]) -> None:
        self.crops = crops


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Write pictures whose amplitudes fall with the frequency as those of photographs do, about 110 kB each."""
    folder, rng = tmp_path_factory.mktemp("photographs"), np.random.default_rng(0)
    frequency = np.hypot(np.fft.fftfreq(HEIGHT)[:, None], np.fft.fftfreq(WIDTH)).clip(3e-3) ** 1.1

    def noise() -> NDArray[Any]:
        filtered = np.fft.ifft2(np.fft.fft2(rng.normal(size=(HEIGHT, WIDTH))) / frequency).real
        return filtered / filtered.std()

    for number in range(NUM_IMAGES):
        light = noise()
        picture = np.stack([128 + 45 * (light + 0.3 * noise()) for _ in range(3)], axis=-1)
        picture_path = folder / f"{number:03}.jpg"
        Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(picture_path, quality=90)
    return sorted(folder.iterdir())


def bare(paths: list[Path], crops: tuple[Crop, ...], boxes: list[NDArray[np.int64]]) -> list[Tensor]:
    """Read, decode and cut, and nothing besides."""
    cut = [torch.empty((len(paths), 3, crop.size, crop.size), dtype=torch.uint8) for crop in crops]
    for row, path in enumerate(paths):
        image = torch.from_numpy(simplejpeg.decode_jpeg(path.read_bytes())).permute(2, 0, 1).unsqueeze(0)
        for crop, of_crop, into in zip(crops, boxes, cut, strict=True):
            top, left, height, width = of_crop[row].tolist()
            box = image[:, :, top : top + height, left : left + width]
            into[row] = F.interpolate(box, size=(crop.size, crop.size), mode="bicubic", antialias=True)[0]
    return cut


def of_torchvision(paths: list[Path], crops: tuple[Crop, ...]) -> None:
    """Cut as the published pipelines do: Pillow decodes, RandomResizedCrop cuts; no flips, no colours."""
    transforms = [
        tv.RandomResizedCrop(crop.size, scale=crop.scale, interpolation=InterpolationMode.BICUBIC) for crop in crops
    ]
    for path in paths:
        image = Image.open(path).convert("RGB")
        for transform in transforms:
            tv.functional.pil_to_tensor(transform(image))


def seconds(work: Callable[[], object], clock: Callable[[], float] = time.process_time) -> float:
    started = clock()
    work()
    return (clock() - started) / NUM_IMAGES


def _gain_of_hashing() -> float:
    """Return what a second thread gains where nothing but the machine is shared."""

    def hash_in(num_threads: int) -> float:
        started = time.perf_counter()
        with ThreadPoolExecutor(num_threads) as threads:
            list(threads.map(lambda _: hashlib.sha256(bytes(1 << 21)).digest(), range(100)))
        return time.perf_counter() - started

    return min(hash_in(1) for _ in range(ROUNDS)) / min(hash_in(2) for _ in range(ROUNDS))


@pytest.mark.parametrize("crops", [DINO, ONE], ids=["DINOv2's ten crops", "one crop"])
def test_cutting_crops_from_jpegs(crops: tuple[Crop, ...], paths: list[Path], benchmark: BenchmarkFixture) -> None:
    order = np.arange(NUM_IMAGES)
    drawing = Batch(torch.empty(NUM_IMAGES, 0), None, 0, 1, 0)
    boxes = [
        draw_crops(NUM_IMAGES, scale=crop.scale, generator=drawing.stream(crop.name)).boxes(height=HEIGHT, width=WIDTH)
        for crop in crops
    ]
    taken: dict[str, list[float]] = {}

    def load(workers: int) -> tuple[float, float, Batch]:
        images = EncodedImages(Places.of_files(paths), 224, Decoding(workers=workers))
        learner: Any = Cutting(crops)
        with batch_loader(learner, Split(images=images), DinoV2(), seed=0, device=CPU) as loader:
            loader.load(1, order)  # threads have memory of their own, which the first batch finds cold
            wall, cpu = time.perf_counter(), time.process_time()
            batch = loader.load(0, order)
            return (time.process_time() - cpu) / NUM_IMAGES, (time.perf_counter() - wall) / NUM_IMAGES, batch

    expected = bare(paths, crops, boxes)
    for crop, cut in zip(crops, expected, strict=True):
        assert torch.equal(load(1)[2].crops[crop.name], cut)

    def one_round() -> None:
        taken.setdefault("bare loop", []).append(seconds(lambda: bare(paths, crops, boxes)))
        taken.setdefault("torchvision's transforms on Pillow's images", []).append(
            seconds(lambda: of_torchvision(paths, crops))
        )
        for workers in (1, 2):
            cpu, wall, _ = load(workers)
            taken.setdefault(f"loader, {workers} threads, core-seconds", []).append(cpu)
            taken.setdefault(f"loader, {workers} threads, wall", []).append(wall)

    benchmark.pedantic(one_round, rounds=ROUNDS)
    best = {name: min(values) for name, values in taken.items()}
    print(f"\n{len(crops)} crops of {WIDTH} x {HEIGHT}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    for name, value in best.items():
        spread = statistics.median(taken[name]) / value
        print(f"  {name}: {1e3 * value:.2f} ms an image, {1 / value:.0f} images/s (median {spread:.2f} of the best)")
    share = best["bare loop"] / best["loader, 1 threads, core-seconds"]
    print(f"  images/s a core beside the bare loop: {share:.3f} (wanted: 0.9)")
    gain = best["loader, 1 threads, wall"] / best["loader, 2 threads, wall"]
    print(f"  2 threads beside 1: {gain:.2f} (wanted: 1.8); threads that hash, here and now: {_gain_of_hashing():.2f}")


class TenCrops(torch.utils.data.Dataset[list[Tensor]]):
    """What DINOv2's published pipeline does in a worker of a DataLoader, but for flips and colours."""

    def __init__(self, paths: list[Path]) -> None:
        self.paths = paths
        self.transforms = [
            tv.RandomResizedCrop(crop.size, scale=crop.scale, interpolation=InterpolationMode.BICUBIC) for crop in DINO
        ]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> list[Tensor]:
        image = Image.open(self.paths[index]).convert("RGB")
        return [tv.functional.pil_to_tensor(transform(image)) for transform in self.transforms]


def test_waiting_for_crops_while_a_device_computes(paths: list[Path], benchmark: BenchmarkFixture) -> None:
    """The device is a pause of twice what decoding and cutting takes one core: one worker suffices."""
    batch_size = 16
    taken: dict[str, list[float]] = {}
    images = EncodedImages(Places.of_files(paths), 224, Decoding(workers=1))
    learner: Any = Cutting(DINO)
    batches = [np.arange(NUM_IMAGES)[first : first + batch_size] for first in range(0, NUM_IMAGES, batch_size)]

    def ours() -> None:
        with batch_loader(learner, Split(images=images), DinoV2(), seed=0, device=CPU) as loader:
            loader.load(0, batches[0])
            for step in range(1, len(batches) - 1):
                loader.prepare(step, batches[step])
                time.sleep(step_s)
                started = time.perf_counter()
                loader.load(step, batches[step])
                taken.setdefault("loader, a thread", []).append(time.perf_counter() - started)

    def theirs() -> None:
        loader = torch.utils.data.DataLoader(TenCrops(paths), batch_size, num_workers=1, prefetch_factor=1)
        fetched = iter(loader)
        next(fetched)
        for _ in range(1, len(batches) - 1):
            time.sleep(step_s)
            started = time.perf_counter()
            next(fetched)
            taken.setdefault("DataLoader with torchvision's transforms, a worker", []).append(
                time.perf_counter() - started
            )

    boxes = [
        draw_crops(NUM_IMAGES, scale=crop.scale, generator=Batch(torch.empty(NUM_IMAGES, 0), None, 0, 1, 0).stream("x"))
        .boxes(height=HEIGHT, width=WIDTH)
        for crop in DINO
    ]
    step_s = 2 * batch_size * min(seconds(lambda: bare(paths, DINO, boxes)) for _ in range(3))

    def one_round() -> None:
        ours()
        theirs()

    benchmark.pedantic(one_round, rounds=ROUNDS)
    print(f"\nsteps of {1e3 * step_s:.0f} ms, {batch_size} images each, load {os.getloadavg()[0]:.1f}")
    for name, waits in taken.items():
        wait_s = statistics.median(waits)
        print(f"  {name}: waits {1e3 * wait_s:.2f} ms a step, {100 * wait_s / (step_s + wait_s):.1f}% (wanted: 2)")


def test_what_the_thread_that_feeds_the_device_does_for_a_dinov2_step_of_1024_images(
    paths: list[Path], benchmark: BenchmarkFixture
) -> None:
    """Numbers alone: boxes, flips, sigmas, colours and masks; views are of one pixel, which takes no time."""
    split = Split(images=EncodedImages(Places.of_files(paths * 16), 224, Decoding(workers=1)))
    recipe, num_images = DinoV2(batch_size=1024), 1024
    config = VitConfig(Scale(width=16, depth=1, num_heads=1), image_size=224, patch_size=16)
    dataset = Dataset(train=split, val=split, class_names=(), mask_names=(), fingerprint="")
    learner: Any = build_learner(recipe, build_vit(config, seed=0), dataset, seed=0)
    pixels = {crop.name: torch.zeros(num_images, 3, 1, 1, dtype=torch.uint8) for crop in learner.crops}
    assert len(pixels) == 10
    batch = Batch(torch.empty(num_images, 3, 0, 0), None, 0, recipe.steps, 0, crops=pixels)
    masks: Any = {"grid": (14, 14), "probability": recipe.mask_probability, "ratio": recipe.mask_ratio}
    taken: dict[str, list[float]] = {}

    def take(name: str, work: Callable[[], object]) -> Any:
        started = time.thread_time()
        done = work()
        taken.setdefault(name, []).append(1e3 * (time.thread_time() - started))
        return done

    with batch_loader(learner, split, recipe, seed=0, device=CPU) as loader:

        def one_round() -> None:
            cutting = take("boxes, given to the threads", lambda: loader._start(0, np.arange(num_images)))
            for task in cutting.tasks:
                task.cancel()
            take("views and masks", lambda: learner.draw(batch))
            take("masks", lambda: sample_masks(2 * num_images, **masks, rng=np.random.default_rng(0)))
            take("masks on arrays", lambda: plain_masks(2 * num_images, **masks, rng=np.random.default_rng(0)))

        benchmark.pedantic(one_round, rounds=ROUNDS)
    best = {name: min(values) for name, values in taken.items()}
    print(f"\nten views of {num_images} images, load {os.getloadavg()[0]:.1f}")
    for name, value in best.items():
        print(f"  {name}: {value:.1f} ms (median {statistics.median(taken[name]) / value:.2f} of the best)")
    print(f"  together: {best['boxes, given to the threads'] + best['views and masks']:.1f} ms (wanted: 100)")
    print(f"  masks beside masks on arrays: {best['masks'] / best['masks on arrays']:.2f}")
