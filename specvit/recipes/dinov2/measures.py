"""What a teacher says and whether its student agrees, by the prototypes of [CLS].

Shapes: B images, K prototypes, C crops of P patches.
"""

from __future__ import annotations

import torch
from torch import Tensor


def entropy(probabilities: Tensor) -> Tensor:
    """Return the entropy of each distribution in nats, in [0, ln K]: ``(..., K)`` -> ``(...)``."""
    entropies: Tensor = torch.special.entr(probabilities).sum(dim=-1)
    return entropies


def agreement(targets: Tensor, logits: Tensor) -> Tensor:
    """Return how often the student's largest prototype is the teacher's for the other global view of the image.

    Args:
        targets: ``(2, B, K)`` the teacher's distributions of the two global views.
        logits: ``(2, B, K)`` the student's outputs for the same views.

    Returns:
        The share of the 2 B pairs of an image and a view, in [0, 1]; by chance 1 / K where all prototypes are used.
    """
    return (logits.argmax(dim=-1) == targets.flip(0).argmax(dim=-1)).mean(dtype=torch.float64)


def masked_share(masked: Tensor) -> Tensor:
    """Return the share of the crops of which a patch is masked, in [0, 1]: ``(C, P)`` bool -> scalar."""
    return masked.any(dim=1).mean(dtype=torch.float64)
