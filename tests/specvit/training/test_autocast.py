"""A step of everything that can be combined, under autocast to bfloat16 as on a GPU, against float32."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor

from specvit.comparators import COMPARATORS
from specvit.comparators.patch_diversification.settings import PatchDiversification
from specvit.recipes.deit3.settings import DeiT3Cpu
from specvit.recipes.dinov2.settings import DinoV2Cpu
from specvit.recipes.mae.learner import MaeLearner
from specvit.recipes.mae.settings import MaeCpu
from specvit.training.learner import Learner, SlicedLearner
from specvit.training.loop import train_step
from specvit.training.optimizer import build_optimizer

from . import cases
from .cases import BATCH_SIZE, BFLOAT16_CPU, CPU, LOSS_TOLERANCE, SHORT, Case, make_batch, make_learner, measure

GRADIENT_TOLERANCE = 2**-4
"""Of all gradients together, their difference to their size: rounding adds up, in the backward pass once more.

All but those of token pooling are within 2^-6: which tokens it merges is a choice, and near ties it may differ.
"""

SCALED: dict[str, Any] = {"layer_scale": 0.1}
DINO: dict[str, Any] = {"num_locals": 1, **cases.DINO}
RECIPES: dict[str, Any] = {
    "dinov2 centre": DinoV2Cpu(centering="softmax", **SCALED, **DINO),
    "dinov2 sinkhorn": DinoV2Cpu(centering="sinkhorn", shared_head=False, drop_path_subset=True, **SCALED, **DINO),
    "deit3": DeiT3Cpu(**SCALED, **SHORT),
    "deit3 dense": DeiT3Cpu(dense_weight=0.5, **SCALED, **SHORT),
    "mae": MaeCpu(**SCALED, **SHORT),
}
ARMS: dict[str, dict[str, Any]] = {
    "none": {},
    "full": {"components": "norm+qkv+proj+mlp+layerscale+final_norm"},
    "gates": {
        "components": "norm1(gate)+norm2(gate:token)+qkv(gate:token)+proj(gate)+mlp(gate)+layerscale(gate:token)"
    },
    "lora": {"components": "qkv(lora:2)+proj(lora:2)+mlp(lora:2)+norm"},
    **{name: {"comparator": comparator()} for name, comparator in COMPARATORS.items()},
}
HIGH_NORMS = ("vanilla", "registers:2", "attention_bias")
OPTIMIZERS = ("adamw", "lamb")
MICRO_BATCHES = (BATCH_SIZE, 3)
AXES = (tuple(RECIPES), tuple(ARMS), HIGH_NORMS, OPTIMIZERS, MICRO_BATCHES)
PAIRS_COVERED = [
    (recipe, arm, HIGH_NORMS[(i + j) % 3], OPTIMIZERS[(i + j // 2) % 2], MICRO_BATCHES[(i // 2 + j) % 2])
    for (i, recipe), (j, arm) in itertools.product(enumerate(RECIPES), enumerate(ARMS))
]


def test_the_short_run_holds_every_pair_of_settings() -> None:
    for one, other in itertools.combinations(range(len(AXES)), 2):
        covered = {(combination[one], combination[other]) for combination in PAIRS_COVERED}
        assert covered == set(itertools.product(AXES[one], AXES[other]))


def _case(recipe: str, arm: str, high_norm: str, optimizer: str) -> Case:
    settings, of_arm = dataclasses.replace(RECIPES[recipe], optimizer=optimizer), ARMS[arm]
    if arm == "jumbo" and settings.drops_subsets():
        settings = dataclasses.replace(settings, drop_path_subset=False)
    if arm == "patch_diversification" and settings.labels_patches():
        of_arm = {"comparator": PatchDiversification(mixing_weight=0.5)}
    if "comparator" in of_arm:
        of_arm["comparator"].check_recipe(settings)
    return Case(settings, high_norm=high_norm, **of_arm)


def _moved(case: Case) -> Learner:
    """Build a case's learner after a fixed change of all weights: neither copies nor zeros are left."""
    learner, generator = make_learner(case).train(), torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in learner.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return learner


def _gradients(learner: Learner, case: Case) -> tuple[float, dict[str, Tensor]]:
    """Return loss and gradients of a step in float32, which is not done: the learner is left as it was."""
    parameters = {name: p for name, p in learner.named_parameters() if p.requires_grad}
    buffers = [buffer.clone() for buffer in learner.buffers()]
    loss = learner.compute_gradients(make_batch(step=3), parameters=list(parameters.values()), device=CPU)
    for buffer, before in zip(learner.buffers(), buffers, strict=True):
        buffer.copy_(before)
    learner.before_update(3 / case.recipe.steps)
    return loss, {name: p.grad for name, p in parameters.items() if p.grad is not None}


def _step(learner: Learner, case: Case) -> tuple[float, dict[str, Tensor]]:
    """Do a step under autocast and return its loss and the gradients that the optimizer used."""
    parameters = {name: p for name, p in learner.named_parameters() if p.requires_grad}
    loss = train_step(
        learner,
        dataclasses.replace(case.recipe, clip_norm=0.0),
        make_batch(step=3),
        optimizer=build_optimizer(learner, case.recipe, depth=2, device=BFLOAT16_CPU),
        trainable=list(parameters.values()),
        device=BFLOAT16_CPU,
    )
    return loss, {name: p.grad for name, p in parameters.items() if p.grad is not None}


def _check_step(recipe: str, arm: str, high_norm: str, optimizer: str, micro_batch: int) -> None:
    case = _case(recipe, arm, high_norm, optimizer)
    learner = _moved(case)
    exact_loss, exact = _gradients(learner, case)
    learner.micro_batch = micro_batch
    loss, gradients = _step(learner, case)
    assert loss == pytest.approx(exact_loss, rel=LOSS_TOLERANCE)
    assert gradients.keys() == exact.keys()
    for tensor in (*gradients.values(), *learner.parameters(), *learner.buffers()):
        assert tensor.dtype == torch.float32
        assert tensor.isfinite().all()
    flat, expected = (torch.cat([grads[name].flatten() for name in exact]) for grads in (gradients, exact))
    assert (flat - expected).norm() < GRADIENT_TOLERANCE * expected.norm()


@pytest.mark.parametrize(("recipe", "arm", "high_norm", "optimizer", "micro_batch"), PAIRS_COVERED)
def test_a_step_under_autocast_is_that_of_float32_within_its_rounding(
    recipe: str, arm: str, high_norm: str, optimizer: str, micro_batch: int
) -> None:
    _check_step(recipe, arm, high_norm, optimizer, micro_batch)


@pytest.mark.long
@pytest.mark.parametrize("combination", sorted({*itertools.product(*AXES)} - {*PAIRS_COVERED}))
def test_a_step_of_every_combination_under_autocast_is_that_of_float32_within_its_rounding(
    combination: tuple[str, str, str, str, int],
) -> None:
    _check_step(*combination)


@pytest.mark.parametrize("micro_batch", MICRO_BATCHES)
@pytest.mark.parametrize("recipe", RECIPES)
def test_views_and_what_is_drawn_are_the_same_to_the_last_bit(recipe: str, micro_batch: int) -> None:
    drawn = []
    for device in (CPU, BFLOAT16_CPU):
        learner = make_learner(Case(RECIPES[recipe]))
        assert isinstance(learner, SlicedLearner)
        learner.micro_batch = micro_batch
        with mock.patch.object(learner, "slice_losses", wraps=learner.slice_losses) as losses:
            parameters = [p for p in learner.parameters() if p.requires_grad]
            learner.compute_gradients(make_batch(), parameters=parameters, device=device)
        drawn.append(losses.call_args.args[0])
    exact, narrow = (dataclasses.asdict(views) for views in drawn)
    assert any(torch.is_tensor(value) and value.dtype == torch.float32 for value in exact.values())
    for name, value in exact.items():
        if torch.is_tensor(value):
            assert value.dtype == narrow[name].dtype, name
            assert torch.equal(value, narrow[name]), name


def test_the_pixels_that_mae_paints_are_the_same_to_the_last_bit() -> None:
    learner = make_learner(Case(RECIPES["mae"]))
    assert isinstance(learner, MaeLearner)
    views = learner.draw(make_batch())
    exact = learner._hidden_pixels(views.images, views.hidden)
    with BFLOAT16_CPU.autocast():
        assert torch.equal(learner._hidden_pixels(views.images, views.hidden), exact)


@pytest.mark.parametrize("recipe", RECIPES)
def test_what_is_measured_of_terms_is_that_of_float32_within_its_rounding(recipe: str) -> None:
    case = Case(RECIPES[recipe])
    exact, found = measure(case), measure(case, device=BFLOAT16_CPU)
    assert exact.keys() == found.keys()
    # How often two argmaxima agree moves by whole images.
    chances = {"teacher_agreement": found.pop("teacher_agreement")} if "teacher_agreement" in found else {}
    assert all(0 <= share <= 1 for share in chances.values())
    assert found == pytest.approx({name: exact[name] for name in found}, rel=LOSS_TOLERANCE)
