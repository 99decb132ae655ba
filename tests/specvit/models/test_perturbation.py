from __future__ import annotations

import math

import pytest
import torch

from specvit.config import Treatment
from specvit.models.config import VitConfig
from specvit.models.perturbation import perturb
from specvit.models.scales import SCALES
from specvit.models.vit import build_vit


def weights(*, scale: float = 0.0, seed: int = 5, specialize: str = "none") -> dict[str, torch.Tensor]:
    model = build_vit(VitConfig(SCALES["nano"], 16, 4, specialization=specialize), seed=5)
    if scale:
        perturb(model, scale, seed=seed)
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


def test_all_weights_move_by_a_normal_share_of_themselves_and_zeros_stay() -> None:
    before, after = weights(), weights(scale=1e-6)
    moved = torch.cat([(after[name] / before[name] - 1)[before[name] != 0] for name in before])
    assert float(moved.mean()) == pytest.approx(0, abs=4e-6 / math.sqrt(len(moved)))
    # Besides the factor there is the rounding of a product, at most 6e-8.
    assert float(moved.std()) == pytest.approx(1e-6, rel=0.02)
    assert all(bool((after[name][before[name] == 0] == 0).all()) for name in before)


def test_it_follows_from_the_seed_and_is_the_same_for_weights_of_one_name_in_every_arm() -> None:
    one, again, other = weights(scale=1e-6), weights(scale=1e-6), weights(scale=1e-6, seed=6)
    assert all(bool((one[name] == again[name]).all()) for name in one)
    assert any(bool((one[name] != other[name]).any()) for name in one)
    arm = weights(scale=1e-6, specialize="norm@all")
    assert all(bool((one[name] == arm[name]).all()) for name in one)


def test_what_is_not_trained_is_not_perturbed() -> None:
    with pytest.raises(ValueError, match="perturbation must be 0 where kind is 'random_init'"):
        Treatment(kind="random_init", perturbation=1e-6)
