"""Handling of high norms as text, and registers in a model."""

from __future__ import annotations

import pytest
import torch

from specvit.errors import ConfigError
from specvit.models.config import HighNorm, VitConfig, check_high_norm, parse_high_norm
from specvit.models.scales import Scale
from specvit.models.vit import build_vit, encode

SCALE = Scale(width=16, depth=2, num_heads=2)


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("vanilla", HighNorm()),
        ("attention_bias", HighNorm(attention_bias=True)),
        ("registers:1", HighNorm(num_registers=1)),
        ("registers:16", HighNorm(num_registers=16)),
    ],
)
def test_texts_are_parsed(text: str, parsed: HighNorm) -> None:
    assert parse_high_norm(text) == parsed
    assert check_high_norm(text) == text


@pytest.mark.parametrize(
    "text", ["", "none", "registers", "registers:0", "registers:04", "registers:x", "registers:1000"]
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="must be vanilla, attention_bias, or registers:N"):
        check_high_norm(text)


def test_registers_enter_after_positions_and_leave_the_other_tokens_as_they_enter() -> None:
    vanilla = build_vit(VitConfig(SCALE, image_size=16, patch_size=4))
    model = build_vit(VitConfig(SCALE, image_size=16, patch_size=4, high_norm=HighNorm(num_registers=3)))
    images = torch.randn(2, 3, 16, 16)
    entering = [net._pos_embed(net.patch_embed(images)) for net in (vanilla, model)]
    assert torch.equal(entering[1][:, :1], entering[0][:, :1])
    assert torch.equal(entering[1][:, 4:], entering[0][:, 1:])
    assert torch.equal(entering[1][:, 1:4], model.reg_token.expand(2, -1, -1))
    assert 0 < float(model.reg_token.detach().std()) < 1e-5
    tokens = encode(model, images)
    assert (tokens.cls.shape, tokens.registers.shape, tokens.patches.shape) == ((2, 16), (2, 3, 16), (2, 16, 16))
