"""The teacher's targets by part: those of the whole batch, in the memory of a part."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from specvit.data import Dataset, Split
from specvit.device import Device
from specvit.models.config import VitConfig
from specvit.models.scales import Scale
from specvit.models.vit import build_vit
from specvit.recipes.build import build_learner
from specvit.recipes.dinov2.head import DinoHead
from specvit.recipes.dinov2.losses import Centre
from specvit.recipes.dinov2.settings import DinoV2Cpu
from specvit.recipes.dinov2.targets import TeacherRows, balanced_targets, centred_targets
from specvit.training.learner import Batch

SIZES = (3, 0, 5, 4)
"""Rows of the parts; of one no patch is masked."""
K = 7
TEMPERATURE = 0.04


@pytest.fixture
def rows() -> TeacherRows:
    torch.manual_seed(0)
    head = DinoHead(6, hidden=10, bottleneck=4, num_prototypes=K)
    with torch.no_grad():
        return TeacherRows(head, [head.embed(torch.randn(size, 6)) for size in SIZES])


def _logits(rows: TeacherRows) -> Tensor:
    logits = torch.cat([rows.logits(number) for number in range(len(rows))])
    assert logits.shape == (sum(SIZES), K)
    assert logits.std() > 0.1
    return logits.double()


@torch.no_grad()
def test_targets_of_parts_have_the_centre_of_before_which_then_moves_to_the_mean_of_all(rows: TeacherRows) -> None:
    logits, centre, before = _logits(rows), Centre(K), torch.linspace(-0.3, 0.3, K)
    centre.centre.copy_(before)
    parts = []
    for targets in centred_targets(rows, centre, temperature=TEMPERATURE):
        assert torch.equal(centre.centre, before) is (len(parts) < len(SIZES) - 1)
        parts.append(targets)
    assert [len(part) for part in parts] == list(SIZES)
    expected = ((logits - before) / TEMPERATURE).softmax(dim=1)
    torch.testing.assert_close(torch.cat(parts).double(), expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(centre.centre.double(), 0.9 * before.double() + 0.1 * logits.mean(dim=0))


@torch.no_grad()
def test_targets_of_parts_are_balanced_over_all_rows(rows: TeacherRows) -> None:
    logits = _logits(rows)
    parts = list(balanced_targets(rows, temperature=TEMPERATURE))
    assert [len(part) for part in parts] == list(SIZES)
    q = torch.exp(logits / TEMPERATURE)  # the published definition, of which constant factors are left out
    for _ in range(3):
        q = q / q.sum(dim=0, keepdim=True)
        q = q / q.sum(dim=1, keepdim=True)
    torch.testing.assert_close(torch.cat(parts).double(), q, rtol=1e-4, atol=1e-6)


@torch.no_grad()
def test_targets_that_no_row_asks_for_are_none() -> None:
    head = DinoHead(6, hidden=10, bottleneck=4, num_prototypes=K)
    nothing = TeacherRows(head, [torch.empty(0, 4)] * 2)
    for targets in (balanced_targets(nothing, temperature=0.1), centred_targets(nothing, Centre(K), temperature=0.1)):
        assert [part.shape for part in targets] == [(0, K)] * 2


@torch.no_grad()
def test_balanced_targets_stay_finite_where_probabilities_are_below_the_range_of_float32() -> None:
    head = DinoHead(6, hidden=10, bottleneck=2, num_prototypes=3)
    head.prototypes.weight.copy_(torch.tensor([[1.0, 0.0], [-1.0, 0.0], [-1.0, 0.01]]))
    rows = TeacherRows(head, [torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 0.0], [0.8, 0.6]])])
    targets = torch.cat(list(balanced_targets(rows, temperature=0.01)))  # exp(-2 / 0.01) is 1e-87
    torch.testing.assert_close(targets.sum(dim=1), torch.ones(3))


def _peak_bytes(compute: Callable[[], Any]) -> int:
    """Return how far what torch has allocated rises above what it was before, by its allocator."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        compute()
    assert profiled.profiler is not None
    events = [event for event in profiled.profiler.kineto_results.events() if event.name() == "[memory]"]
    live = np.cumsum([event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())])
    return int(live.max())


def _peak_of_step(centering: Any, *, batch_size: int, micro_batch: int) -> tuple[int, int]:
    """Return the peak of a step's memory, and the bytes of a float32 copy of the outputs for all masked patches."""
    recipe = DinoV2Cpu(
        num_prototypes=2048, num_locals=0, global_size=8, head_hidden=8, head_bottleneck=8, centering=centering
    )
    split = Split(images=np.zeros((1, 3, 8, 8), dtype=np.uint8))
    dataset = Dataset(train=split, val=split, class_names=(), mask_names=(), fingerprint="")
    config = VitConfig(Scale(width=8, depth=1, num_heads=1), image_size=8, patch_size=2)
    learner: Any = build_learner(recipe, build_vit(config), dataset, seed=0).train()
    learner.micro_batch = micro_batch
    images = torch.rand(batch_size, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    batch = Batch(images=images, labels=None, step=3, steps=10, seed=0)
    parameters = [parameter for parameter in learner.parameters() if parameter.requires_grad]
    device = Device(torch.device("cpu"))
    peak = _peak_bytes(lambda: learner.compute_gradients(batch, parameters=parameters, device=device))
    return peak, int(learner.draw(batch).masked.sum()) * recipe.num_prototypes * 4


@pytest.mark.parametrize("centering", ["softmax", pytest.param("sinkhorn", marks=pytest.mark.long)])
def test_memory_of_a_step_follows_the_micro_batch_and_not_the_batch(centering: str) -> None:
    small, copy_of_small = _peak_of_step(centering, batch_size=8, micro_batch=4)
    large, copy_of_large = _peak_of_step(centering, batch_size=24, micro_batch=4)
    # Two parts or six: neither the outputs for the whole batch nor its targets are held, a copy each. Views are, and
    # the largest of six parts has more masked patches than the larger of two.
    assert large - small < 0.5 * (copy_of_large - copy_of_small)
    twice, _ = _peak_of_step(centering, batch_size=24, micro_batch=8)
    # A part of twice the images; the gradient of the prototypes and of the rest is the same.
    assert 1.3 * large < twice < 2.5 * large
