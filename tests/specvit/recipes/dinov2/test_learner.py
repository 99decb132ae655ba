"""DINOv2's learner: views, student, teacher, targets."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from specvit.data import Dataset, Split
from specvit.device import Device
from specvit.models.config import VitConfig
from specvit.models.scales import Scale
from specvit.models.stochastic_depth import SubsetBlock
from specvit.models.vit import build_vit, encode
from specvit.recipes.build import build_learner
from specvit.recipes.dinov2 import learner as dinov2
from specvit.recipes.dinov2.learner import VIEW_COLOURS, DinoV2Learner
from specvit.recipes.dinov2.losses import cross_entropy, koleo_loss
from specvit.recipes.dinov2.settings import DinoV2Cpu
from specvit.training.augment import ColourSettings
from specvit.training.learner import Batch
from specvit.training.loop import StepReport, pretrain, train_step
from specvit.training.optimizer import build_optimizer

SCALE = Scale(width=16, depth=2, num_heads=2)
B, P = 6, 16
BLANK = Split(images=np.zeros((1, 3, 16, 16), dtype=np.uint8))
DATASET = Dataset(train=BLANK, val=BLANK, class_names=(), mask_names=(), fingerprint="")


def _learner(text: str = "none", **changes: Any) -> DinoV2Learner:
    small = {"num_locals": 2, "local_size": 8, "head_hidden": 12, "head_bottleneck": 6, "num_prototypes": 10}
    published = {
        "global_size": None,
        "student_temp": 0.1,
        "teacher_temp": 0.07,
        "teacher_temp_start": 0.04,
        "centering": "sinkhorn",
    }
    recipe = DinoV2Cpu(**{**small, **published, **changes})
    backbone = build_vit(
        VitConfig(
            SCALE,
            image_size=16,
            patch_size=4,
            specialization=text,
            drop_path=recipe.drop_path,
            drop_path_uniform=recipe.drop_path_uniform,
            drop_path_subset=recipe.drops_subsets(),
        )
    )
    learner = build_learner(recipe, backbone, DATASET, seed=0)
    assert isinstance(learner, DinoV2Learner)
    return learner


def _batch(*, step: int = 3, num: int = B) -> Batch:
    images = torch.rand(num, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    return Batch(images=images, labels=None, step=step, steps=10, seed=0)


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Record what is encoded, by which backbone."""
    calls: list[dict[str, Any]] = []

    def spy(model: Any, images: Tensor, **masking: Any) -> Tensor:
        calls.append({"model": model, "images": images, "training": model.training, **masking})
        return encode(model, images, **masking)

    monkeypatch.setattr(dinov2, "encode", spy)
    return calls


def test_the_teacher_sees_whole_globals_and_the_student_masked_globals_and_locals(
    encoded: list[dict[str, Any]],
) -> None:
    learner = _learner().train()
    learner.losses(_batch())
    teacher, student_global, student_local = encoded
    assert teacher["model"] is learner.teacher.backbone
    assert not teacher["training"]
    assert teacher.get("masked") is None
    assert student_global["model"] is student_local["model"] is learner.student.backbone
    assert student_global["training"]
    assert torch.equal(student_global["images"], teacher["images"])
    assert student_global["images"].shape == (2 * B, 3, 16, 16)
    assert student_global["masked"].shape == (2 * B, P)
    assert int(student_global["masked"].any(1).sum()) == B  # half of the globals
    assert student_global["mask_token"] is learner.mask_token
    assert student_local["images"].shape == (2 * B, 3, 8, 8)  # two local views
    assert student_local.get("masked") is None


def test_global_views_have_the_size_that_the_recipe_gives_and_masks_fit_them(encoded: list[dict[str, Any]]) -> None:
    _learner(global_size=12).losses(_batch())
    assert encoded[0]["images"].shape == encoded[1]["images"].shape == (2 * B, 3, 12, 12)
    assert encoded[1]["masked"].shape == (2 * B, 9)


def test_the_losses_are_those_of_their_definitions_on_what_was_encoded(encoded: list[dict[str, Any]]) -> None:
    learner = _learner(shared_head=False, dino_weight=2.0, ibot_weight=3.0, koleo_weight=0.5)
    with torch.no_grad():  # the teacher differs from the student, as after some steps
        for parameter in learner.teacher.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
    losses = learner.losses(_batch())
    teacher_views, student_views, local_views = (call["images"] for call in encoded)
    masked = encoded[1]["masked"]

    student, teacher = learner.student, learner.teacher
    temperature = 0.04 + (0.07 - 0.04) * 0.3 / 0.3  # step 3 of 10 ends the warm-up of 0.3
    teacher_tokens = encode(teacher.backbone, teacher_views)
    cls_targets = dinov2.sinkhorn(teacher.cls_head(teacher_tokens.cls), temperature=temperature)
    patch_targets = dinov2.sinkhorn(teacher.patch_head(teacher_tokens.patches[masked]), temperature=temperature)
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

    monkeypatch.setattr(dinov2, "sinkhorn", spy)
    _learner().losses(_batch(step=step))
    assert seen == pytest.approx([temperature] * 2)


@pytest.mark.parametrize("text", ["none", "norm+qkv+mlp+final_norm"])
@pytest.mark.parametrize(("progress", "momentum"), [(0.0, 0.9), (0.5, 0.95), (1.0, 1.0)])
def test_the_teacher_moves_by_the_moving_average(text: str, progress: float, momentum: float) -> None:
    learner = _learner(text, ema=0.9, ema_end=1.0)
    assert all(torch.equal(s, t) for s, t in zip(*map(_values, (learner.student, learner.teacher)), strict=True))
    with torch.no_grad():
        for parameter in learner.student.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3)))
    before = {name: value.clone() for name, value in learner.teacher.named_parameters()}
    learner.after_step(progress)
    student = dict(learner.student.named_parameters())
    for name, value in learner.teacher.named_parameters():
        expected = momentum * before[name].double() + (1 - momentum) * student[name].double()
        torch.testing.assert_close(value.double(), expected.detach(), rtol=1e-5, atol=1e-6)


def _values(module: torch.nn.Module) -> list[Tensor]:
    return list(module.parameters())


def test_gradients_reach_the_student_and_the_mask_token_and_never_the_teacher() -> None:
    learner = _learner("norm+qkv")
    torch.stack(list(learner.losses(_batch()).values())).sum().backward()
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
    learner = _learner(freeze_prototypes=0.2, shared_head=False)
    heads = (learner.student.cls_head, learner.student.patch_head)
    torch.stack(list(learner.losses(_batch()).values())).sum().backward()
    learner.before_update(0.2)
    assert all(head.prototypes.weight.grad is not None for head in heads)
    learner.before_update(0.1)
    assert all(head.prototypes.weight.grad is None for head in heads)
    assert all(head.mlp[0].weight.grad is not None for head in heads)


@pytest.mark.parametrize("shared", [True, False])
def test_prototypes_of_a_run_move_only_after_their_share_of_it_and_the_rest_of_the_head_at_once(shared: bool) -> None:
    learner = _learner(freeze_prototypes=0.3, shared_head=shared, steps=10, batch_size=4, weight_decay=0.1)
    heads = (learner.student.cls_head, learner.student.patch_head)
    before = [[value.clone() for value in _values(head)] for head in heads]
    moved: list[list[bool]] = []

    def note(report: StepReport) -> bool:
        for head, old in zip(heads, before, strict=True):
            changed = [not torch.equal(new, value) for new, value in zip(_values(head), old, strict=True)]
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
    learner = _learner("norm+qkv", shared_head=shared, clip_separately=True)
    learner.regulariser = torch.nn.Linear(3, 2)  # what a comparator adds is trained along
    trainable = [parameter for parameter in learner.parameters() if parameter.requires_grad]
    groups = learner.clip_groups(trainable)
    assert sorted(map(id, itertools.chain(*groups))) == sorted(map(id, trainable))
    names = {id(parameter): name for name, parameter in learner.named_parameters()}
    modules = [{name.split(".")[1] for name in (names[id(p)] for p in group) if "head" in name} for group in groups]
    assert modules == ([set(), {"cls_head"}] if shared else [set(), {"cls_head"}, {"patch_head"}])
    assert {names[id(p)] for p in groups[0]} >= {"mask_token", "student.backbone.cls_token", "regulariser.weight"}
    (together,) = _learner(shared_head=shared).clip_groups(trainable)
    assert together is trainable


@pytest.mark.parametrize("shared", [True, False])
def test_a_step_clips_each_group_as_torch_does_alone(monkeypatch: pytest.MonkeyPatch, shared: bool) -> None:
    limit = 1e-3
    learner = _learner(shared_head=shared, clip_separately=True, clip_norm=limit, steps=10)
    twin = _learner(shared_head=shared)
    for each in (learner, twin):
        for name, parameter in each.named_parameters():
            parameter.register_hook(_scaling(name)) if parameter.requires_grad else None
    torch.stack(list(twin.losses(_batch()).values())).sum().backward()
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
        _batch(),
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


def test_the_head_of_the_patches_may_have_a_bottleneck_of_its_own() -> None:
    learner = _learner(shared_head=False, patch_bottleneck=3)
    assert learner.student.cls_head.prototypes.weight.shape == (10, 6)
    assert learner.student.patch_head.prototypes.weight.shape == (10, 3)
    assert all(value.isfinite() for value in learner.losses(_batch()).values())


def test_the_published_drop_path_trains_every_block_at_one_rate_on_part_of_the_batch() -> None:
    published = {"drop_path": 0.5, "drop_path_uniform": True, "drop_path_subset": True}
    learner = _learner(**published)
    assert all(isinstance(block, SubsetBlock) for block in learner.student.backbone.blocks)
    batch = _batch()
    torch.manual_seed(3)
    losses = learner.train().losses(batch)
    torch.manual_seed(3)
    arm = _learner("norm+qkv+mlp", **published).train().losses(batch)
    assert all(torch.equal(losses[name], arm[name]) for name in losses)
    torch.manual_seed(4)
    assert not torch.equal(learner.losses(batch)["dino"], losses["dino"])
    torch.manual_seed(3)
    assert not torch.equal(_learner().train().losses(batch)["dino"], losses["dino"])


@pytest.mark.parametrize(("scales", "sigma"), [(True, 2.0 * 16 / 224), (False, 2.0)])
def test_the_blur_of_a_crop_is_in_its_own_pixels_or_shrinks_with_it(
    monkeypatch: pytest.MonkeyPatch, scales: bool, sigma: float
) -> None:
    seen: list[tuple[int, float]] = []

    def spy(images: Tensor, *, size: int, colour: ColourSettings, **_: Any) -> Tensor:
        seen.append((size, colour.blur_sigma[1] * size / 224))
        return torch.zeros(len(images), 3, size, size)

    monkeypatch.setattr(dinov2, "random_crops", spy)
    _learner(blur_scales=scales)._views(_batch())
    assert [size for size, _ in seen] == [16, 16, 8, 8]
    expected = [sigma, sigma, *([sigma / 2] * 2 if scales else [sigma] * 2)]
    assert [largest for _, largest in seen] == pytest.approx(expected)


@pytest.mark.parametrize("shared", [True, False])
def test_a_shared_head_is_one_module_in_student_and_teacher_and_a_separate_one_is_two(shared: bool) -> None:
    learner = _learner(shared_head=shared)
    for network in (learner.student, learner.teacher):
        assert (network.cls_head is network.patch_head) is shared
    assert learner.teacher.cls_head is not learner.student.cls_head
    if not shared:
        first, second = (head.mlp[0].weight for head in (learner.student.cls_head, learner.student.patch_head))
        assert not torch.equal(first, second)


def test_the_probed_backbone_is_the_one_that_the_recipe_names() -> None:
    teacher, student = _learner(probe="teacher"), _learner(probe="student")
    assert teacher.eval_backbone is teacher.teacher.backbone
    assert student.eval_backbone is student.student.backbone


def test_heads_do_not_depend_on_the_specialization() -> None:
    plain, arm = _learner(shared_head=False), _learner("norm+qkv+mlp", shared_head=False)
    for head in ("cls_head", "patch_head"):
        pairs = zip(_values(getattr(plain.student, head)), _values(getattr(arm.student, head)), strict=True)
        assert all(torch.equal(one, other) for one, other in pairs)


def test_arms_of_a_pair_get_equal_views_and_masks_and_equal_losses_from_copies(
    encoded: list[dict[str, Any]],
) -> None:
    plain, arm = _learner(), _learner("norm+qkv+mlp+final_norm")
    losses = [learner.losses(_batch()) for learner in (plain, arm)]
    for one, other in zip(encoded[:3], encoded[3:], strict=True):
        assert torch.equal(one["images"], other["images"])
    assert torch.equal(encoded[1]["masked"], encoded[4]["masked"])
    assert all(torch.equal(losses[0][name], losses[1][name]) for name in losses[0])


def test_views_and_masks_change_from_step_to_step(encoded: list[dict[str, Any]]) -> None:
    learner = _learner()
    learner.losses(_batch(step=0))
    learner.losses(_batch(step=1))
    assert not torch.equal(encoded[1]["images"], encoded[4]["images"])
    assert not torch.equal(encoded[1]["masked"], encoded[4]["masked"])


def test_weights_of_masked_patches_add_up_to_one_per_masked_crop() -> None:
    masked = _learner().draw(_batch()).masked
    crop_of_patch = masked.nonzero()[:, 0]
    totals = torch.zeros(2 * B).index_add(0, crop_of_patch, dinov2.mask_weights(masked))
    torch.testing.assert_close(totals, masked.any(1).float())


@pytest.mark.parametrize("centering", ["softmax", "sinkhorn"])
@pytest.mark.parametrize("changes", [{"mask_probability": 0.0}, {"num_locals": 0}, {"colour": False}])
def test_parts_that_are_switched_off_leave_a_finite_loss(centering: str, changes: dict[str, Any]) -> None:
    learner = _learner(centering=centering, **changes)
    for step in range(2):
        losses = learner.losses(_batch(step=step))
        assert all(value.isfinite() for value in losses.values())
        if "mask_probability" in changes:
            assert losses["ibot"] == 0.0


def test_softmax_centering_moves_one_centre_for_each_kind_of_token() -> None:
    learner = _learner(centering="softmax")
    learner.losses(_batch())
    assert learner.cls_centre.centre.any()
    assert learner.patch_centre.centre.any()
    assert not torch.equal(learner.cls_centre.centre, learner.patch_centre.centre)
    assert not learner.cls_centre.centre.requires_grad


def test_colours_of_the_views_are_the_published_ones() -> None:
    for name, blur, solarize in (("global 1", 1.0, 0.0), ("global 2", 0.1, 0.2), ("local", 0.5, 0.0)):
        colour = VIEW_COLOURS[name]
        assert (colour.brightness, colour.contrast, colour.saturation, colour.hue) == (0.4, 0.4, 0.2, 0.1)
        assert (colour.jitter_probability, colour.grey_probability) == (0.8, 0.2)
        assert (colour.blur_probability, colour.solarize_probability) == (blur, solarize)
