"""How new linear layers are drawn: as timm draws those of a ViT."""

from __future__ import annotations

import torch
from torch import nn

INIT_STD = 0.02


def init_linear(module: nn.Module) -> None:
    """Draw the weights of all linear layers as timm does for a ViT: truncated normal, std 0.02, bias 0."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.trunc_normal_(layer.weight, std=INIT_STD)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def draw_classifier(width: int, num_classes: int, *, seed: int) -> nn.Linear:
    """Draw a linear classifier of tokens, without touching the global stream of random numbers.

    Args:
        width: Channels of a token.
        num_classes: Number of classes.
        seed: Seed of its weights alone.
    """
    with torch.random.fork_rng(devices=[]):
        classifier = nn.Linear(width, num_classes)
        torch.manual_seed(seed)
        init_linear(classifier)
    return classifier
