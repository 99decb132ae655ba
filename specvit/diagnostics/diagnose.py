"""What [CLS] and patches look like inside a ViT: cosines, norms and attention, block by block.

Sites of a reading:

* ``norm1.in``, ``norm1.out``, ``norm2.in``, ``norm2.out`` in every block, ``final_norm.in`` and
  ``final_norm.out`` behind the last one: the tokens before and after that norm. Quantities, means over images:
  ``cls_patch_cosine``, ``patch_patch_cosine`` (two different patches of an image), ``cls_norm``,
  ``register_norm``, ``patch_norm``, and over all patches of all images ``high_norm_share`` (norm above a fixed
  threshold) and ``high_norm_share_relative`` (norm above 3 times the median patch norm at this site).
* ``attention`` in every block: ``cls_to_patches``, ``patches_to_cls`` and the other shares ``cls_to_cls``,
  ``cls_to_registers``, ``cls_to_bias``, ``patches_to_patches``, ...: the total weight that a query of the first
  kind gives to all keys of the second, averaged over heads, queries and images. Those of one query kind sum
  to 1; ``bias`` is the learned key of attention_bias.
* ``final_norm.out`` also has ``cls_rankme`` and ``patch_rankme``, alarms for collapse; see ``rank_me``.

What a model does not have (registers, a second patch) has no reading.

Source: Marouani et al. 2026 (arXiv 2602.08626), analysis of cosines around the norms. Darcet et al. 2023,
"Vision Transformers Need Registers" (arXiv 2309.16588), section 2: tokens of norm above 150 are the artefacts
of their ViT-g. That cut-off is bound to the model; the one relative to the median is ours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from timm.layers.attention import Attention
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from specvit.diagnostics.hooks import AttentionWatch, NormRecorder
from specvit.diagnostics.measurement import Measurement
from specvit.errors import ConfigError

__all__ = ["Measurement", "diagnose"]

HIGH_NORM_THRESHOLD = 150.0
FINAL_NORM = "final_norm"


@torch.inference_mode()
def diagnose(
    model: VisionTransformer,
    images: Tensor,
    *,
    batch_size: int = 64,
    high_norm_threshold: float = HIGH_NORM_THRESHOLD,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Measurement, ...]:
    """Measure the tokens and the attention of a model on images.

    Args:
        model: A ViT of timm's with [CLS]; plain or with own weights, registers, attention biases. It is run
            in evaluation mode, in float32 or what it is in; mode and hooks are as before afterwards. Where
            something else stands in the place of its blocks, only the final norm is measured.
        images: ``(M, 3, H, W)`` float, normalised as the model wants it, M of 1 or more, on any device. A
            few hundred are enough; RankMe of [CLS] is at most M.
        batch_size: Images at a time.
        high_norm_threshold: Norm above which a patch counts for ``high_norm_share``.
        progress: Called after each batch with the number of images that are done, and with M.

    Returns:
        The readings by block, then in the order of the forward pass; see the top of the module.

    Raises:
        ConfigError: If the model has no [CLS], or blocks that cannot be looked into, or there are no images.
    """
    if images.ndim != 4 or len(images) == 0:
        raise ConfigError(f"images: must be (M, 3, H, W) with M of 1 or more, not {tuple(images.shape)}")
    if batch_size < 1:
        raise ConfigError(f"batch_size: must be 1 or more, not {batch_size}")
    watches = _watches(model, high_norm_threshold)
    device = next(model.parameters()).device
    with _evaluating(model), _hooked(watches):
        for start in range(0, len(images), batch_size):
            model.forward_features(images[start : start + batch_size].to(device))
            if progress is not None:
                progress(min(start + batch_size, len(images)), len(images))
    return tuple(reading for watch in watches for reading in watch.readings())


def _watches(model: VisionTransformer, threshold: float) -> list[NormRecorder | AttentionWatch]:
    if not model.has_class_token:
        raise ConfigError("model: must have a [CLS] token to be diagnosed, but it has none")
    num_prefix = model.num_prefix_tokens
    watches: list[NormRecorder | AttentionWatch] = []
    # Other trunks do not carry these tokens through their blocks: there may be more of them, or fewer.
    blocks: list[Any] = list(model.blocks) if isinstance(model.blocks, nn.Sequential) else []
    for index, block in enumerate(blocks):
        attention = getattr(block, "attn", None)
        if not isinstance(attention, Attention) or not hasattr(block, "norm1") or not hasattr(block, "norm2"):
            kind = " with ".join(type(module).__name__ for module in (block, attention) if module is not None)
            raise ConfigError(f"model: must have blocks of norm1, attn, norm2 with timm's Attention, not {kind}")
        watches += [
            NormRecorder(block.norm1, index, "norm1", num_prefix, threshold),
            AttentionWatch(attention, index, num_prefix),
            NormRecorder(block.norm2, index, "norm2", num_prefix, threshold),
        ]
    return [*watches, NormRecorder(model.norm, len(model.blocks), FINAL_NORM, num_prefix, threshold, is_final=True)]


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode, and each of its modules back into its own."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


@contextmanager
def _hooked(watches: list[NormRecorder | AttentionWatch]) -> Iterator[None]:
    handles = []
    try:
        for watch in watches:
            handles.append(watch.module.register_forward_hook(watch.hook))
        yield
    finally:
        for handle in handles:
            handle.remove()
