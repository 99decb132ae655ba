"""Parameter counts by arithmetic, so that a plan costs no model. The tests hold them against the models."""

from __future__ import annotations

from specvit.scales import Scale
from specvit.specialization import Specialization

MLP_RATIO = 4


def count_parameters(
    scale: Scale, *, image_size: int, patch_size: int, layer_scale: bool = False, cls_position: bool = True
) -> int:
    """Count the parameters of timm's plain ViT without a head.

    Args:
        scale: Width and depth.
        image_size: Side of the images in pixels, a multiple of ``patch_size``.
        patch_size: Side of a patch in pixels.
        layer_scale: Whether the blocks have layer scales.
        cls_position: Whether [CLS] has a position embedding.
    """
    width = scale.width
    num_patches = (image_size // patch_size) ** 2
    embedding = (3 * patch_size**2 + 1) * width + width + (num_patches + cls_position) * width
    block = 4 * width + 4 * width * (width + 1) + (2 * MLP_RATIO * width * width + (MLP_RATIO + 1) * width)
    if layer_scale:
        block += 2 * width
    return embedding + scale.depth * block + 2 * width


def count_extra_parameters(scale: Scale, specialization: Specialization) -> int:
    """Count the parameters that a specialization adds to the plain ViT."""
    width = scale.width
    per_block = {
        "norm1": 2 * width,
        "norm2": 2 * width,
        "qkv": 3 * width * (width + 1),
        "mlp": 2 * MLP_RATIO * width * width + (MLP_RATIO + 1) * width,
    }
    extra = sum(per_block[name] * len(blocks) for name, blocks in specialization.blocks.items() if blocks)
    return extra + (2 * width if "final_norm" in specialization.blocks else 0)
