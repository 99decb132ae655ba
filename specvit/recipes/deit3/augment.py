"""DeiT-III's augmentation: crops, one of three changes, jitter; and the crops of masks that go with them.

Source: facebookresearch/deit, augment.py. Shapes: B images of H x W pixels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from specvit.recipes.deit3.settings import DeiT3
from specvit.training.augment import ColourSettings, batch_size, of_held, random_blur, random_crops, recolour
from specvit.training.crops import HeldRows, sample_crops
from specvit.training.learner import Batch

PADDING = 4
"""Pixels of reflection around an image before a simple random crop."""

FLIP_PROBABILITY = 0.5

CROPS = "crops"
"""The stream of the crops."""


def augment_images(batch: Batch, recipe: DeiT3) -> Tensor:
    """Crop, flip and recolour the images of a batch: ``(B, 3, H, W)`` in [0, 1]."""
    images, stream, cut = batch.images, batch.stream(CROPS), batch.crops.get(CROPS)
    if recipe.crop == "resized":
        crops = random_crops(
            images,
            size=images.shape[-1] if cut is None else cut.shape[-1],
            scale=recipe.crop_scale,
            generator=stream,
            flip_probability=FLIP_PROBABILITY,
            cut=cut,
            held=batch.held,
        )
    else:
        crops = simple_crops(images, padding=PADDING, generator=stream)
    jitter = recipe.colour_jitter
    colour = ColourSettings(
        brightness=jitter, contrast=jitter, saturation=jitter, jitter_probability=float(jitter > 0)
    )
    if recipe.three_augment:
        crops = three_augment(crops, generator=batch.stream("three-augment"), held=batch.held)
    return batch.whole(recolour(crops, colour, generator=batch.stream("colour"), held=batch.held))


def augment_masks(batch: Batch, recipe: DeiT3) -> Tensor:
    """Crop and flip the masks of a batch as ``augment_images`` does its images: ``(B, H, W)`` uint8.

    The crops are drawn anew from a stream of the same name, so they are the same.
    """
    if batch.masks is None:
        raise ValueError("the dense loss of DeiT-III learns from masks, and the batch has none")
    masks, stream = batch.masks, batch.stream(CROPS)
    if recipe.crop == "resized":
        return mask_crops(masks, size=masks.shape[-1], scale=recipe.crop_scale, generator=stream)
    # Reflection knows floats only; they hold all class indices exactly.
    return simple_crops(masks.float().unsqueeze(1), padding=PADDING, generator=stream).squeeze(1).to(masks.dtype)


def mask_crops(masks: Tensor, *, size: int, scale: tuple[float, float], generator: Generator) -> Tensor:
    """Cut, resize by nearest neighbour and flip masks, as ``random_crops`` does images from an equal generator.

    Args:
        masks: ``(B, H, W)`` class indices.
        size: Side S of the crops in pixels.
        scale: Least and largest share of the area that a crop covers.
        generator: CPU generator.

    Returns:
        ``(B, S, S)``; each pixel has the class of the pixel in which its centre lies.
    """
    num_images, height, width = masks.shape
    boxes, flipped = sample_crops(
        num_images,
        height=height,
        width=width,
        scale=scale,
        flip_probability=FLIP_PROBABILITY,
        generator=generator,
    )
    top, left, box_height, box_width = boxes.unsqueeze(2).unbind(dim=1)
    centres = 2 * torch.arange(size) + 1  # in halves of a pixel
    rows = top + centres * box_height // (2 * size)
    columns = left + centres * box_width // (2 * size)
    columns = torch.where(flipped.view(-1, 1), columns.flip(1), columns)
    image = torch.arange(num_images, device=masks.device).view(-1, 1, 1)
    return masks[image, rows.unsqueeze(2).to(masks.device), columns.unsqueeze(1).to(masks.device)]


def simple_crops(images: Tensor, *, padding: int, generator: Generator) -> Tensor:
    """Shift by up to ``padding`` pixels, with reflection at the border, and flip half of the images.

    Args:
        images: ``(B, C, H, W)`` float.
        padding: Largest shift in pixels, smaller than H and W.
        generator: CPU generator.

    Returns:
        ``(B, C, H, W)``.
    """
    num_images, _, height, width = images.shape
    padded = F.pad(images, (padding,) * 4, mode="reflect")
    shift = torch.randint(0, 2 * padding + 1, (2, num_images, 1), generator=generator)
    rows = (shift[0] + torch.arange(height)).to(images.device)
    columns = shift[1] + torch.arange(width)
    flipped = torch.rand(num_images, 1, generator=generator) < FLIP_PROBABILITY
    columns = torch.where(flipped, columns.flip(1), columns).to(images.device)
    image = torch.arange(num_images, device=images.device).view(-1, 1, 1)
    return padded.permute(0, 2, 3, 1)[image, rows.unsqueeze(2), columns.unsqueeze(1)].permute(0, 3, 1, 2)


def three_augment(images: Tensor, *, generator: Generator, held: HeldRows | None = None) -> Tensor:
    """Apply exactly one of grey, solarisation and blur to each image: ``(B, 3, H, W)`` in [0, 1].

    Args:
        images: The images.
        generator: CPU generator.
        held: Which images of a batch these are; None = all.
    """
    choice = of_held(torch.randint(0, 3, (batch_size(images, held),), generator=generator), held)
    choice = choice.view(-1, 1, 1, 1).to(images.device)
    grey = recolour(images, ColourSettings(grey_probability=1.0), generator=generator, held=held)
    solarised = torch.where(images >= 0.5, 1 - images, images)
    blurred = random_blur(images, sigma=ColourSettings.blur_sigma, generator=generator, held=held)
    return torch.where(choice == 0, grey, torch.where(choice == 1, solarised, blurred))
