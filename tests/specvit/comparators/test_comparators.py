"""What holds for every comparator: its name, its parameters, its place in a plain model."""

from __future__ import annotations

import copy
import subprocess
import sys

import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from timm.models.vision_transformer import VisionTransformer

from specvit.comparators import COMPARATORS, AnyComparator, Comparator
from specvit.comparators.class_attention.settings import ClassAttention
from specvit.comparators.jumbo.settings import Jumbo
from specvit.comparators.patch_diversification.settings import PatchDiversification
from specvit.comparators.token_pooling.settings import TokenPooling
from specvit.errors import ConfigError
from specvit.models.config import HighNorm, VitConfig, config_of, parse_high_norm
from specvit.models.scales import SCALES, Scale
from specvit.models.vit import build_vit, encode, num_parameters
from specvit.recipes import RECIPES
from specvit.training.optimizer import decays, lr_factor

SCALE = Scale(width=16, depth=4, num_heads=2)
CASES: dict[str, Comparator] = {
    **{name: comparator() for name, comparator in COMPARATORS.items()},
    "class_attention_3": ClassAttention(num_blocks=3),
    "jumbo_small": Jumbo(slots=3, mlp_ratio=0.5),
    "token_pooling_few": TokenPooling(after=0.25, keep=0.1),
}
NEW = ("class_attention", "jumbo", "token_pooling")


def plain(*, high_norm: HighNorm | None = None, layer_scale: float = 0.0, seed: int = 0) -> VisionTransformer:
    return build_vit(
        VitConfig(SCALE, image_size=16, patch_size=4, high_norm=high_norm or HighNorm(), layer_scale=layer_scale),
        seed=seed,
    )


def images(num: int = 3, size: int = 16) -> torch.Tensor:
    return torch.randn(num, 3, size, size, generator=torch.Generator().manual_seed(0))


def test_the_four_comparators_are_found() -> None:
    assert set(COMPARATORS) == {"class_attention", "jumbo", "patch_diversification", "token_pooling"}


def test_settings_load_without_torch() -> None:
    code = "import sys, specvit.comparators; sys.exit('torch' in sys.modules or 'timm' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("comparator", "text"),
    [
        (ClassAttention(), "class_attention"),
        (Jumbo(slots=6), "jumbo"),
        (Jumbo(slots=4), "jumbo(slots=4)"),
        (TokenPooling(keep=0.25, after=0.3), "token_pooling(after=0.3, keep=0.25)"),
        (PatchDiversification(contrast_weight=0.0), "patch_diversification(contrast_weight=0.0)"),
    ],
)
def test_text_shows_the_settings_that_are_not_at_their_defaults(comparator: Comparator, text: str) -> None:
    assert comparator.text == text


@pytest.mark.parametrize(
    "document",
    [
        {"comparator": "jumbo", "slots": 0},
        {"comparator": "jumbo", "keep": 0.5},
        {"comparator": "token_pooling", "keep": 0.0},
        {"comparator": "token_pooling", "after": 1.0},
        {"comparator": "class_attention", "num_blocks": 1.5},
        {"comparator": "patch_diversification", "cosine_weight": -1.0},
        {"comparator": "patch_diversification", "mixing_weight": -1.0},
        {"comparator": "cait"},
    ],
)
def test_settings_out_of_range_are_refused(document: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(AnyComparator).validate_python(document)


@pytest.mark.parametrize("layer_scale", [0.0, 1e-4])
@pytest.mark.parametrize("case", CASES)
def test_extra_count_equals_what_the_built_model_has_more(case: str, layer_scale: float) -> None:
    model = plain(layer_scale=layer_scale)
    before = num_parameters(model)
    after = num_parameters(CASES[case].build(model, seed=0))
    assert CASES[case].count_extra_parameters(SCALE, layer_scale=layer_scale > 0) == after - before


def test_extra_counts_of_the_small_model_are_those_worked_out_by_hand() -> None:
    d, jd = 384, 2304
    # Norms 4 d; q, k, v, proj 4 (d^2 + d); MLP 8 d^2 + 5 d: twice.
    assert ClassAttention().count_extra_parameters(SCALES["small"]) == 2 * (12 * d * d + 13 * d) == 3_548_928
    # Slots, 12 norms, MLP with a hidden width of 4 jd.
    assert Jumbo().count_extra_parameters(SCALES["small"]) == jd + 12 * 2 * jd + 8 * jd * jd + 5 * jd


@pytest.mark.parametrize("case", CASES)
def test_shared_weights_are_those_of_the_plain_model_and_nothing_else_is_drawn_from(case: str) -> None:
    reference = plain().state_dict()
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    built = CASES[case].build(plain(), seed=0).state_dict()
    assert torch.equal(torch.rand(1), expected)
    assert all(torch.equal(built[name], value) for name, value in reference.items())


@pytest.mark.parametrize("name", ["class_attention", "jumbo"])
def test_new_weights_depend_on_the_seed_alone(name: str) -> None:
    one, same, other = (COMPARATORS[name]().build(plain(), seed=seed).state_dict() for seed in (3, 3, 4))
    new = one.keys() - plain().state_dict().keys()
    assert all(torch.equal(one[key], same[key]) for key in new)
    assert any(not torch.equal(one[key], other[key]) for key in new)


@pytest.mark.parametrize("high_norm", ["vanilla", "registers:2", "attention_bias"])
@pytest.mark.parametrize("case", CASES)
def test_encode_returns_a_token_for_every_place_at_every_size(case: str, high_norm: str) -> None:
    choice = parse_high_norm(high_norm)
    model = CASES[case].build(plain(high_norm=choice, layer_scale=0.1), seed=0)
    assert len(model.blocks) == SCALE.depth
    for size in (16, 8):
        tokens = encode(model, images(size=size))
        assert tokens.cls.shape == (3, 16)
        assert tokens.registers.shape == (3, choice.num_registers, 16)
        assert tokens.patches.shape == (3, (size // 4) ** 2, 16)
        assert all(part.isfinite().all() for part in tokens)


@pytest.mark.parametrize("name", NEW)
def test_every_parameter_gets_a_gradient_and_a_copy_computes_the_same(name: str) -> None:
    model = COMPARATORS[name]().build(plain(), seed=0)
    tokens = encode(model, images())
    (tokens.cls.square().sum() + tokens.patches[..., 0].sum()).backward()
    assert [key for key, parameter in model.named_parameters() if parameter.grad is None] == []
    again = encode(copy.deepcopy(model), images())
    assert torch.equal(again.cls, tokens.cls)
    assert torch.equal(again.patches, tokens.patches)


@pytest.mark.parametrize("name", NEW)
def test_a_training_pass_in_bfloat16_with_stochastic_depth_is_finite(name: str) -> None:
    model = COMPARATORS[name]().build(build_vit(
        VitConfig(SCALE, image_size=16, patch_size=4, drop_path=0.5, layer_scale=0.1),
    ), seed=0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        tokens = encode(model.train(), images())
    assert tokens.patches.shape == (3, 16, 16)
    assert tokens.cls.isfinite().all()
    assert not torch.equal(encode(model, images()).cls, encode(model, images()).cls)


@pytest.mark.parametrize("name", NEW)
def test_blocks_called_one_by_one_are_refused(name: str) -> None:
    model = COMPARATORS[name]().build(plain(), seed=0)
    for wrong in (lambda: model.forward_intermediates(images()), lambda: model.blocks[:2], lambda: list(model.blocks)):
        with pytest.raises(ConfigError, match="runs as a whole"):
            wrong()
    model.set_grad_checkpointing(True)
    with pytest.raises(ConfigError, match="runs as a whole"):
        model.forward_features(images().requires_grad_())


@pytest.mark.parametrize("name", NEW)
def test_a_comparator_does_not_pass_for_the_plain_model(name: str) -> None:
    config_of(plain())
    with pytest.raises(ConfigError, match="does not know its configuration"):
        config_of(COMPARATORS[name]().build(plain(), seed=0))


def test_the_optimizer_treats_new_weights_as_their_like() -> None:
    model = Jumbo().build(plain(), seed=0)
    named = dict(model.named_parameters())
    assert not decays("blocks.slot_token", named["blocks.slot_token"])
    assert decays("blocks.jumbo_mlp.fc1.weight", named["blocks.jumbo_mlp.fc1.weight"])

    def factor(name: str) -> float:
        assert name in named
        return lr_factor(name, depth=4, layer_decay=0.5, patch_embed_lr=1.0)

    assert factor("blocks.slot_token") == factor("cls_token") == 0.5**5
    assert factor("blocks.1.jumbo_norm.weight") == factor("blocks.1.norm2.weight") == 0.5**3
    assert factor("blocks.jumbo_mlp.fc1.weight") == 1.0
    assert lr_factor("blocks.class_attention.0.attn.q.weight", depth=4, layer_decay=0.5, patch_embed_lr=1.0) == 1.0


def test_patch_diversification_without_losses_is_refused_since_it_is_the_baseline() -> None:
    with pytest.raises(ValueError, match="cosine_weight must be above 0"):
        COMPARATORS["patch_diversification"](cosine_weight=0.0, contrast_weight=0.0)


@pytest.mark.parametrize("case", CASES)
def test_every_comparator_at_its_defaults_goes_with_every_recipe(case: str) -> None:
    for recipe in RECIPES.values():
        settings = recipe(drop_path_subset=False) if recipe().drops_subsets() else recipe()  # type: ignore[call-arg]
        CASES[case].check_recipe(settings)


def test_the_mixing_loss_needs_a_recipe_with_labels_and_cutmix() -> None:
    mixing = PatchDiversification(mixing_weight=2.0)
    mixing.check_recipe(RECIPES["deit3_cpu"]())
    for recipe in (RECIPES["dinov2_cpu"](), RECIPES["deit3_cpu"](cutmix=0.0)):  # type: ignore[call-arg]
        with pytest.raises(ConfigError, match=rf"mixing_weight must be 0 .*'{recipe.name}'.* not 2\.0"):
            mixing.check_recipe(recipe)


def test_jumbo_is_refused_where_its_baseline_leaves_out_images_by_other_draws() -> None:
    jumbo = COMPARATORS["jumbo"]()
    with pytest.raises(ConfigError, match="drop_path_subset must be false with comparator 'jumbo'"):
        jumbo.check_recipe(RECIPES["dinov2"]())
    jumbo.check_recipe(RECIPES["dinov2"](drop_path_subset=False))
    jumbo.check_recipe(RECIPES["dinov2"](drop_path=0.0))
    jumbo.check_recipe(RECIPES["deit3"]())
