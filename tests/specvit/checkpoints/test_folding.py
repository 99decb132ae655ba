"""Models whose own weights do as the shared ones do fold to plain ones; others do not."""

from __future__ import annotations

import pytest
import torch

from specvit.checkpoints import fold
from specvit.errors import ConfigError
from specvit.models.config import config_of
from specvit.models.routed_layers import own_parameters

from .small_models import EVERYTHING, build, images, shake


@pytest.mark.parametrize("high_norm", ["vanilla", "registers:2", "attention_bias"])
def test_a_model_of_copies_folds_to_the_plain_one_bit_for_bit(high_norm: str) -> None:
    model = build(EVERYTHING, high_norm=high_norm, num_classes=3)
    model.blocks[0].norm1.weight.requires_grad_(False)
    folded = fold(model)
    assert not own_parameters(folded)
    assert config_of(folded).specialization == "none"
    assert torch.equal(folded(images()), model(images()))
    assert (folded.training, folded.blocks[0].norm1.weight.requires_grad) == (False, False)
    assert folded.blocks[0].norm2.weight.requires_grad
    folded.norm.weight.data.zero_()
    assert torch.equal(model.norm.weight, torch.ones(16))


def test_gates_of_zero_fold_whatever_the_own_weights() -> None:
    model = shake(build("norm(gate)+qkv(gate)"))
    with pytest.raises(ConfigError, match=r"own norm1 \(gate\) of blocks\.0\.norm1 differs"):
        fold(model)
    with torch.no_grad():
        for name, value in own_parameters(model).items():
            if name.endswith("gate"):
                value.zero_()
    assert torch.equal(fold(model)(images()), model(images()))


def test_gates_by_the_token_fold_as_long_as_the_weights_that_they_blend_are_equal() -> None:
    model = build("norm(gate:token)+qkv(gate:token)")
    with torch.no_grad():
        for name, value in own_parameters(model).items():
            if "gate" in name:
                value.add_(1.0)
    assert torch.equal(fold(model)(images()), model(images()))


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        ("norm+mlp", "blocks.2.mlp.fc1.own.fc1.bias", r"own fc1 \(full\) of blocks\.2\.mlp\.fc1"),
        ("q+k+v(gate:token)", "blocks.1.attn.qkv.own.v.weight", r"own v \(gate:token\) of blocks\.1\.attn\.qkv"),
        ("q+k+v(gate)", "blocks.1.attn.qkv.own.v.weight", r"own v \(gate\) of blocks\.1\.attn\.qkv"),
        ("proj(lora:2)", "blocks.0.attn.proj.own.proj.up", r"own proj \(lora:2\) of blocks\.0\.attn\.proj"),
        ("final_norm", "norm.own.final_norm.bias", r"own final_norm \(full\) of norm"),
    ],
)
def test_own_weights_that_differ_are_named(text: str, name: str, message: str) -> None:
    model = build(text)
    with torch.no_grad():
        own_parameters(model)[name].view(-1)[-1] += 1e-3
    with pytest.raises(ConfigError, match=f"cannot be folded: {message} differs"):
        fold(model)
