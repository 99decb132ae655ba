"""What a teacher says and whether its student agrees, by the prototypes of [CLS].

Shapes: B images, K prototypes, C crops of P patches.
"""

from __future__ import annotations

import math

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


def mean_output(logits: Tensor, *, temperature: float) -> Tensor:
    """Return the mean of the student's distributions of [CLS], weighted as the DINO term's pairs are.

    Args:
        logits: ``(2 + L, B, K)`` its outputs for the global views, then for the local ones, of which each is matched to
            both targets and so counts twice.
        temperature: The student's.

    Returns:
        ``(K,)``, adding up to 1.
    """
    by_view = (logits.double() / temperature).softmax(dim=-1).mean(dim=1)
    return (by_view[:2].sum(dim=0) + 2 * by_view[2:].sum(dim=0)) / (2 + 2 * len(by_view[2:]))


def constant_loss(mean_target: Tensor, mean_output: Tensor) -> float:
    """Return the loss of one output for all images: the student's mean, or a uniform one if that is better.

    Whatever a student shows that has nothing to do with the image costs at least as much as its mean (Jensen's
    inequality), so that a loss below this value holds something of the images. Where targets favour a few prototypes,
    as those that are centred by their mean do, it is far below ln K.

    Args:
        mean_target: ``(K,)`` the mean of the targets, adding up to 1.
        mean_output: ``(K,)`` the mean of the student's distributions.

    Returns:
        The cross-entropy in nats, from 0 to ln K.
    """
    own = -torch.special.xlogy(mean_target, mean_output).sum()
    return min(float(own), math.log(len(mean_target)))


def masked_share(masked: Tensor) -> Tensor:
    """Return the share of the crops of which a patch is masked, in [0, 1]: ``(C, P)`` bool -> scalar."""
    return masked.any(dim=1).mean(dtype=torch.float64)
