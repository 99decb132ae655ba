"""The backbone: timm's VisionTransformer, with two-kinds layers swapped in where [CLS] is specialized."""

from __future__ import annotations

from typing import Literal

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from specvit.errors import ConfigError
from specvit.layers import route
from specvit.scales import Scale
from specvit.seeding import derive_seed
from specvit.specialization import COMPONENTS, Specialization


def build_vit(
    scale: Scale,
    *,
    image_size: int,
    patch_size: int,
    specialization: Specialization | None = None,
    init: Literal["copy", "independent"] = "copy",
    seed: int = 0,
    drop_path: float = 0.0,
    layer_scale: float = 0.0,
    cls_position: bool = True,
) -> VisionTransformer:
    """Build a ViT without a head.

    The shared weights depend on ``seed`` alone: every arm starts from the same ones. Images of other sizes
    are taken too; their position embeddings are resampled.

    Args:
        scale: Width, depth and heads.
        image_size: Side of the images in pixels, a multiple of ``patch_size``.
        patch_size: Side of a patch in pixels.
        specialization: Where [CLS] has its own weights; None or empty = timm's plain model.
        init: ``copy``: own weights start as copies of the shared ones, so that the model computes the same
            function as the plain one. ``independent``: they are those of a model from another seed.
        seed: Seed of the initial weights.
        drop_path: Stochastic depth rate of the last block, in [0, 1), rising linearly from 0.
        layer_scale: Initial value of the layer scales; 0 = none.
        cls_position: Whether [CLS] has a position embedding (not so in DeiT-III).

    Returns:
        timm's model, its modules replaced in the specialized places.

    Raises:
        ConfigError: If the patches do not tile the image, or the specialization is for another depth.
    """
    if image_size % patch_size:
        raise ConfigError(f"model.patch_size: must divide the image size {image_size}, not {patch_size}")

    def plain(stream: str) -> VisionTransformer:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(seed, stream))
            return VisionTransformer(
                img_size=image_size,
                patch_size=patch_size,
                num_classes=0,
                embed_dim=scale.width,
                depth=scale.depth,
                num_heads=scale.num_heads,
                init_values=layer_scale or None,
                drop_path_rate=drop_path,
                no_embed_class=not cls_position,
                dynamic_img_size=True,
            )

    model = plain("init")
    if specialization:
        specialize(model, specialization, donor=model if init == "copy" else plain("independent init"))
    return model


def specialize(model: VisionTransformer, specialization: Specialization, *, donor: VisionTransformer) -> None:
    """Give [CLS] its own weights in ``model``, in place.

    Args:
        model: A plain timm ViT.
        specialization: The places.
        donor: A ViT of the same shape whose weights the own weights start from; ``model`` itself for copies.

    Raises:
        ConfigError: If the specialization was resolved for another depth.
    """
    if specialization.depth != len(model.blocks):
        raise ConfigError(
            f"specialization {specialization.text!r} is for {specialization.depth} blocks, "
            f"but the model has {len(model.blocks)}"
        )
    for name, indices in specialization.blocks.items():
        component = COMPONENTS[name]
        prefixes = [f"blocks.{index}." for index in indices] if component.per_block else [""]
        for path in (prefix + module for prefix in prefixes for module in component.modules):
            model.set_submodule(path, route(model.get_submodule(path), donor.get_submodule(path)))


def encode(
    model: VisionTransformer,
    images: Tensor,
    *,
    masked: Tensor | None = None,
    mask_token: Tensor | None = None,
) -> Tensor:
    """Compute the tokens of images, with some patches hidden.

    Args:
        model: A ViT that takes any image size.
        images: ``(B, 3, H, W)`` float, normalised.
        masked: ``(B, P)`` bool, the patches to hide, or None.
        mask_token: ``(D,)`` what hidden patches are replaced by, before positions are added.

    Returns:
        ``(B, 1 + P, D)``: [CLS], then patches row by row, after the final norm.
    """
    x = model.patch_embed(images)
    if masked is not None and mask_token is not None:
        x = torch.where(masked.view(*x.shape[:3], 1), mask_token.to(x.dtype), x)
    x = model.norm_pre(model.patch_drop(model._pos_embed(x)))
    tokens: Tensor = model.norm(model.blocks(x))
    return tokens


def num_parameters(model: nn.Module) -> int:
    """Count the parameters of a model."""
    return sum(parameter.numel() for parameter in model.parameters())
