"""Parameter groups: who decays, who learns how fast, and that a copy is treated as its original; schedules."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from timm.optim.lamb import Lamb
from torch import nn

from specvit.data import Dataset, Split
from specvit.device import Device
from specvit.models.config import VitConfig
from specvit.models.scales import Scale
from specvit.models.vit import build_vit
from specvit.recipes import Recipe
from specvit.recipes.build import build_learner
from specvit.recipes.deit3.settings import DeiT3Cpu
from specvit.recipes.dinov2.learner import DinoV2Learner
from specvit.recipes.dinov2.settings import DinoV2Cpu
from specvit.specialization.components import COMPONENTS
from specvit.training.learner import Learner
from specvit.training.optimizer import (
    OwnFactors,
    build_optimizer,
    cosine,
    decays,
    linear,
    lr_factor,
    set_schedules,
    warmup_cosine,
)

from ..own_weights import original_name

SCALE = Scale(width=16, depth=3, num_heads=2)
CPU = Device(torch.device("cpu"))
BLANK = Split(images=np.zeros((1, 3, 16, 16), dtype=np.uint8))
DATASET = Dataset(train=BLANK, val=BLANK, class_names=tuple("abcde"), mask_names=(), fingerprint="")
LAYERWISE = {"layer_decay": 0.9, "patch_embed_lr": 0.2, "layer_scale": 1e-4}
DINO = DinoV2Cpu(head_hidden=8, head_bottleneck=4, num_prototypes=8, **LAYERWISE)
DEIT = DeiT3Cpu(**LAYERWISE)
LAMB = DeiT3Cpu(optimizer="lamb", **LAYERWISE)


def _learner(recipe: Recipe, text: str = "none") -> Learner:
    backbone = build_vit(
        VitConfig(SCALE, image_size=16, patch_size=4, specialization=text, layer_scale=recipe.layer_scale),
    )
    return build_learner(recipe, backbone, DATASET, seed=0)


def _groups(recipe: Recipe, text: str) -> dict[str, dict[str, object]]:
    """Return the group of every parameter, by the parameter's name."""
    learner = _learner(recipe, text)
    optimizer = build_optimizer(learner, recipe, depth=SCALE.depth, device=CPU)
    set_schedules(optimizer, lr=1e-3, weight_decay=0.05)
    names = {id(parameter): name for name, parameter in learner.named_parameters()}
    return {names[id(p)]: group for group in optimizer.param_groups for p in group["params"]}


@pytest.mark.parametrize("component", COMPONENTS)
@pytest.mark.parametrize("recipe", [DINO, DEIT], ids=["dinov2", "deit3"])
def test_a_specialized_copy_sits_in_the_group_of_its_original(recipe: Recipe, component: str) -> None:
    groups = _groups(recipe, component)
    own = [name for name in groups if ".own." in name]
    places = SCALE.depth if COMPONENTS[component].per_block else 1
    vectors = sum(site.vectors + (site.inputs > 0) for site in COMPONENTS[component].sites)
    assert len(own) == places * vectors
    for name in own:
        assert groups[name] is groups[original_name(name)], name


@pytest.mark.parametrize(
    "text", ["q(lora:2)+mlp(lora:3)", "norm(gate)+qkv(gate)+layerscale(gate)", "norm(gate:token)+qkv(gate:token)"]
)
@pytest.mark.parametrize("recipe", [DINO, DEIT], ids=["dinov2", "deit3"])
def test_low_ranks_and_gates_learn_at_the_rate_of_their_original_and_decay_as_matrices_and_vectors_do(
    recipe: Recipe, text: str
) -> None:
    learner, groups = _learner(recipe, text), _groups(recipe, text)
    own = [name for name in groups if ".own." in name]
    assert own
    for name in own:
        assert groups[name]["lr"] == groups[original_name(name)]["lr"], name
        assert groups[name]["weight_decay_factor"] == (learner.get_parameter(name).ndim == 2), name


@pytest.mark.parametrize("recipe", [DINO, DEIT], ids=["dinov2", "deit3"])
def test_the_groups_of_shared_parameters_do_not_depend_on_the_specialization(recipe: Recipe) -> None:
    keys = ("lr_factor", "weight_decay_factor", "lr", "weight_decay")
    specialized = _groups(recipe, "norm+qkv+mlp+final_norm")
    for name, group in _groups(recipe, "none").items():
        assert [specialized[name][key] for key in keys] == [group[key] for key in keys], name


@pytest.mark.parametrize("text", ["none", "norm+qkv+mlp+final_norm"])
@pytest.mark.parametrize("recipe", [DINO, DEIT], ids=["dinov2", "deit3"])
def test_every_trainable_parameter_is_in_exactly_one_group_and_the_teacher_in_none(
    recipe: Recipe, text: str
) -> None:
    learner = _learner(recipe, text)
    optimizer = build_optimizer(learner, recipe, depth=SCALE.depth, device=CPU)
    grouped = [id(parameter) for group in optimizer.param_groups for parameter in group["params"]]
    trainable = {name: p for name, p in learner.named_parameters() if not name.startswith("teacher.")}
    assert len(grouped) == len(set(grouped)) == len(trainable)
    assert set(grouped) == {id(parameter) for parameter in trainable.values()}
    assert all(parameter.requires_grad for parameter in trainable.values())
    if isinstance(learner, DinoV2Learner):
        assert not any(parameter.requires_grad for parameter in learner.teacher.parameters())


@pytest.mark.parametrize("recipe", [DINO, DEIT], ids=["dinov2", "deit3"])
def test_weight_decay_applies_to_weights_of_layers_alone(recipe: Recipe) -> None:
    for name, group in _groups(recipe, "norm+qkv+mlp").items():
        is_matrix = name.endswith(("qkv.weight", "proj.weight", "fc1.weight", "fc2.weight", "head.weight"))
        is_matrix |= name.endswith(("own.qkv.weight", "own.fc1.weight", "own.fc2.weight", "prototypes.weight"))
        is_matrix |= "_head.mlp." in name and name.endswith(".weight")
        assert group["weight_decay"] == (0.05 if is_matrix else 0.0), name


def test_tokens_positions_biases_norms_and_layer_scales_do_not_decay_whatever_their_shape() -> None:
    tokens = ("backbone.pos_embed", "cls_token", "mask_token", "student.backbone.reg_token")
    for name in (*tokens, "blocks.0.attn.key_bias"):
        assert not decays(name, nn.Parameter(torch.zeros(1, 4, 16)))
    for name in ("blocks.0.norm1.weight", "blocks.0.attn.qkv.own.qkv.bias", "blocks.0.ls1.gamma"):
        assert not decays(name, nn.Parameter(torch.zeros(16)))
    assert decays("patch_embed.proj.weight", nn.Parameter(torch.zeros(16, 3, 4, 4)))


@pytest.mark.parametrize(
    ("name", "factor"),
    [
        # depth 3, layer decay 0.9: 1, then 0.9 for the last block, 0.9^2, 0.9^3, and 0.9^4 for the embeddings
        ("student.backbone.norm.weight", 1.0),
        ("student.backbone.norm.own.final_norm.weight", 1.0),
        ("student.cls_head.mlp.0.weight", 1.0),
        ("head.weight", 1.0),
        ("backbone.blocks.2.mlp.fc1.own.fc1.weight", 0.9),
        ("backbone.blocks.1.attn.qkv.weight", 0.81),
        ("backbone.blocks.0.attn.qkv.own.qkv.bias", 0.729),
        ("blocks.0.ls1.gamma", 0.729),
        ("mask_token", 0.6561),
        ("student.backbone.cls_token", 0.6561),
        ("student.backbone.pos_embed", 0.6561),
        ("student.backbone.patch_embed.proj.weight", 0.13122),
        ("patch_embed.proj.bias", 0.13122),
    ],
)
def test_layer_decay_factors_are_those_worked_out_by_hand(name: str, factor: float) -> None:
    assert lr_factor(name, depth=3, layer_decay=0.9, patch_embed_lr=0.2) == pytest.approx(factor, rel=1e-12)


def test_schedules_set_each_groups_rate_by_its_factor_and_its_decay_by_another() -> None:
    optimizer = torch.optim.AdamW(
        [
            {"params": [nn.Parameter(torch.zeros(1))], "lr_factor": 0.5, "weight_decay_factor": 0.5},
            {"params": [nn.Parameter(torch.zeros(1))], "lr_factor": 0.25, "weight_decay_factor": 0.0},
        ]
    )
    set_schedules(optimizer, lr=0.8, weight_decay=0.3)
    assert [(group["lr"], group["weight_decay"]) for group in optimizer.param_groups] == [(0.4, 0.15), (0.2, 0.0)]


@pytest.mark.parametrize("recipe", [DEIT, LAMB], ids=["adamw", "lamb"])
def test_a_copy_with_its_originals_gradient_makes_the_same_update(recipe: Recipe) -> None:
    learner = _learner(recipe, "norm+qkv+mlp+final_norm")
    optimizer = build_optimizer(learner, recipe, depth=SCALE.depth, device=CPU)
    for step in range(3):
        for name, parameter in learner.named_parameters():
            original = original_name(name) if ".own." in name else name
            generator = torch.Generator().manual_seed(len(original) + 100 * step)
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        set_schedules(optimizer, lr=1e-2, weight_decay=0.1)
        optimizer.step()
    parameters = dict(learner.named_parameters())
    own = [name for name in parameters if ".own." in name]
    assert own
    for name in own:
        assert torch.equal(parameters[name], parameters[original_name(name)]), name


@pytest.mark.parametrize("text", ["norm+qkv@1:3+fc1@0:1", "norm(gate)+qkv(gate)", "qkv(lora:2)"])
def test_one_step_of_adamw_moves_own_weights_by_their_factors_and_all_others_as_without(text: str) -> None:
    recipe = dataclasses.replace(DEIT, layer_decay=0.5)
    moved: dict[str, dict[str, torch.Tensor]] = {}
    start: dict[str, torch.Tensor] = {}
    for name, own in (("same", OwnFactors()), ("own", OwnFactors(lr=0.25, weight_decay=3.0))):
        learner = _learner(recipe, text)
        start = {n: p.detach().double().clone() for n, p in learner.named_parameters()}
        optimizer = build_optimizer(learner, recipe, depth=SCALE.depth, device=CPU, own=own)
        _set_gradients(learner, 0)
        signs = {n: p.grad.double().sign() for n, p in learner.named_parameters() if p.grad is not None}
        set_schedules(optimizer, lr=1e-2, weight_decay=0.1)
        optimizer.step()
        moved[name] = {n: p.detach().double() for n, p in learner.named_parameters()}
    assert any(".own." in name for name in start)
    for name, old in start.items():
        if ".own." not in name:
            assert torch.equal(moved["own"][name], moved["same"][name]), name
            continue
        # Adam's first step is the gradient's sign; AdamW shrinks a matrix by rate x decay beside it.
        rate = 0.25 * 1e-2 * lr_factor(name, depth=SCALE.depth, layer_decay=0.5, patch_embed_lr=0.2)
        decay = 3.0 * 0.1 if old.ndim == 2 else 0.0
        torch.testing.assert_close(moved["own"][name], old - rate * (signs[name] + decay * old), rtol=1e-6, atol=1e-7)


def test_own_factors_of_one_make_the_groups_of_before() -> None:
    learner = _learner(DEIT, "norm+qkv+mlp(lora:2)")
    optimizers = [
        build_optimizer(learner, DEIT, depth=SCALE.depth, device=CPU, **own)
        for own in ({}, {"own": OwnFactors(1.0, 1.0)})
    ]
    groups, same = ([[id(p) for p in group["params"]] for group in each.param_groups] for each in optimizers)
    assert groups == same


def _set_gradients(learner: nn.Module, step: int) -> None:
    generator = torch.Generator().manual_seed(step)
    for parameter in learner.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)


def test_lamb_has_the_groups_of_adamw() -> None:
    text = "norm+qkv+mlp(lora:2)+layerscale(gate)"
    keys = ("lr_factor", "weight_decay_factor", "lr", "weight_decay")
    adamw, lamb = _groups(DEIT, text), _groups(LAMB, text)
    assert list(adamw) == list(lamb)
    for name, group in adamw.items():
        assert [lamb[name][key] for key in keys] == [group[key] for key in keys], name


def test_a_lamb_step_is_timms_at_each_groups_rate_and_decay() -> None:
    ours, theirs = _learner(LAMB, "norm+qkv"), _learner(LAMB, "norm+qkv")
    optimizer = build_optimizer(ours, LAMB, depth=SCALE.depth, device=CPU)
    assert isinstance(optimizer, Lamb)
    # One group per parameter, its rate and decay by shape and place; no clipping, DeiT's eps.
    names = dict(theirs.named_parameters())
    reference = Lamb(
        [{"params": [p], "weight_decay": 0.1 if decays(name, p) else 0.0} for name, p in names.items()],
        eps=1e-8,
        max_grad_norm=None,
    )
    for group, name in zip(reference.param_groups, names, strict=True):
        group["lr"] = 1e-2 * lr_factor(name, depth=SCALE.depth, layer_decay=0.9, patch_embed_lr=0.2)
    for step in range(3):
        for learner in (ours, theirs):
            _set_gradients(learner, step)
        set_schedules(optimizer, lr=1e-2, weight_decay=0.1)
        optimizer.step()
        reference.step()
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter, names[name], rtol=1e-6, atol=1e-7)


def test_the_first_lamb_step_of_a_matrix_is_its_norm_times_the_rate_and_that_of_a_vector_is_adams() -> None:
    learner = _learner(dataclasses.replace(LAMB, layer_decay=1.0), "qkv")
    recipe = dataclasses.replace(LAMB, layer_decay=1.0, patch_embed_lr=1.0)
    with torch.no_grad():  # own weights that have moved on have another norm than the shared ones
        learner.get_parameter("backbone.blocks.0.attn.qkv.own.qkv.weight").mul_(3.0)
    before = {name: p.detach().double().clone() for name, p in learner.named_parameters()}
    optimizer = build_optimizer(learner, recipe, depth=SCALE.depth, device=CPU)
    _set_gradients(learner, 0)
    set_schedules(optimizer, lr=1e-2, weight_decay=0.1)
    optimizer.step()
    for name in ("attn.qkv.weight", "attn.qkv.own.qkv.weight", "attn.qkv.bias", "norm1.weight"):
        full = f"backbone.blocks.0.{name}"
        parameter, old = learner.get_parameter(full), before[full]
        assert parameter.grad is not None
        # Adam's first step is the gradient's sign; decay is added before the ratio of norms is taken.
        update = parameter.grad.double().sign()
        if old.ndim > 1:
            update += 0.1 * old
            update *= old.norm() / update.norm()
        torch.testing.assert_close(parameter.detach().double(), old - 1e-2 * update, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("progress", "value"), [(0.0, 2.0), (1 / 3, 1.75), (0.5, 1.5), (2 / 3, 1.25), (1.0, 1.0)]
)
def test_cosine_falls_along_half_a_wave(progress: float, value: float) -> None:
    assert cosine(progress, 2.0, 1.0) == pytest.approx(value)


def test_cosine_also_rises() -> None:
    assert cosine(0.25, 0.992, 1.0) == pytest.approx(1 - 0.008 * 0.5 * (1 + math.sqrt(0.5)))


@pytest.mark.parametrize(
    ("progress", "value"),
    [(0.0, 0.0), (0.1, 0.5), (0.2, 1.0), (0.6, 0.55), (1.0, 0.1)],
)
def test_warmup_rises_linearly_then_falls_on_a_cosine(progress: float, value: float) -> None:
    assert warmup_cosine(progress, peak=1.0, end=0.1, warmup=0.2) == pytest.approx(value)


def test_without_warmup_a_run_starts_at_the_peak() -> None:
    assert warmup_cosine(0.0, peak=3.0, end=0.0, warmup=0.0) == 3.0


def test_a_run_that_is_all_warmup_ends_at_the_peak() -> None:
    assert warmup_cosine(0.5, peak=3.0, end=0.0, warmup=1.0) == 1.5
    assert warmup_cosine(1.0, peak=3.0, end=0.0, warmup=1.0) == 3.0


@pytest.mark.parametrize(("progress", "value"), [(0.0, 0.04), (0.15, 0.055), (0.3, 0.07), (0.9, 0.07)])
def test_linear_moves_until_its_share_and_then_stays(progress: float, value: float) -> None:
    assert linear(progress, 0.04, 0.07, until=0.3) == pytest.approx(value)


def test_linear_over_no_time_is_at_its_end() -> None:
    assert linear(0.0, 0.04, 0.07, until=0.0) == 0.07
