"""How much a trial computes, by arithmetic on its settings: for a guess at its time before anything was measured.

Counted are multiplications and additions of matrices, two operations each, and three times as many for what is trained
(a forward pass, and twice as much backwards): of the blocks, attention included, of recipes' heads and decoders, and of
the features that probes read. What probes fit on these, data, optimizer and the small operations between are not: they
are in the rate that ``rough_seconds`` takes.
"""

from __future__ import annotations

from specvit.config import TrialConfig
from specvit.footprint import count_head_parameters, forward_passes
from specvit.models.config import parse_high_norm
from specvit.models.scales import SCALES, Scale
from specvit.recipes.dinov2.settings import DinoV2
from specvit.recipes.mae.settings import Mae
from specvit.training.recipe import Recipe

CORE_RATE = 5e10
"""Operations a second that a core is taken to do of small models: trials of ours did 4 to 7e10 on a core of two."""

GPU_RATE = 2e13
"""Likewise a GPU; not measured."""

PROBE_S = 0.0025
"""Seconds that probes are taken to fit and score an image's features: those of the floors, 8 s with 3,072 images."""


def rough_seconds(config: TrialConfig, *, cores: float = 1.0, gpus: float = 0.0) -> float | None:
    """Return a guess at the wall seconds of a trial, good for "minutes or hours" and no more.

    Args:
        config: The trial.
        cores: Cores that it runs on, in all its processes together.
        gpus: GPUs, likewise; if it has some, they do the work.

    Returns:
        The seconds; None where its shape or the number of its images is not known.
    """
    operations, num_images = trial_operations(config), probed_images(config)
    if operations is None or num_images is None:
        return None
    return PROBE_S * num_images + operations / (GPU_RATE * gpus if gpus else CORE_RATE * max(cores, 1.0))


def trial_operations(config: TrialConfig) -> float | None:
    """Return the operations of a trial: its training, and the features of its probes.

    Args:
        config: The trial.

    Returns:
        None where the backbone comes from elsewhere, its length is in epochs, or the number of images that probes look
        at is not known.
    """
    if config.treatment.external is not None or config.objective.epochs is not None:
        return None
    num_images = probed_images(config)
    if num_images is None:
        return None
    if config.treatment.kind == "raw_pixels":
        return 0.0
    scale = SCALES[config.model.scale]
    prefix = 1 + parse_high_norm(config.model.high_norm).num_registers
    tokens = prefix + (config.data.probed_size // config.model.patch_size) ** 2
    operations = num_images * forward_operations(scale, tokens)
    if config.treatment.is_trained:
        operations += config.objective.steps * step_operations(config.objective, config, scale=scale, prefix=prefix)
    return operations


def forward_operations(scale: Scale, tokens: int) -> float:
    """Return the operations of a forward pass of an image of so many tokens: 24 N D^2 + 4 N^2 D a block."""
    return scale.depth * (24 * tokens * scale.width**2 + 4 * tokens**2 * scale.width)


def step_operations(recipe: Recipe, config: TrialConfig, *, scale: Scale, prefix: int) -> float:
    """Return the operations of an optimizer step; of a recipe that is not known here those of a forward pass thrice.

    Args:
        recipe: What is trained.
        config: Its trial.
        scale: The backbone's.
        prefix: Tokens beside the patches.
    """
    patch, side = config.model.patch_size, config.data.image_size
    passes = forward_passes(recipe, side=side, patch=patch, prefix=prefix)
    each = [one.views * forward_operations(scale, one.tokens) for one in passes]
    head = 2 * count_head_parameters(recipe, width=scale.width, patch=patch)
    operations = 3.0 * sum(each)
    if isinstance(recipe, DinoV2):
        masked = passes[0].views * passes[0].tokens * recipe.mask_probability * sum(recipe.mask_ratio) / 2
        seen = sum(one.views for one in passes) + masked
        operations += each[0] + head / (1 if recipe.shared_head else 2) * (3 * seen + 2 + masked)  # and the teacher
    elif isinstance(recipe, Mae):
        operations += 3.0 * head * (side // patch) ** 2
    return recipe.batch_size * operations


def probed_images(config: TrialConfig) -> int | None:
    """Count how many images the probes look at, at the end and at rungs; None if that is not known."""
    total = 0
    for source in config.sources:
        probes = [probe for probe in config.probes if (probe.data or config.data) == source]
        if not probes:
            continue
        if source.split_sizes is None:
            return None
        num_train, num_val = source.split_sizes
        total += max(min(probe.num_train or num_train, num_train) for probe in probes) + num_val
    if config.treatment.is_trained:
        total += config.rungs.count * config.rungs.num_images
    return total
