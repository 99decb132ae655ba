"""What DINOv2 records of teacher and student, against arithmetic."""

from __future__ import annotations

import math

import pytest
import torch

from specvit.models.config import VitConfig
from specvit.models.scales import Scale
from specvit.models.vit import build_vit
from specvit.recipes.dinov2.learner import DinoV2Learner
from specvit.recipes.dinov2.measures import agreement, constant_loss, entropy, masked_share, mean_output
from specvit.recipes.dinov2.settings import DinoV2Cpu
from specvit.recipes.dinov2.tensors import DinoTargets, DinoViews, StudentOutputs
from specvit.training.learner import Batch
from specvit.training.learnt import find_unlearnt

K, B, P = 8, 4, 9
TEMPERATURE = 0.05
MASKED = torch.zeros(2 * B, P, dtype=torch.bool)
MASKED[:3, :2] = True
MASKED[3, 4:] = True
"""Four of the eight global crops have masked patches: 2, 2, 2 and 5."""


def _learner() -> DinoV2Learner:
    recipe = DinoV2Cpu(
        num_prototypes=K, head_hidden=8, head_bottleneck=4, num_locals=1, student_temp=TEMPERATURE, koleo_weight=0.0,
        ibot_weight=0.25,
    )  # fmt: skip
    backbone = build_vit(VitConfig(Scale(width=8, depth=1, num_heads=1), image_size=12, patch_size=4))
    return DinoV2Learner(backbone, recipe, global_size=12, seed=0)


def _measured(
    cls: torch.Tensor, cls_logits: torch.Tensor, patches: torch.Tensor, patch_logits: torch.Tensor
) -> dict[str, float]:
    """Measure a teacher of targets ``(2, B, K)``, ``(M, K)`` and a student of outputs ``(3, B, K)``, ``(M, K)``."""
    learner = _learner()
    outputs = StudentOutputs(torch.zeros(2 * B, 8), cls_logits, patch_logits, MASKED, {})
    learner._student_outputs = lambda *_: outputs  # type: ignore[method-assign]
    views = DinoViews(torch.zeros(2 * B, 3, 12, 12), None, MASKED, 0.0)
    (part,) = Batch(torch.zeros(B, 3, 12, 12), None, step=0, steps=1, seed=0).slices(slice(0, B), size=B)
    return learner.summarise(learner.measure_slice(views, part, DinoTargets(cls, patches, None)))


def _one_hot(*prototypes: int) -> torch.Tensor:
    return torch.eye(K)[list(prototypes)]


M = int(MASKED.sum())
UNIFORM = torch.full((2, B, K), 1 / K)


def test_uniform_teacher_and_student_stand_at_the_trivial_values() -> None:
    found = _measured(UNIFORM, torch.zeros(3, B, K), torch.full((M, K), 1 / K), torch.zeros(M, K))
    assert found["dino_loss"] == pytest.approx(math.log(K))
    assert found["dino_loss_trivial"] == pytest.approx(math.log(K))
    assert found["ibot_loss"] == pytest.approx(math.log(K) / 2)  # half of the crops are masked
    assert found["ibot_loss_trivial"] == pytest.approx(math.log(K) / 2)
    assert found["teacher_entropy"] == pytest.approx(math.log(K))
    assert found["teacher_spread"] == pytest.approx(math.log(K))
    assert [unlearnt.metric for unlearnt in find_unlearnt(found) or ()] == ["dino_loss", "ibot_loss"]


def test_a_uniform_student_of_a_sharp_teacher_stands_there_too() -> None:
    targets = _one_hot(0, 1, 2, 3, 4, 5, 6, 7).view(2, B, K)
    found = _measured(targets, torch.zeros(3, B, K), _one_hot(*range(M % K), *range(M - M % K)), torch.zeros(M, K))
    assert (found["dino_loss"], found["ibot_loss"]) == pytest.approx((math.log(K), math.log(K) / 2))
    assert (found["teacher_entropy"], found["teacher_spread"]) == pytest.approx((0.0, math.log(K)))


def test_a_perfect_student_has_the_entropy_of_the_teacher_and_agrees_with_it() -> None:
    # Two views of an image have one target, of which half is on one prototype and half on four others.
    image = torch.stack([0.5 * _one_hot(n)[0] + 0.125 * _one_hot(4, 5, 6, 7).sum(dim=0) for n in range(B)])
    target = image.expand(2, B, K)
    logits = TEMPERATURE * image.clamp(min=1e-30).log().expand(3, B, K)
    patches = image[torch.arange(M) % B]
    found = _measured(target, logits, patches, TEMPERATURE * patches.clamp(min=1e-30).log())
    own = 0.5 * math.log(2) + 0.5 * math.log(8)
    assert found["teacher_entropy"] == pytest.approx(own)
    assert found["dino_loss"] == pytest.approx(own)
    assert found["ibot_loss"] == pytest.approx(own / 2)
    assert found["teacher_agreement"] == 1.0
    assert found["teacher_spread"] == pytest.approx(math.log(K))  # 1/8 each
    assert find_unlearnt(found) == ()


def test_a_teacher_that_gives_one_target_to_all_images_is_called_collapsed() -> None:
    target = _one_hot(*[3] * 2 * B).view(2, B, K)
    logits = 9.0 * target[:1].expand(3, B, K)
    found = _measured(target, logits, _one_hot(*[3] * M), 9.0 * _one_hot(*[3] * M))
    assert found["dino_loss"] == pytest.approx(0.0, abs=1e-6)
    assert (found["teacher_spread"], found["teacher_agreement"]) == (0.0, 1.0)
    assert [unlearnt.metric for unlearnt in find_unlearnt(found) or ()] == ["teacher_spread"]


def test_a_student_that_shows_all_images_what_the_teacher_favours_has_learnt_nothing() -> None:
    favoured = torch.tensor([0.5, 0.25, 0.25] + [0.0] * (K - 3))
    constant = TEMPERATURE * favoured.clamp(min=1e-30).log()
    targets = _one_hot(0, 1, 0, 2, 0, 2, 0, 1).view(2, B, K)  # each as often as the student shows it
    patches = favoured.expand(M, K)
    found = _measured(targets, constant.expand(3, B, K), patches, constant.expand(M, K))
    own = 0.5 * math.log(2) + 0.5 * math.log(4)
    assert own < math.log(K)
    assert (found["dino_loss"], found["dino_loss_trivial"]) == pytest.approx((own, own))
    assert (found["ibot_loss"], found["ibot_loss_trivial"]) == pytest.approx((own / 2, own / 2))
    assert [unlearnt.metric for unlearnt in find_unlearnt(found) or ()] == ["dino_loss", "ibot_loss"]


def test_outputs_that_have_nothing_to_do_with_the_image_are_never_below_the_trivial_values() -> None:
    draw = torch.Generator().manual_seed(0)
    for _ in range(50):
        target = (3 * torch.randn(K, generator=draw)).softmax(dim=-1)  # one for all, so nothing is to be known
        cls_logits, patch_logits = (0.1 * torch.randn(*shape, K, generator=draw) for shape in ((3, B), (M,)))
        found = _measured(target.expand(2, B, K), cls_logits, target.expand(M, K), patch_logits)
        assert found["dino_loss"] >= found["dino_loss_trivial"] - 1e-6
        assert found["ibot_loss"] >= found["ibot_loss_trivial"] - 1e-6


def test_local_views_count_twice_in_the_mean_output() -> None:
    logits = 1e3 * _one_hot(0, 1, 2).view(3, 1, K)  # two global views and a local one
    assert mean_output(logits, temperature=1.0).tolist() == pytest.approx([0.25, 0.25, 0.5, *[0.0] * (K - 3)])
    assert mean_output(logits[:2], temperature=1.0).tolist() == pytest.approx([0.5, 0.5, *[0.0] * (K - 2)])


def test_the_loss_of_a_constant_is_the_better_of_two() -> None:
    sharp, spread = torch.tensor([1.0, 0.0]).double(), torch.tensor([0.25, 0.75]).double()
    assert constant_loss(sharp, sharp) == 0.0
    assert constant_loss(sharp, spread) == pytest.approx(math.log(2))  # ln 4 by its own mean
    assert constant_loss(spread, spread) == pytest.approx(0.25 * math.log(4) + 0.75 * math.log(4 / 3))
    assert constant_loss(spread, sharp) == pytest.approx(math.log(2))  # infinite by its own mean


def test_agreement_is_with_the_other_view() -> None:
    targets = _one_hot(0, 1, 2, 3, 4, 5, 6, 7).view(2, B, K)
    assert float(agreement(targets, targets)) == 0.0
    assert float(agreement(targets, targets.flip(0))) == 1.0
    half = targets.flip(0).clone()
    half[0] = targets[0]
    assert float(agreement(targets, half)) == 0.5


def test_entropy_and_share_are_those_of_arithmetic() -> None:
    assert entropy(torch.tensor([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]])).tolist() == pytest.approx([math.log(2), 0.0])
    assert float(masked_share(MASKED)) == 0.5
