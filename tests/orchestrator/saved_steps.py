"""Sections of a sweep that can be interrupted at any step and goes on from there."""

from __future__ import annotations

from typing import Any


def sections_of(*, steps: int) -> dict[str, Any]:
    """Return sections of two trials whose states are saved after every step, with rungs at 1/3 and 2/3 of them."""
    return {
        "objective": {"recipe": "dinov2_cpu", "steps": steps, "batch_size": 8},
        "rungs": {"count": 2, "num_images": 32},
        "seeds": 1,
        "ablate": {"components": ["none", "norm"]},
        "floors": [],
        "checkpoint_every_s": 1e-4,
        "checkpoint_max_share": 1,
    }
