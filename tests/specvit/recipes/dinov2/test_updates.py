"""What moves in an update of DINOv2's learner, and how far: student, teacher, heads and prototypes."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from specvit.data import Split
from specvit.device import Device
from specvit.training.loop import StepReport, pretrain, train_step
from specvit.training.optimizer import build_optimizer

from .small_learners import SCALE, make_batch, make_learner, values_of


@pytest.mark.parametrize("text", ["none", "norm+qkv+mlp+final_norm"])
@pytest.mark.parametrize(("progress", "momentum"), [(0.0, 0.9), (0.5, 0.95), (1.0, 1.0)])
def test_the_teacher_moves_by_the_moving_average(text: str, progress: float, momentum: float) -> None:
    learner = make_learner(text, ema=0.9, ema_end=1.0)
    assert all(torch.equal(s, t) for s, t in zip(*map(values_of, (learner.student, learner.teacher)), strict=True))
    with torch.no_grad():
        for parameter in learner.student.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3)))
    before = {name: value.clone() for name, value in learner.teacher.named_parameters()}
    learner.after_step(progress)
    student = dict(learner.student.named_parameters())
    for name, value in learner.teacher.named_parameters():
        expected = momentum * before[name].double() + (1 - momentum) * student[name].double()
        torch.testing.assert_close(value.double(), expected.detach(), rtol=1e-5, atol=1e-6)


def test_gradients_reach_the_student_and_the_mask_token_and_never_the_teacher() -> None:
    learner = make_learner("norm+qkv")
    torch.stack(list(learner.losses(make_batch()).values())).sum().backward()
    for name, parameter in learner.named_parameters():
        if name.startswith("teacher."):
            assert parameter.grad is None, name
            assert not parameter.requires_grad, name
        else:
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
    assert learner.mask_token.grad is not None
    assert learner.mask_token.grad.any()


def test_prototypes_stay_fixed_until_their_share_of_the_run() -> None:
    learner = make_learner(freeze_prototypes=0.2, shared_head=False)
    heads = (learner.student.cls_head, learner.student.patch_head)
    torch.stack(list(learner.losses(make_batch()).values())).sum().backward()
    learner.before_update(0.2)
    assert all(head.prototypes.weight.grad is not None for head in heads)
    learner.before_update(0.1)
    assert all(head.prototypes.weight.grad is None for head in heads)
    assert all(head.mlp[0].weight.grad is not None for head in heads)


@pytest.mark.parametrize("shared", [True, False])
def test_prototypes_of_a_run_move_only_after_their_share_of_it_and_the_rest_of_the_head_at_once(shared: bool) -> None:
    learner = make_learner(freeze_prototypes=0.3, shared_head=shared, steps=10, batch_size=4, weight_decay=0.1)
    heads = (learner.student.cls_head, learner.student.patch_head)
    before = [[value.clone() for value in values_of(head)] for head in heads]
    moved: list[list[bool]] = []

    def note(report: StepReport) -> bool:
        for head, old in zip(heads, before, strict=True):
            changed = [not torch.equal(new, value) for new, value in zip(values_of(head), old, strict=True)]
            assert all(changed[:-1])
            moved.append([changed[-1]])
        return report.step == 5

    images = np.random.default_rng(0).integers(0, 256, (8, 3, 16, 16), dtype=np.uint8)
    device = Device(torch.device("cpu"))
    pretrain(learner, learner.recipe, Split(images=images), seed=0, device=device, after_step=note)
    # Steps begin at 0, 0.1, 0.2 (frozen), 0.3 and 0.4 of the run.
    assert moved == [[False]] * 6 + [[True]] * 4


@pytest.mark.parametrize("shared", [True, False])
def test_heads_are_clipped_by_their_own_norms_and_the_rest_by_its(shared: bool) -> None:
    learner = make_learner("norm+qkv", shared_head=shared, clip_separately=True)
    learner.regulariser = torch.nn.Linear(3, 2)  # what a comparator adds is trained along
    trainable = [parameter for parameter in learner.parameters() if parameter.requires_grad]
    groups = learner.clip_groups(trainable)
    assert sorted(map(id, itertools.chain(*groups))) == sorted(map(id, trainable))
    names = {id(parameter): name for name, parameter in learner.named_parameters()}
    modules = [{name.split(".")[1] for name in (names[id(p)] for p in group) if "head" in name} for group in groups]
    assert modules == ([set(), {"cls_head"}] if shared else [set(), {"cls_head"}, {"patch_head"}])
    assert {names[id(p)] for p in groups[0]} >= {"mask_token", "student.backbone.cls_token", "regulariser.weight"}
    (together,) = make_learner(shared_head=shared).clip_groups(trainable)
    assert together is trainable


@pytest.mark.parametrize("shared", [True, False])
def test_a_step_clips_each_group_as_torch_does_alone(monkeypatch: pytest.MonkeyPatch, shared: bool) -> None:
    limit = 1e-3
    learner = make_learner(shared_head=shared, clip_separately=True, clip_norm=limit, steps=10)
    twin = make_learner(shared_head=shared)
    for each in (learner, twin):
        for name, parameter in each.named_parameters():
            parameter.register_hook(_scaling(name)) if parameter.requires_grad else None
    torch.stack(list(twin.losses(make_batch()).values())).sum().backward()
    student = twin.student
    modules = [student.backbone, student.cls_head, *([] if shared else [student.patch_head])]
    parts = [list(module.parameters()) for module in modules]
    parts[0].append(twin.mask_token)
    norms = [float(torch.nn.utils.clip_grad_norm_(part, limit)) for part in parts]
    assert len({round(norm, 6) for norm in norms}) == len(parts)
    assert min(norms) > limit  # or nothing would be clipped

    optimizer = build_optimizer(learner, learner.recipe, depth=SCALE.depth, device=Device(torch.device("cpu")))
    trainable = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    monkeypatch.setattr(optimizer, "step", lambda: None)  # the gradients are looked at
    device = Device(torch.device("cpu"))
    train_step(
        learner,
        learner.recipe,
        make_batch(),
        optimizer=optimizer,
        trainable=trainable,
        device=device,
    )
    expected = dict(twin.named_parameters())
    for name, parameter in learner.named_parameters():
        if parameter.requires_grad:
            torch.testing.assert_close(parameter.grad, expected[name].grad, rtol=1e-4, atol=1e-9, msg=name)


def _scaling(name: str) -> Callable[[Tensor], Tensor]:
    """Make the gradients of the modules differ in size by much."""
    factor = 100.0 if "cls_head" in name else 10.0 if "patch_head" in name else 1.0
    return lambda gradient: factor * gradient
