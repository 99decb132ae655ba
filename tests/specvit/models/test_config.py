"""Handling of high norms as text, registers in a model, and which tokens have weights of their own."""

from __future__ import annotations

import pytest
import torch

from specvit.config import ModelSettings
from specvit.errors import ConfigError
from specvit.models.config import HighNorm, VitConfig, check_high_norm, find_rows, parse_high_norm
from specvit.models.scales import Scale
from specvit.models.vit import build_vit, encode
from specvit.recipes import RECIPES
from specvit.specialization.token_rows import PatchRow, PrefixRows

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


@pytest.mark.parametrize(
    ("registers", "registers_with", "rows"),
    [(0, "cls", (0, 1)), (0, "patches", (0, 1)), (4, "cls", (0, 5)), (4, "patches", (0, 1))],
)
def test_registers_go_with_cls_or_with_the_patches(
    registers: int, registers_with: str, rows: tuple[int, int]
) -> None:
    found = find_rows(tokens="cls", registers_with=registers_with, num_registers=registers, grid=(4, 4))
    assert found == PrefixRows(rows[1])
    assert found.of(1 + registers + 16) == rows


@pytest.mark.parametrize("registers_with", ["cls", "patches"])
@pytest.mark.parametrize("registers", [0, 3])
def test_the_placebo_is_the_patch_at_its_position_or_in_the_middle(registers: int, registers_with: str) -> None:
    given = {"tokens": "placebo", "registers_with": registers_with, "num_registers": registers}
    at = PatchRow(num_prefix=1 + registers, grid=(4, 6), position=(3, 1))
    assert find_rows(**given, grid=(4, 6), placebo_position=(3, 1)) == at  # type: ignore[arg-type]
    # The middle of 4 x 6 is row 2, column 3: 15 patches before it.
    middle = find_rows(**given, grid=(4, 6))  # type: ignore[arg-type]
    assert middle.of(1 + registers + 24) == (16 + registers, 17 + registers)


@pytest.mark.parametrize("position", [(4, 0), (0, 4), (-1, 0), (0, 0, 0)])
def test_a_placebo_outside_the_grid_is_refused(position: tuple[int, int]) -> None:
    with pytest.raises(ConfigError, match=r"placebo position .* within the grid .* row < 4"):
        find_rows(tokens="placebo", registers_with="cls", num_registers=0, grid=(4, 4), placebo_position=position)


@pytest.mark.parametrize(
    ("recipe", "drop_path", "uniform", "cls_std"),
    [
        ("deit3", 0.05, True, 0.02),
        ("dinov2", 0.3, True, 1e-6),
        ("mae", 0.0, False, 0.02),
        ("deit3_cpu", 0.0, False, 1e-6),
        ("mae_cpu", 0.0, False, 1e-6),
    ],
)
def test_a_backbone_has_the_stochastic_depth_and_the_cls_of_its_recipe(
    recipe: str, drop_path: float, uniform: bool, cls_std: float
) -> None:
    config = VitConfig.from_settings(ModelSettings(patch_size=16), RECIPES[recipe](), image_size=224)
    assert (config.drop_path, config.drop_path_uniform, config.cls_std) == (drop_path, uniform, cls_std)
