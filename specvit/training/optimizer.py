"""Parameter groups: what decays, and at which rate what learns; and the schedules over a run.

The published recipes choose by parameter name. A weight that only [CLS] uses must be treated exactly as the
shared weight that it stands beside, or an ablation compares optimizers. So here the choice follows the shape
(vectors do not decay) and the place in the model (block number), which both weights have in common.

LAMB (You et al. 2020, arXiv 1904.00962) multiplies the step of each matrix by the ratio of its norm to the
norm of its update. An own weight is a tensor apart, so it gets a ratio of its own: a full copy has that of the
shared weight as long as the two have equal gradients, while a copy of a part (``q`` of ``qkv``), a low-rank
factor (ratio 1 while it is 0, then that of a small matrix) or a gate does not. AdamW steps do not depend on
how weights are cut into tensors: under LAMB, arms of different modes differ in this too.

An arm can ask for other rates of its own weights, ``OwnFactors``; then it compares them, too.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import torch
from timm.optim.lamb import Lamb
from torch import nn

from specvit.device import Device
from specvit.models.routed_layers import is_own
from specvit.training.recipe import Recipe

NO_DECAY = frozenset(
    {"pos_embed", "cls_token", "reg_token", "mask_token", "slot_token", "key_bias", "value_bias"}
)
"""Tables of tokens, positions and attention biases: not vectors by their shape, but not weights of a layer."""

_BLOCK = re.compile(r"(?:^|\.)blocks\.(\d+)\.")
_EMBEDDING = re.compile(r"(?:^|\.)(patch_embed\.|pos_embed$|cls_token$|reg_token$|mask_token$|slot_token$)")


@dataclass(frozen=True)
class OwnFactors:
    """What own weights have in place of the rates of the shared ones that they stand beside, as factors on those.

    Attributes:
        lr: On the learning rate, and so on the step of the weight decay, which is the product of both.
        weight_decay: On the weight decay, of what decays.
    """

    lr: float = 1.0
    weight_decay: float = 1.0


AS_SHARED = OwnFactors()


def decays(name: str, parameter: nn.Parameter) -> bool:
    """Return whether weight decay applies to a parameter: to matrices and kernels, not to vectors and tokens."""
    return parameter.ndim > 1 and name.rpartition(".")[2] not in NO_DECAY


def lr_factor(name: str, *, depth: int, layer_decay: float, patch_embed_lr: float) -> float:
    """Return the factor on the learning rate of a parameter.

    Args:
        name: Its dotted name; backbone parameters are recognised by ``blocks.N.`` and the embeddings' names.
        depth: Number of blocks.
        layer_decay: Factor per layer: 1 for what follows the last block, ``layer_decay`` for the last block,
            ``layer_decay ** (depth + 1)`` for the embeddings.
        patch_embed_lr: Further factor for the patch embedding.

    Source: dinov2/utils/param_groups.py.
    """
    block = _BLOCK.search(name)
    if block:
        return layer_decay ** (depth - int(block[1]))
    if _EMBEDDING.search(name):
        return layer_decay ** (depth + 1) * (patch_embed_lr if "patch_embed." in name else 1.0)
    return 1.0


def build_optimizer(
    model: nn.Module, recipe: Recipe, *, depth: int, device: Device, own: OwnFactors = AS_SHARED
) -> torch.optim.Optimizer:
    """Build the recipe's optimizer over the parameters that require gradients.

    Every group carries ``lr_factor`` and ``weight_decay_factor``, by which ``set_schedules`` sets ``lr`` and
    ``weight_decay`` before each step.

    Args:
        model: What is trained.
        recipe: The optimizer and its constants.
        depth: Number of blocks of the backbone.
        device: Where it trains.
        own: Factors for own weights.

    Source of LAMB's constants: facebookresearch/deit, main.py (eps 1e-8) and apex's FusedLAMB, which it calls
    (no ratio for what does not decay). Gradients are clipped by the loop, to ``clip_norm``, in place of the
    optimizer's own clipping to 1.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        factor = lr_factor(
            name, depth=depth, layer_decay=recipe.layer_decay, patch_embed_lr=recipe.patch_embed_lr
        )
        factors = own if is_own(name) else AS_SHARED
        decay = factors.weight_decay if decays(name, parameter) else 0.0
        groups.setdefault((factors.lr * factor, decay), []).append(parameter)
    parameter_groups = [
        {"params": parameters, "lr_factor": factor, "weight_decay_factor": decay}
        for (factor, decay), parameters in groups.items()
    ]
    if recipe.optimizer == "lamb":
        lamb: torch.optim.Optimizer = Lamb(parameter_groups, betas=recipe.betas, eps=1e-8, max_grad_norm=None)
        return lamb
    return torch.optim.AdamW(parameter_groups, betas=recipe.betas, fused=device.fused_optimizer)


def set_schedules(optimizer: torch.optim.Optimizer, *, lr: float, weight_decay: float) -> None:
    """Set the learning rate and weight decay of every group for the step to come."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_factor"]
        group["weight_decay"] = weight_decay * group["weight_decay_factor"]


def cosine(progress: float, start: float, end: float) -> float:
    """Move from ``start`` to ``end`` along half a cosine."""
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * progress))


def warmup_cosine(progress: float, *, peak: float, end: float, warmup: float) -> float:
    """Rise linearly from 0 to ``peak`` during the share ``warmup`` of the run, then fall on a cosine to ``end``."""
    if progress < warmup:
        return peak * progress / warmup
    return cosine((progress - warmup) / (1 - warmup), peak, end) if warmup < 1 else peak


def linear(progress: float, start: float, end: float, *, until: float) -> float:
    """Move linearly from ``start`` to ``end`` during the share ``until`` of the run, then stay."""
    return end if progress >= until else start + (end - start) * progress / until
