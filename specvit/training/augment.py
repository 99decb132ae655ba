"""Augmentation of whole batches on tensors, each image with its own parameters.

Shapes: B images of H x W pixels, crops of S x S. A crop with antialiased resizing is linear and separable: it
is two matrices per image, ``rows (B, S, H)`` and ``columns (B, S, W)``, applied as ``rows @ image @ columns^T``.
A flip reverses ``columns``; a Gaussian blur is one more matrix on either side, multiplied in beforehand.
Jitter of brightness, contrast, saturation and hue, and turning grey, are one 3 x 3 matrix and one offset.

Sources: torchvision's ``RandomResizedCrop`` and ``resized_crop`` (the tests compare); DINOv2's
``data/augmentations.py``; DeiT-III's ``augment.py``. Deviations: jitter is applied in a fixed order and values
are clamped once, at its end; hue is rotated in YIQ space; a crop is blurred before it is recoloured; the blur's
sigma is given for 224 px and scales with the crop.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from specvit.device import Device
from specvit.training.crops import HeldRows, draw_crops, torch_sqrt, uniform

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
"""Channel statistics of ImageNet, as timm's default."""

BLUR_SIDE = 224
"""Side in pixels of the crops for which the sigma of a blur is given."""

_GREY = (0.299, 0.587, 0.114)
_TO_YIQ = torch.tensor([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
_FROM_YIQ = torch.linalg.inv(_TO_YIQ)


@dataclass(frozen=True)
class ColourSettings:
    """The strengths of colour changes; a probability applies per image.

    Attributes:
        brightness: Factor drawn from [1 - x, 1 + x].
        contrast: Likewise.
        saturation: Likewise.
        hue: Turn drawn from [-x, x], as a share of the colour circle.
        jitter_probability: Chance of these four together.
        grey_probability: Chance of turning grey.
        blur_probability: Chance of a Gaussian blur.
        blur_sigma: Least and largest sigma in pixels of a 224 px crop.
        solarize_probability: Chance of inverting the values of 0.5 and above.
    """

    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    jitter_probability: float = 0.0
    grey_probability: float = 0.0
    blur_probability: float = 0.0
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    solarize_probability: float = 0.0

    def blurred_for(self, size: int) -> ColourSettings:
        """Return the settings under which the blur has its sigma in pixels of crops of ``size`` px."""
        low, high = self.blur_sigma
        return replace(self, blur_sigma=(low * BLUR_SIDE / size, high * BLUR_SIDE / size))


def normalise(images: Tensor) -> Tensor:
    """Turn images in [0, 1], ``(B, 3, H, W)``, into the network's input."""
    mean, std = (images.new_tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    return (images - mean) / std


def resampling_matrix(start: Tensor, length: Tensor, *, source: int, target: int, cubic: bool) -> Tensor:
    """Build the matrices that cut and resize one axis, antialiased.

    Args:
        start: ``(B,)`` first pixel of the cut.
        length: ``(B,)`` number of pixels of the cut.
        source: Number of pixels of the axis before.
        target: Number of pixels after.
        cubic: Bicubic (a = -0.5) in place of bilinear.

    Returns:
        ``(B, target, source)`` float32; rows sum to 1.
    """
    scale = (length / target).view(-1, 1, 1)
    centre = start.view(-1, 1, 1) + (torch.arange(target, device=start.device).view(1, -1, 1) + 0.5) * scale
    pixel = torch.arange(source, device=start.device).view(1, 1, -1)
    distance = (pixel + 0.5 - centre).abs() / scale.clamp(min=1.0)
    if cubic:
        near = (1.5 * distance - 2.5) * distance.square() + 1
        far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
        weight = torch.where(distance <= 1, near, torch.where(distance < 2, far, 0.0))
    else:
        weight = (1 - distance).clamp(min=0.0)
    inside = (pixel >= start.view(-1, 1, 1)) & (pixel < (start + length).view(-1, 1, 1))
    weight = weight * inside
    return weight / weight.sum(dim=2, keepdim=True)


def blur_matrix(sigma: Tensor, *, size: int) -> Tensor:
    """Build the matrices of a Gaussian blur along one axis: ``(B,)`` sigmas in pixels -> ``(B, size, size)``.

    A sigma of 0 gives the identity.
    """
    pixel = torch.arange(size, device=sigma.device)
    distance = (pixel.view(-1, 1) - pixel.view(1, -1)).float()
    weight = torch.exp(-0.5 * (distance / sigma.clamp(min=1e-3).view(-1, 1, 1)).square())
    return weight / weight.sum(dim=2, keepdim=True)


def random_blur(
    images: Tensor, *, sigma: tuple[float, float], generator: Generator, held: HeldRows | None = None
) -> Tensor:
    """Blur a batch, each image by its own sigma.

    Args:
        images: ``(B, 3, S, S)``.
        sigma: Least and largest sigma in pixels of a 224 px image.
        generator: CPU generator.
        held: Which images of a batch these are; None = all.
    """
    drawn = uniform((batch_size(images, held),), sigma, generator) * (images.shape[-1] / BLUR_SIDE)
    return _blur(images, of_held(drawn, held))


def random_crops(
    images: Tensor,
    *,
    size: int,
    scale: tuple[float, float],
    generator: Generator,
    colour: ColourSettings | None = None,
    flip_probability: float = 0.5,
    cubic: bool = True,
    cut: Tensor | None = None,
    held: HeldRows | None = None,
) -> Tensor:
    """Cut, resize, flip and recolour a batch of images, each in its own way.

    Args:
        images: ``(B, 3, H, W)`` float32 in [0, 1].
        size: Side S of the crops in pixels.
        scale: Least and largest share of the image's area that a crop covers.
        generator: CPU generator of all randomness.
        colour: Strengths of the colour changes; None = none.
        flip_probability: Chance of a horizontal flip.
        cubic: Bicubic in place of bilinear resizing.
        cut: ``(B, 3, S, S)`` uint8 crops, if they have been cut and resized already as an equal generator says; of
            ``images`` only their number counts then.
        held: Which images of the batch ``cut`` has; None = all.

    Returns:
        ``(B, 3, S, S)`` float32 in [0, 1]; of those that are held alone.
    """
    num_images, _, height, width = images.shape
    draws = draw_crops(num_images, scale=scale, generator=generator)
    flipped = torch.rand(num_images, generator=generator) < flip_probability
    sigma = None
    if colour is not None and colour.blur_probability > 0:
        drawn = uniform((num_images,), colour.blur_sigma, generator) * (size / BLUR_SIDE)
        sigma = torch.where(torch.rand(num_images, generator=generator) < colour.blur_probability, drawn, 0.0)
    if cut is not None:
        crops = _finish(cut, of_held(flipped, held), None if sigma is None else of_held(sigma, held))
    else:
        # What is drawn travels to the images; the matrices are made there.
        boxes = torch.from_numpy(draws.boxes(height=height, width=width, sqrt=torch_sqrt)).to(images.device)
        top, left, box_height, box_width = boxes.unbind(dim=1)
        rows = resampling_matrix(top, box_height, source=height, target=size, cubic=cubic)
        columns = resampling_matrix(left, box_width, source=width, target=size, cubic=cubic)
        columns = torch.where(flipped.to(images.device).view(-1, 1, 1), columns.flip(1), columns)
        if sigma is not None:
            blur = blur_matrix(sigma.to(images.device), size=size)
            rows, columns = blur @ rows, blur @ columns
        crops = (rows.unsqueeze(1) @ images @ columns.transpose(1, 2).unsqueeze(1)).clamp_(0, 1)
    return crops if colour is None else recolour(crops, colour, generator=generator, held=held)


def recolour(
    images: Tensor, colour: ColourSettings, *, generator: Generator, held: HeldRows | None = None
) -> Tensor:
    """Jitter, turn grey and solarise a batch, each image in its own way; blur belongs to the crop.

    Args:
        images: ``(B, 3, H, W)`` float32 in [0, 1].
        colour: Strengths.
        generator: CPU generator of all randomness.
        held: Which images of a batch these are; None = all.

    Returns:
        The images, ``(B, 3, H, W)`` in [0, 1].
    """
    num_images = batch_size(images, held)

    def factor(strength: float) -> Tensor:
        return of_held(uniform((num_images,), (1 - strength, 1 + strength), generator), held)

    brightness, contrast = factor(colour.brightness), factor(colour.contrast)
    saturation = factor(colour.saturation)
    turn = 2 * math.pi * of_held(uniform((num_images,), (-colour.hue, colour.hue), generator), held)
    chance = of_held(torch.rand((3, num_images), generator=generator).T, held).T
    jittered, grey = chance[0] < colour.jitter_probability, chance[1] < colour.grey_probability
    solarised = chance[2] < colour.solarize_probability

    to_grey = torch.tensor(_GREY).expand(3, 3)
    one = torch.ones(())
    brightness, contrast = torch.where(jittered, brightness, one), torch.where(jittered, contrast, one)
    saturation = torch.where(jittered, saturation, one)
    saturation = torch.where(grey, 0 * one, saturation).view(-1, 1, 1)
    hue = _hue_matrix(torch.where(jittered, turn, 0 * one))
    matrix = (saturation * torch.eye(3) + (1 - saturation) * to_grey) @ hue
    matrix = matrix * (brightness * contrast).view(-1, 1, 1)
    luminance = torch.einsum("c,bchw->b", images.new_tensor(_GREY), images) / images[0, 0].numel()
    offset = (1 - contrast).to(images.device) * brightness.to(images.device) * luminance

    flat = images.flatten(2)
    mixed = torch.baddbmm(offset.view(-1, 1, 1).expand(-1, 3, 1), matrix.to(images.device), flat)
    mixed = mixed.clamp_(0, 1).view_as(images)
    if colour.solarize_probability > 0:
        inverted = torch.where(mixed >= 0.5, 1 - mixed, mixed)
        mixed = torch.where(solarised.to(images.device).view(-1, 1, 1, 1), inverted, mixed)
    return mixed


def _hue_matrix(turn: Tensor) -> Tensor:
    """Rotate chrominance: ``(B,)`` angles in radians -> ``(B, 3, 3)`` matrices on RGB."""
    cos, sin, zero, one = turn.cos(), turn.sin(), torch.zeros_like(turn), torch.ones_like(turn)
    rotation = torch.stack((one, zero, zero, zero, cos, -sin, zero, sin, cos), dim=-1).view(-1, 3, 3)
    matrix: Tensor = _FROM_YIQ @ rotation @ _TO_YIQ
    return matrix


def batch_size(images: Tensor, held: HeldRows | None) -> int:
    """Return of how many images is drawn, of which these may be a part."""
    return len(images) if held is None else held.batch_size


def of_held(drawn: Tensor, held: HeldRows | None) -> Tensor:
    """Return of ``(B, ...)`` that was drawn for a batch what belongs to the images that are held."""
    return drawn if held is None else drawn[held.rows]


def _finish(cut: Tensor, flipped: Tensor, sigma: Tensor | None) -> Tensor:
    """Turn ``(B, 3, S, S)`` uint8 crops into float32 in [0, 1], flip and blur them; a sigma of 0 is no blur."""
    crops = cut.float().div_(255)
    crops = torch.where(flipped.to(cut.device).view(-1, 1, 1, 1), crops.flip(3), crops)
    if sigma is not None:
        (blurred,) = torch.nonzero(sigma, as_tuple=True)
        rows = blurred.to(cut.device)
        crops[rows] = _blur(crops[rows], sigma[blurred])
    return crops


def _blur(images: Tensor, sigma: Tensor) -> Tensor:
    """Blur ``(B, 3, S, S)`` images, each by its sigma in pixels; the matrices are made where the images are."""
    blur = blur_matrix(sigma.to(images.device), size=images.shape[-1]).unsqueeze(1)
    blurred: Tensor = blur @ images @ blur.transpose(2, 3)
    return blurred


def to_unit(images: NDArray[np.uint8], device: Device) -> Tensor:
    """Move images to the device as float32 in [0, 1]."""
    return torch.from_numpy(images).to(device.torch_device).float().div_(255)


def normalised(images: NDArray[np.uint8], device: Device) -> Tensor:
    """Move images to the device as what a backbone takes: float32 ``(B, 3, H, W)``."""
    return normalise(to_unit(images, device))
