"""MAE's views, masks and loss. Settings, sources and deviations: ``specvit.recipes.mae.settings``.

Shapes: B images of H x W pixels, P patches of h x w pixels, V visible and M hidden ones (V + M = P).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from specvit.data import Dataset
from specvit.errors import ConfigError
from specvit.models.batch_slice import BatchSlice
from specvit.models.patches import patchify, take
from specvit.models.vit import encode
from specvit.recipes.mae.decoder import MaeDecoder
from specvit.recipes.mae.settings import Mae
from specvit.seeding import derive_seed, numpy_stream
from specvit.specialization.token_rows import PatchRow
from specvit.training.augment import normalise, random_crops
from specvit.training.crops import Crop
from specvit.training.learner import Batch, SlicedLearner

VARIANCE_EPS = 1e-6


@dataclass(frozen=True)
class MaeViews:
    """The crops of a batch and which of their patches the backbone sees.

    Attributes:
        images: ``(B, 3, H, W)``, normalised.
        visible: ``(B, V)`` int64 numbers of the visible patches.
        hidden: ``(B, M)`` int64 numbers of the others.
    """

    images: Tensor
    visible: Tensor
    hidden: Tensor


class MaeLearner(SlicedLearner[MaeViews, None]):
    """A backbone, which sees few patches of an image, and a decoder that learns to paint the others."""

    @classmethod
    def from_recipe(cls, recipe: Mae, backbone: VisionTransformer, dataset: Dataset, *, seed: int) -> Self:
        """Build the learner for a data set; see ``specvit.recipes.build``."""
        return cls(backbone, recipe, image_size=dataset.train.image_size, seed=seed)

    def __init__(self, backbone: VisionTransformer, recipe: Mae, *, image_size: int, seed: int) -> None:
        """Draw the decoder, the same for all arms of a pair.

        Args:
            backbone: The model, own weights at tokens of the prefix at most.
            recipe: The constants.
            image_size: Side of the crops in pixels, a multiple of the patch size.
            seed: The trial's seed.

        Raises:
            ConfigError: If a patch has own weights, or the image is but one patch.
        """
        super().__init__()
        if any(isinstance(getattr(module, "rows", None), PatchRow) for module in backbone.modules()):
            raise ConfigError(
                f"treatment.tokens: must be 'cls' with recipe {recipe.name!r}, not 'placebo': "
                "the patch that has own weights would be dropped, or move"
            )
        height, width = backbone.patch_embed.patch_size
        grid = (image_size // height, image_size // width)
        if grid[0] * grid[1] < 2:
            raise ConfigError(
                f"model.patch_size: must leave at least 2 patches for recipe {recipe.name!r}, "
                f"not {max(height, width)} in images of {image_size}"
            )
        self.recipe = recipe
        self.crops = (Crop("crops", image_size, recipe.crop_scale),)
        self.grid = grid
        self.backbone = backbone
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(seed, "heads"))
            self.decoder = MaeDecoder(
                backbone.embed_dim,
                grid=grid,
                decoder_width=recipe.decoder_width,
                depth=recipe.decoder_depth,
                num_heads=recipe.decoder_heads,
                num_outputs=3 * height * width,
            )

    @property
    def eval_backbone(self) -> VisionTransformer:
        """Return the backbone."""
        return self.backbone

    def draw(self, batch: Batch) -> MaeViews:
        """Crop the images of a batch and draw what is hidden."""
        (crop,) = self.crops
        crops = random_crops(
            batch.images,
            size=crop.size,
            scale=crop.scale,
            generator=batch.stream(crop.name),
            cut=batch.crops.get(crop.name),
            held=batch.held,
        )
        images = normalise(batch.whole(crops))
        rows, columns = self.grid
        drawn = sample_visible(
            len(images),
            num_patches=rows * columns,
            mask_ratio=self.recipe.mask_ratio,
            rng=numpy_stream(batch.seed, "masks", batch.step),
        )
        visible, hidden = (torch.from_numpy(numbers).to(images.device) for numbers in drawn)
        return MaeViews(images, visible, hidden)

    def targets(self, views: MaeViews, parts: Sequence[BatchSlice]) -> list[None]:  # noqa: ARG002
        """Return nothing: the loss of an image does not depend on the others."""
        return [None] * len(parts)

    def slice_losses(self, views: MaeViews, part: BatchSlice, targets: None) -> dict[str, Tensor]:  # noqa: ARG002
        """Compute the squared error of the pixels of hidden patches, a mean over them."""
        images, visible, hidden = part.of(views.images), part.of(views.visible), part.of(views.hidden)
        tokens = encode(self.backbone, images, visible=visible)
        extra = self.extra_losses(tokens.patches)
        predicted = self.decoder(tokens.cls, tokens.patches, visible=visible, hidden=hidden)
        pixels = self._hidden_pixels(images, hidden)
        return {"pixels": (predicted.float() - pixels).square().mean(), **extra}

    def measure_slice(self, views: MaeViews, part: BatchSlice, targets: None) -> dict[str, Tensor]:
        """Compute the terms of a part, and the moments of the pixels that are to be painted."""
        pixels = self._hidden_pixels(part.of(views.images), part.of(views.hidden)).double()
        by_colour = pixels.view(*pixels.shape[:2], 3, -1)
        moments = {"_square": pixels.square().mean(), "_colour": by_colour.mean(dim=(0, 1, 3))}
        return {**super().measure_slice(views, part, targets), **moments}

    def trivial_losses(self, averages: Mapping[str, Tensor]) -> dict[str, float]:
        """Return the squared error of hidden patches painted 0, their own mean; unnormalised, in the mean colour."""
        error = float(averages["_square"])
        return {"pixels": error if self.recipe.normalise_pixels else error - float(averages["_colour"].square().mean())}

    def _hidden_pixels(self, images: Tensor, hidden: Tensor) -> Tensor:
        """Return what is to be painted, ``(b, M, 3 h w)``, of ``(b, 3, H, W)`` images."""
        pixels = take(patchify(images, self.backbone.patch_embed.patch_size), hidden)
        return normalise_patches(pixels) if self.recipe.normalise_pixels else pixels


def sample_visible(
    num_images: int, *, num_patches: int, mask_ratio: float, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Draw which patches are visible, image by image, all choices equally likely.

    Args:
        num_images: B.
        num_patches: P, at least 2.
        mask_ratio: Share that is hidden, in (0, 1).
        rng: Where the randomness comes from.

    Returns:
        ``(B, V)`` the visible patches and ``(B, M)`` the hidden ones, each rising; V is
        ``P (1 - mask_ratio)`` rounded down, but from 1 to P - 1.
    """
    # 1 - 0.9 is a little less than 0.1: a tenth of 10 patches is one all the same.
    num_visible = math.floor(num_patches * (1 - mask_ratio) + 1e-6)
    num_visible = min(max(num_visible, 1), num_patches - 1)
    order = np.argsort(rng.random((num_images, num_patches)), axis=1)
    return np.sort(order[:, :num_visible], axis=1), np.sort(order[:, num_visible:], axis=1)


def normalise_patches(patches: Tensor) -> Tensor:
    """Bring each patch to mean 0 and variance 1 over its pixels and channels: ``(B, M, 3 h w)`` -> the same.

    Source: models_mae.py (``forward_loss``): the unbiased variance, plus 1e-6.
    """
    variance, mean = torch.var_mean(patches, dim=-1, keepdim=True)
    return (patches - mean) / (variance + VARIANCE_EPS).sqrt()
