"""Every probe, whole, on features and targets that lie on a device that is not the CPU."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from specvit.probes import PROBES, ProbeSplit

from ..pretended_device import pretended_device
from ..short_probes import SHORT_PROBES


def _split(seed: int) -> ProbeSplit:
    rng = torch.Generator().manual_seed(seed)
    labels = torch.arange(40) % 2
    patches = torch.randn(40, 16, 6, generator=rng)
    return ProbeSplit(
        cls=torch.randn(40, 6, generator=rng) + labels[:, None],
        patches=patches,
        grid=(4, 4),
        labels=labels,
        masks=(patches[:, :, 0] > 0).view(40, 4, 4).repeat_interleave(2, 1).repeat_interleave(2, 2).byte(),
        depth=(torch.rand(40, 8, 8, generator=rng) + 1).half(),
        boxes=torch.tensor([[0, 0, 4, 4, 1], [4, 4, 8, 8, 0]], dtype=torch.int16).expand(40, 2, 5).contiguous(),
        intermediate_cls=torch.randn(40, 4, 6, generator=rng),
        image_size=(8, 8),
    )


TENSORS = ("cls", "patches", "labels", "masks", "depth", "boxes", "intermediate_cls")


def test_every_probe_is_run() -> None:
    assert {name for name, _ in SHORT_PROBES} == set(PROBES)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        pytest.param(name, settings, marks=() if name in ("in_context", "knn") else pytest.mark.long)
        for name, settings in SHORT_PROBES
    ],
)
def test_a_probe_on_another_device_has_the_results_of_the_cpu(name: str, settings: dict[str, Any]) -> None:
    probe, splits = PROBES[name](**settings), (_split(0), _split(1))
    expected = probe.evaluate(*splits, num_classes=2, seed=0)
    with pretended_device() as device:
        there = [
            dataclasses.replace(split, **{key: getattr(split, key).to(device.torch_device) for key in TENSORS})
            for split in splits
        ]
        found = probe.evaluate(*there, num_classes=2, seed=0)
    assert found == pytest.approx(expected, rel=1e-3)
