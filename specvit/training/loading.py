"""What brings the images of a step to the device: rows of an array, or crops of encoded images, cut a step ahead.

Which images a step sees and where they are cut is drawn in the main thread, from the step's named streams. Threads
decode and cut, each crop into its own place: how many threads there are, and which is first, changes no bit, and a run
that resumes finds the batches it would have had. Decoders and resizing release Python's lock.

Of an encoded image only what the learner's ``crops`` say is cut, from its own pixels, as torchvision's
``resized_crop`` does on tensors (antialiased bicubic, rounded to 8 bits), to within 1/255 of Pillow's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from specvit.data import IGNORE_INDEX, Split
from specvit.data.encoded import EncodedImages
from specvit.data.reading.image_files import squash_mask
from specvit.device import Device
from specvit.errors import DataError
from specvit.training import collectives
from specvit.training.augment import to_unit
from specvit.training.crops import Crop, CropDraws, HeldRows, draw_crops
from specvit.training.learner import Batch, Learner
from specvit.training.recipe import Recipe

IMAGES_A_TASK = 4
"""Images that a thread takes at once."""


@dataclass(frozen=True)
class _Cutting:
    """The crops of a batch that threads are cutting.

    Attributes:
        images: ``(B,)`` int64 which images; what was left out is replaced as it is found.
        crops: ``(b, 3, S, S)`` uint8 by name, of the images that this process holds.
        held: Which these are; None = all.
        tasks: Done when all of it is cut.
    """

    images: NDArray[np.int64]
    crops: Mapping[str, Tensor]
    held: HeldRows | None
    tasks: Sequence[Future[None]]


class BatchLoader:
    """Load the batches of a run, the next one already while a step is computed."""

    def __init__(
        self, learner: Learner, split: Split, recipe: Recipe, *, seed: int, device: Device, threads: ThreadPoolExecutor
    ) -> None:
        self._learner = learner
        self._split = split
        self._recipe = recipe
        self._seed = seed
        self._device = device
        self._threads = threads
        self._ahead: tuple[int, _Cutting] | None = None
        self._shared: set[str] = set()

    def prepare(self, step: int, images: NDArray[np.int64]) -> None:
        """Have the crops of a step cut, whose batch is to be loaded next."""
        if self._is_cut:
            self._ahead = step, self._start(step, images)

    def load(self, step: int, images: NDArray[np.int64], *, measured_at: float | None = None) -> Batch:
        """Bring the images of a step, and the targets that go with them, to the device.

        Args:
            step: Number of the step, from 0, that random numbers are drawn for.
            images: ``(B,)`` the images.
            measured_at: As of ``Batch``.

        Raises:
            DataError: If an image cannot be used, or a class of a target is out of range.
        """
        recipe, split, on = self._recipe, self._split, self._device.torch_device
        crops: dict[str, Tensor] = {}
        held: HeldRows | None = None
        if self._is_cut:
            ahead, self._ahead = self._ahead, None
            cutting = ahead[1] if ahead is not None and ahead[0] == step else self._start(step, images)
            for task in cutting.tasks:
                task.result()
            images, held = cutting.images, cutting.held
            self._share_skipped()
            crops = {name: pixels.to(on, non_blocking=True) for name, pixels in cutting.crops.items()}
            pixels = torch.empty((len(images), 3, 0, 0), device=on)
        else:
            decoded, images = split.read(images, size=split.image_size)
            pixels = to_unit(decoded, self._device)
        labels = None if split.labels is None else split.labels[images]
        masks = None
        if split.masks is not None and "masks" in (*recipe.required_targets(), *self._learner.target_classes):
            masks = masks_to_learn(split, images)
        check_targets(
            {"labels": labels, "masks": masks},
            images,
            self._learner.target_classes,
            at=f"step {(step if measured_at is None else round(measured_at * recipe.steps)) + 1} of {recipe.steps}",
        )
        return Batch(
            images=pixels,
            labels=None if labels is None else torch.from_numpy(labels).to(on),
            step=step,
            steps=recipe.steps,
            seed=self._seed,
            masks=None if masks is None or "masks" not in recipe.required_targets() else torch.from_numpy(masks).to(on),
            measured_at=measured_at,
            crops=crops,
            held=held,
        )

    @property
    def _is_cut(self) -> bool:
        return isinstance(self._split.images, EncodedImages) and len(self._learner.crops) > 0

    def _start(self, step: int, images: NDArray[np.int64]) -> _Cutting:
        """Draw where a step's images are cut, and give them to the threads."""
        encoded = self._split.images
        assert isinstance(encoded, EncodedImages)
        drawing = Batch(torch.empty((len(images), 3, 0, 0)), None, step, self._recipe.steps, self._seed)
        crops = self._learner.crops
        draws = _stacked(
            [draw_crops(len(images), scale=crop.scale, generator=drawing.stream(crop.name)) for crop in crops]
        )
        used, held = images.copy(), self._held(len(images))
        rows = range(len(images)) if held is None else held.rows.tolist()
        pixels = {
            crop.name: torch.empty(
                (len(rows), 3, crop.size, crop.size), dtype=torch.uint8, pin_memory=self._device.is_cuda
            )
            for crop in crops
        }

        def cut(start: int) -> None:
            for place in range(start, min(start + IMAGES_A_TASK, len(rows))):
                row = rows[place]
                decoded, used[row] = encoded.use(int(images[row]), encoded.pixels)
                height, width, _ = decoded.shape
                boxes = CropDraws(draws.share[row], draws.ratio[row], draws.corner[row])
                into = [pixels[crop.name][place] for crop in crops]
                cut_crops(decoded, boxes.boxes(height=height, width=width), crops, into)

        tasks = [self._threads.submit(cut, start) for start in range(0, len(rows), IMAGES_A_TASK)]
        return _Cutting(used, pixels, held, tasks)

    def _share_skipped(self) -> None:
        """Record which images any process has left out: the main one counts them."""
        encoded = self._split.images
        if isinstance(encoded, EncodedImages) and encoded.may_skip and collectives.num_processes() > 1:
            self._shared |= collectives.union(set(encoded.skipped) - self._shared)
            for name in self._shared:
                encoded.skipped.setdefault(name, "left out by another process")

    def _held(self, num_images: int) -> HeldRows | None:
        """Return which images of a batch this process learns from, and needs the pixels of; None = all."""
        if collectives.num_processes() == 1:
            return None
        own = np.arange(num_images)[collectives.own_slice(num_images)]
        if self._learner.mixes_mirror:
            own = np.union1d(own, num_images - 1 - own)
        return HeldRows(torch.from_numpy(own), num_images)


@contextmanager
def batch_loader(
    learner: Learner, split: Split, recipe: Recipe, *, seed: int, device: Device
) -> Iterator[BatchLoader]:
    """Return what loads the batches of a run; its threads end with the context.

    Args:
        learner: Whose ``crops`` are cut and whose ``target_classes`` are checked.
        split: The images, with the targets that the recipe needs.
        recipe: Its length, and the targets that it needs.
        seed: The trial's seed.
        device: Where batches are to lie.
    """
    if isinstance(split.images, EncodedImages):
        with split.images.threads() as threads:
            yield BatchLoader(learner, split, recipe, seed=seed, device=device, threads=threads)
    else:
        with ThreadPoolExecutor(1) as threads:  # which starts no thread until it is given work
            yield BatchLoader(learner, split, recipe, seed=seed, device=device, threads=threads)


def cut_crops(
    pixels: NDArray[np.uint8], boxes: NDArray[np.int64], crops: Sequence[Crop], into: Sequence[Tensor]
) -> None:
    """Cut crops of an image and resize them: antialiased bicubic, from the box's own pixels alone.

    Args:
        pixels: ``(H, W, 3)``.
        boxes: ``(V, 4)`` rows ``top, left, height, width``.
        crops: V, whose sizes count.
        into: V tensors ``(3, S, S)`` uint8 to write to.
    """
    image = torch.from_numpy(pixels).permute(2, 0, 1).unsqueeze(0)
    for (top, left, height, width), crop, target in zip(boxes.tolist(), crops, into, strict=True):
        box = image[:, :, top : top + height, left : left + width]
        resized = F.interpolate(box, size=(crop.size, crop.size), mode="bicubic", antialias=True)
        target.copy_(resized[0])


def masks_to_learn(split: Split, images: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Return the masks of some images at the size of what is trained on.

    Masks of a split are as large as what probes see. Where that is another size, those of the files are resized, by
    nearest neighbour as sources do.

    Args:
        split: A split with masks.
        images: ``(B,)`` which images.

    Returns:
        ``(B, S, S)`` class indices, 255 = ignore.

    Raises:
        DataError: If one cannot be read.
    """
    size = split.image_size
    assert split.masks is not None
    if split.masks.shape[-1] == size:
        return split.masks[images]
    assert isinstance(split.images, EncodedImages)
    own = split.images.own["masks"]
    return np.stack([squash_mask(Image.fromarray(own[image]), size) for image in images.tolist()])


def _stacked(draws: Sequence[CropDraws]) -> CropDraws:
    """Join what was drawn for V crops of B images, image by image: ``(B, V, 10)``."""
    return CropDraws(*(np.stack([getattr(one, name) for one in draws], axis=1) for name in _DRAWN))


_DRAWN = ("share", "ratio", "corner")


def check_targets(
    targets: Mapping[str, NDArray[Any] | None],
    images: NDArray[np.int64],
    num_classes: Mapping[str, int],
    *,
    at: str,
) -> None:
    """Raise if a class is out of range that is about to be used as an index, where kernels would crash on it.

    Data sources check what they read, but arrays lie in memory for hours, shared by processes, and images are not all
    seen at once.

    Args:
        targets: ``(B, ...)`` values by name, ``labels`` and ``masks``.
        images: ``(B,)`` which images these are, for the message.
        num_classes: Number of classes by target; other targets are not looked at.
        at: The step that learns from them, for the message.

    Raises:
        DataError: If a label is not in [0, C), or a pixel of a mask neither in [0, K) nor 255 = ignore.
    """
    for target, count in num_classes.items():
        values = targets[target]
        if values is None:
            continue
        wrong = (values < 0) | (values >= count)
        rule = f"in [0, {count})"
        if target == "masks":
            wrong &= values != IGNORE_INDEX
            rule += f" or {IGNORE_INDEX} = ignore"
        if wrong.any():
            image = images[np.flatnonzero(wrong.reshape(len(images), -1).any(axis=1))[0]]
            raise DataError(
                f"{at}: {target} of training image {image} must be {rule}, but hold {values[wrong][0]}"
            )
