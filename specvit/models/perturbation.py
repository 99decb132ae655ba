"""A model a little beside its place: a repeat that differs from a run by rounding alone."""

from __future__ import annotations

import torch
from torch import nn

from specvit.seeding import torch_stream


def perturb(model: nn.Module, scale: float, *, seed: int) -> None:
    """Multiply all parameters by 1 + scale N(0, 1), in place.

    Parameters of one name get the same factors in every arm. Those that are 0, as biases at the start, stay 0.

    Args:
        model: The model at its initial weights.
        scale: Standard deviation of the factors. 1e-6, about eight units in the last place of a float32, is far below
            any effect.
        seed: The trial's seed, from which the factors follow.

    Source:
        Summers and Dinneen 2021, Nondeterminism and Instability in Neural Network Optimization, ICML: one bit of one
        weight gives the whole spread that seeds give, where a training is chaotic.
    """
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=torch_stream(seed, "perturbation", name))
            parameter.mul_(1 + scale * noise)
