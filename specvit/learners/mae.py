"""MAE's views, masks and loss. Settings, sources and deviations: ``specvit.objectives.mae``.

Shapes: B images of H x W pixels, P patches of h x w pixels, V visible and M hidden ones (V + M = P).
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from specvit.augment import normalise, random_crops
from specvit.errors import ConfigError
from specvit.learners.base import Batch, Learner
from specvit.learners.mae_decoder import MaeDecoder
from specvit.objectives.mae import Mae
from specvit.patches import patchify, take
from specvit.seeding import derive_seed, numpy_stream
from specvit.token_rows import PatchRow
from specvit.vit import encode

VARIANCE_EPS = 1e-6


class MaeLearner(Learner):
    """Train a backbone, which sees few patches of an image, and a decoder to paint the others."""

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
        self.image_size = image_size
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
    def probed(self) -> VisionTransformer:
        """Return the backbone."""
        return self.backbone

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Compute the squared error of the pixels of hidden patches, a mean over them."""
        crops = random_crops(
            batch.images, size=self.image_size, scale=self.recipe.crop_scale, generator=batch.stream("crops")
        )
        images = normalise(crops)
        pixels = patchify(images, self.backbone.patch_embed.patch_size)
        num_images, num_patches, _ = pixels.shape
        drawn = sample_visible(
            num_images,
            num_patches=num_patches,
            mask_ratio=self.recipe.mask_ratio,
            rng=numpy_stream(batch.seed, "masks", batch.step),
        )
        visible, hidden = (torch.from_numpy(numbers).to(images.device) for numbers in drawn)
        tokens = encode(self.backbone, images, visible=visible)
        extra = self.extra_losses(tokens.patches)
        predicted = self.decoder(tokens.cls, tokens.patches, visible=visible, hidden=hidden)
        targets = take(pixels, hidden)
        if self.recipe.normalise_pixels:
            targets = normalise_patches(targets)
        return {"pixels": (predicted.float() - targets).square().mean(), **extra}


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
