"""The backbone against timm's. Own weights are tested in ``test_routing_reference``."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from specvit.errors import ConfigError
from specvit.models.config import HighNorm, VitConfig
from specvit.models.routed_layers import own_parameters
from specvit.models.scales import SCALES, Scale
from specvit.models.vit import build_vit, encode, num_parameters, specialize
from specvit.specialization.components import COMPONENTS
from specvit.specialization.language import parse_specialization

from ..own_weights import original_name

SCALE = Scale(width=16, depth=3, num_heads=2)
IMAGE_SIZE, PATCH_SIZE = 16, 4
EVERYTHING = "norm+qkv+proj+mlp+final_norm"
ALL_TEXTS = [
    *(name for name in COMPONENTS if name != "layerscale"),
    "norm@first-third",
    "norm+qkv@first-third",
    "mlp@1:2+qkv@last-half",
    EVERYTHING,
]


def _build(text: str = "none", *, seed: int = 0, init: Any = "copy", **settings: Any) -> VisionTransformer:
    config = VitConfig(SCALE, image_size=IMAGE_SIZE, patch_size=PATCH_SIZE, specialization=text, **settings)
    return build_vit(config, seed=seed, init=init).eval()


def _tokens(model: VisionTransformer, images: Tensor, **masks: Tensor) -> Tensor:
    tokens = encode(model, images, **masks)
    return torch.cat([tokens.cls[:, None], tokens.registers, tokens.patches], dim=1)


def _images(*, num: int = 3, size: int = IMAGE_SIZE, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(num, 3, size, size, generator=torch.Generator().manual_seed(5), dtype=dtype)


@pytest.mark.parametrize(("layer_scale", "cls_position"), [(0.0, True), (1e-4, False)])
def test_the_plain_model_equals_timms_to_the_last_bit_given_its_weights(
    layer_scale: float, cls_position: bool
) -> None:
    reference = VisionTransformer(
        img_size=IMAGE_SIZE,
        patch_size=PATCH_SIZE,
        num_classes=0,
        embed_dim=SCALE.width,
        depth=SCALE.depth,
        num_heads=SCALE.num_heads,
        init_values=layer_scale or None,
        no_embed_class=not cls_position,
    ).eval()
    model = _build(layer_scale=layer_scale, cls_position=cls_position)
    model.load_state_dict(reference.state_dict(), strict=True)
    images = _images()
    assert torch.equal(model(images), reference(images))
    assert torch.equal(_tokens(model, images), reference.forward_features(images))


@pytest.mark.parametrize("text", ["none", EVERYTHING])
def test_every_name_of_a_timm_checkpoint_is_there_with_its_shape(text: str) -> None:
    scale = SCALES["tiny"]
    with torch.device("meta"):
        checkpoint = timm.create_model("vit_tiny_patch16_224", num_classes=0).state_dict()
        model = build_vit(VitConfig(scale, image_size=224, patch_size=16, specialization=text))
    state = model.state_dict()
    assert {name: state[name].shape for name in checkpoint} == {n: v.shape for n, v in checkpoint.items()}
    assert state.keys() - checkpoint.keys() == own_parameters(model).keys()


@pytest.mark.parametrize("text", ALL_TEXTS)
def test_every_specialization_from_copies_equals_the_baseline_to_the_last_bit(text: str) -> None:
    images = _images()
    baseline, arm = _build(seed=3), _build(text, seed=3)
    assert num_parameters(arm) > num_parameters(baseline)
    assert torch.equal(_tokens(arm, images), _tokens(baseline, images))


@pytest.mark.parametrize("scale", ["nano", "mini"])
def test_a_specialization_from_copies_equals_the_baseline_to_the_last_bit_at_a_real_scale(scale: str) -> None:
    images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    baseline = build_vit(VitConfig(SCALES[scale], image_size=32, patch_size=4), seed=1)
    arm = build_vit(VitConfig(SCALES[scale], image_size=32, patch_size=4, specialization=EVERYTHING), seed=1)
    with torch.inference_mode():
        assert torch.equal(_tokens(arm.eval(), images), _tokens(baseline.eval(), images))


@pytest.mark.parametrize("init", ["copy", "independent"])
@pytest.mark.parametrize("text", ALL_TEXTS)
def test_shared_weights_do_not_depend_on_the_specialization(text: str, init: str) -> None:
    arm = _build(text, seed=7, init=init).state_dict()
    for name, value in _build(seed=7).state_dict().items():
        assert torch.equal(arm[name], value), name


@pytest.mark.parametrize("high_norm", [HighNorm(), HighNorm(num_registers=2)])
@pytest.mark.parametrize("cls_position", [True, False])
def test_cls_is_drawn_with_the_standard_deviation_that_is_asked_for_and_all_else_as_before(
    high_norm: HighNorm, cls_position: bool
) -> None:
    def build(std: float) -> dict[str, torch.Tensor]:
        shape = Scale(width=512, depth=1, num_heads=1)
        config = VitConfig(
            shape, image_size=8, patch_size=4, cls_position=cls_position, cls_std=std, high_norm=high_norm
        )
        return build_vit(config, seed=3).state_dict()

    timms, wide = build(1e-6), build(0.02)
    drawn = wide.pop("cls_token") - timms.pop("cls_token")  # beside registers, both hold the position
    # The deviation of 512 draws has one of 3.1% itself.
    assert float(drawn.std()) == pytest.approx(0.02, rel=0.15)
    assert all(torch.equal(wide[name], value) for name, value in timms.items())


def test_other_seeds_give_other_weights() -> None:
    one, other = _build(seed=0), _build(seed=1)
    assert not torch.equal(one.blocks[0].attn.qkv.weight, other.blocks[0].attn.qkv.weight)


def test_building_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    _build(EVERYTHING, init="independent")
    assert torch.equal(torch.get_rng_state(), before)


def test_own_weights_start_as_copies_or_independent_as_told() -> None:
    copied, independent = _build("qkv+mlp"), _build("qkv+mlp", init="independent")
    for name, own in own_parameters(copied).items():
        assert torch.equal(own, copied.get_parameter(original_name(name))), name
        if name.endswith("weight"):
            drawn = independent.get_parameter(name).detach()
            assert not torch.isclose(drawn, own).any(), name
            # The same distribution, with other values.
            assert float(drawn.std()) == pytest.approx(float(own.detach().std()), rel=0.15)


def test_independent_init_does_not_depend_on_what_else_is_specialized() -> None:
    little, much = _build("qkv@1:2", init="independent"), _build(EVERYTHING, init="independent")
    for name, own in own_parameters(little).items():
        assert torch.equal(own, much.get_parameter(name))


@pytest.mark.parametrize("size", [8, 24])
def test_other_image_sizes_are_encoded_as_timm_does_with_dynamic_sizes(size: int) -> None:
    reference = VisionTransformer(
        img_size=IMAGE_SIZE,
        patch_size=PATCH_SIZE,
        num_classes=0,
        embed_dim=SCALE.width,
        depth=SCALE.depth,
        num_heads=SCALE.num_heads,
        dynamic_img_size=True,
    ).eval()
    model = _build(EVERYTHING)
    model.load_state_dict(reference.state_dict(), strict=False)
    with torch.no_grad():
        for name, own in own_parameters(model).items():
            own.copy_(model.get_parameter(original_name(name)))
    images = _images(size=size)
    tokens = _tokens(model, images)
    assert tokens.shape == (3, 1 + (size // PATCH_SIZE) ** 2, SCALE.width)
    assert torch.equal(tokens, reference.forward_features(images))


def test_masks_replace_exactly_the_masked_patches_by_the_mask_token_before_positions() -> None:
    model = _build()
    images = _images()
    masked = torch.rand(3, 16, generator=torch.Generator().manual_seed(1)) < 0.4
    mask_token = torch.linspace(-1, 1, SCALE.width)
    seen: list[Tensor] = []
    model.blocks[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    encode(model, images)
    encode(model, images, masked=masked, mask_token=mask_token)
    plain, hidden = seen
    assert torch.equal(hidden[:, 0], plain[:, 0])
    for image in range(3):
        for patch in range(16):
            token = mask_token + model.pos_embed[0, 1 + patch] if masked[image, patch] else plain[image, 1 + patch]
            assert torch.equal(hidden[image, 1 + patch], token)


def test_masked_pixels_have_no_influence() -> None:
    model = _build()
    images = _images(num=1)
    masked = torch.zeros(1, 16, dtype=torch.bool)
    masked[0, 5] = True  # second row, second column of the 4 x 4 grid
    changed = images.clone()
    changed[..., 4:8, 4:8] += 1.0
    mask_token = torch.zeros(SCALE.width)
    assert not torch.equal(_tokens(model, changed), _tokens(model, images))
    assert torch.equal(
        _tokens(model, changed, masked=masked, mask_token=mask_token),
        _tokens(model, images, masked=masked, mask_token=mask_token),
    )


def test_patches_that_do_not_tile_the_image_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"model\.patch_size: must divide the image size 32, not 5"):
        build_vit(VitConfig(SCALE, image_size=32, patch_size=5))


def test_a_specialization_for_another_depth_is_refused() -> None:
    with pytest.raises(ConfigError, match="is for 6 blocks, but the model has 3"):
        specialize(_build(), parse_specialization("qkv", 6))
