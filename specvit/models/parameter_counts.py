"""Parameter counts by arithmetic, so that a plan costs no model. The tests hold them against the models."""

from __future__ import annotations

from specvit.models.config import HighNorm
from specvit.models.scales import Scale
from specvit.specialization.components import Site
from specvit.specialization.language import Specialization
from specvit.specialization.modes import Mode

MLP_RATIO = 4


def count_parameters(
    scale: Scale,
    *,
    image_size: int,
    patch_size: int,
    layer_scale: bool = False,
    cls_position: bool = True,
    high_norm: HighNorm | None = None,
) -> int:
    """Count the parameters of timm's plain ViT without a head.

    Args:
        scale: Width and depth.
        image_size: Side of the images in pixels, a multiple of ``patch_size``.
        patch_size: Side of a patch in pixels.
        layer_scale: Whether the blocks have layer scales.
        cls_position: Whether [CLS] has a position embedding.
        high_norm: Registers or attention biases; None = neither.
    """
    width = scale.width
    num_patches = (image_size // patch_size) ** 2
    embedding = (3 * patch_size**2 + 1) * width + width + (num_patches + cls_position) * width
    block = count_block_parameters(width, layer_scale=layer_scale)
    if high_norm is not None and high_norm.num_registers:
        # [CLS]'s position is part of its token there.
        embedding += (high_norm.num_registers - cls_position) * width
    if high_norm is not None and high_norm.attention_bias:
        block += 2 * width
    return embedding + scale.depth * block + 2 * width


def count_block_parameters(width: int, *, layer_scale: bool) -> int:
    """Count the parameters of one of timm's blocks, with or without layer scales."""
    mlp = 2 * MLP_RATIO * width * width + (MLP_RATIO + 1) * width
    return 4 * width + 4 * width * (width + 1) + mlp + (2 * width if layer_scale else 0)


def count_extra_parameters(scale: Scale, specialization: Specialization) -> int:
    """Count the parameters that a specialization adds to the plain ViT."""
    return sum(
        count_own_weights(site, mode, width=scale.width)
        for component, _, mode in specialization.places()
        for site in component.sites
    )


def count_own_weights(site: Site, mode: Mode, *, width: int) -> int:
    """Count the own weights of one module in one mode."""
    inputs, outputs = site.inputs * width, site.outputs * width
    if mode.kind == "lora":
        return mode.rank * (inputs + outputs)
    gates = {"gate": outputs, "gate:token": (inputs or width) + 1}
    return inputs * outputs + site.vectors * outputs + gates.get(mode.kind, 0)
