"""DINOv2's learner: its losses, heads and blocks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from specvit.models.stochastic_depth import SubsetBlock
from specvit.models.vit import encode
from specvit.recipes.dinov2 import targets
from specvit.recipes.dinov2.losses import cross_entropy, koleo_loss, sinkhorn

from .small_learners import B, make_batch, make_learner, values_of


def test_the_losses_are_those_of_their_definitions_on_what_was_encoded(encoded: list[dict[str, Any]]) -> None:
    learner = make_learner(shared_head=False, dino_weight=2.0, ibot_weight=3.0, koleo_weight=0.5)
    with torch.no_grad():  # the teacher differs from the student, as after some steps
        for parameter in learner.teacher.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
    losses = learner.losses(make_batch())
    teacher_views, student_views, local_views = (call["images"] for call in encoded)
    masked = encoded[1]["masked"]

    student, teacher = learner.student, learner.teacher
    temperature = 0.04 + (0.07 - 0.04) * 0.3 / 0.3  # step 3 of 10 ends the warm-up of 0.3
    teacher_tokens = encode(teacher.backbone, teacher_views)
    cls_targets = sinkhorn(teacher.cls_head(teacher_tokens.cls), temperature=temperature)
    patch_targets = sinkhorn(teacher.patch_head(teacher_tokens.patches[masked]), temperature=temperature)
    tokens = encode(student.backbone, student_views, masked=masked, mask_token=learner.mask_token)
    logits = student.cls_head(torch.cat([tokens.cls, encode(student.backbone, local_views).cls]))
    views = logits.view(4, B, 10)

    pairs = [(t, s) for t in range(2) for s in range(4) if s != t]
    dino = torch.stack(
        [cross_entropy(cls_targets.view(2, B, 10)[t], views[s], temperature=0.1).mean() for t, s in pairs]
    ).mean()
    rows = cross_entropy(patch_targets, student.patch_head(tokens.patches[masked]), temperature=0.1)
    crop_of_row = masked.nonzero()[:, 0]
    ibot = sum(rows[crop_of_row == crop].mean() for crop in crop_of_row.unique()) / (2 * B)
    koleo = koleo_loss(tokens.cls[:B]) + koleo_loss(tokens.cls[B:])
    torch.testing.assert_close(losses["dino"], 2 * dino)
    torch.testing.assert_close(losses["ibot"], 3 * ibot)
    torch.testing.assert_close(losses["koleo"], 0.5 * koleo)


@pytest.mark.parametrize(("step", "temperature"), [(0, 0.04), (1, 0.05), (2, 0.06), (3, 0.07), (9, 0.07)])
def test_the_teachers_temperature_rises_over_its_warm_up(
    monkeypatch: pytest.MonkeyPatch, step: int, temperature: float
) -> None:
    seen: list[float] = []

    def spy(logits: Tensor, *, temperature: float) -> Tensor:
        seen.append(temperature)
        return logits.softmax(-1)

    monkeypatch.setattr(targets, "sinkhorn", spy)
    make_learner().losses(make_batch(step=step))
    assert seen == pytest.approx([temperature] * 2)


def test_the_head_of_the_patches_may_have_a_bottleneck_of_its_own() -> None:
    learner = make_learner(shared_head=False, patch_bottleneck=3)
    assert learner.student.cls_head.prototypes.weight.shape == (10, 6)
    assert learner.student.patch_head.prototypes.weight.shape == (10, 3)
    assert all(value.isfinite() for value in learner.losses(make_batch()).values())


def test_the_published_drop_path_trains_every_block_at_one_rate_on_part_of_the_batch() -> None:
    published = {"drop_path": 0.5, "drop_path_uniform": True, "drop_path_subset": True}
    learner = make_learner(**published)
    assert all(isinstance(block, SubsetBlock) for block in learner.student.backbone.blocks)
    batch = make_batch()
    torch.manual_seed(3)
    losses = learner.train().losses(batch)
    torch.manual_seed(3)
    arm = make_learner("norm+qkv+mlp", **published).train().losses(batch)
    assert all(torch.equal(losses[name], arm[name]) for name in losses)
    torch.manual_seed(4)
    assert not torch.equal(learner.losses(batch)["dino"], losses["dino"])
    torch.manual_seed(3)
    assert not torch.equal(make_learner().train().losses(batch)["dino"], losses["dino"])


@pytest.mark.parametrize("shared", [True, False])
def test_a_shared_head_is_one_module_in_student_and_teacher_and_a_separate_one_is_two(shared: bool) -> None:
    learner = make_learner(shared_head=shared)
    for network in (learner.student, learner.teacher):
        assert (network.cls_head is network.patch_head) is shared
    assert learner.teacher.cls_head is not learner.student.cls_head
    if not shared:
        first, second = (head.mlp[0].weight for head in (learner.student.cls_head, learner.student.patch_head))
        assert not torch.equal(first, second)


def test_the_probed_backbone_is_the_one_that_the_recipe_names() -> None:
    teacher, student = make_learner(probe="teacher"), make_learner(probe="student")
    assert teacher.eval_backbone is teacher.teacher.backbone
    assert student.eval_backbone is student.student.backbone


def test_heads_do_not_depend_on_the_specialization() -> None:
    plain, arm = make_learner(shared_head=False), make_learner("norm+qkv+mlp", shared_head=False)
    for head in ("cls_head", "patch_head"):
        pairs = zip(values_of(getattr(plain.student, head)), values_of(getattr(arm.student, head)), strict=True)
        assert all(torch.equal(one, other) for one, other in pairs)


@pytest.mark.parametrize("centering", ["softmax", "sinkhorn"])
@pytest.mark.parametrize("changes", [{"mask_probability": 0.0}, {"num_locals": 0}, {"colour": False}])
def test_parts_that_are_switched_off_leave_a_finite_loss(centering: str, changes: dict[str, Any]) -> None:
    learner = make_learner(centering=centering, **changes)
    for step in range(2):
        losses = learner.losses(make_batch(step=step))
        assert all(value.isfinite() for value in losses.values())
        if "mask_probability" in changes:
            assert losses["ibot"] == 0.0


def test_softmax_centering_moves_one_centre_for_each_kind_of_token() -> None:
    learner = make_learner(centering="softmax")
    learner.losses(make_batch())
    assert learner.cls_centre.centre.any()
    assert learner.patch_centre.centre.any()
    assert not torch.equal(learner.cls_centre.centre, learner.patch_centre.centre)
    assert not learner.cls_centre.centre.requires_grad
