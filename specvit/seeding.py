"""Named random streams: everything random draws from its own stream, derived from the trial's seed.

Two arms with the same seed see the same initial weights, images, crops and masks, whatever else their
treatment draws: a stream depends on the seed, its name and its step, never on how much was drawn before. For
the same reason a run can be continued at any step.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch


def derive_seed(seed: int, *names: str | int) -> int:
    """Derive the seed of a stream.

    Args:
        seed: The trial's seed.
        names: What the stream is for, e.g. ``"crops", step``.

    Returns:
        An integer in [0, 2^63).
    """
    text = "/".join(str(part) for part in (seed, *names))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def torch_stream(seed: int, *names: str | int) -> torch.Generator:
    """Return a CPU generator for the named stream."""
    return torch.Generator().manual_seed(derive_seed(seed, *names))


def numpy_stream(seed: int, *names: str | int) -> np.random.Generator:
    """Return a NumPy generator for the named stream."""
    return np.random.default_rng(derive_seed(seed, *names))
