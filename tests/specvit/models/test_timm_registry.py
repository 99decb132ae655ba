"""Our models in timm's registry, and timm's ways with models on them. The numbers are timm's or torch's."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from timm.optim import param_groups_layer_decay, param_groups_weight_decay
from torch import Tensor

import specvit.models.timm_registry  # noqa: F401
from specvit.errors import ConfigError
from specvit.models.config import config_of
from specvit.models.routed_layers import own_parameters
from specvit.models.scales import SCALES
from specvit.specialization.token_rows import PatchRow, PrefixRows

from ..own_weights import original_name

EVERYTHING = "norm@all+qkv(gate)@first-third+proj(lora:4)+mlp@last-half+layerscale+final_norm"


def create(**options: Any) -> VisionTransformer:
    """Build the smallest model, of 32 pixels in 16 patches, without a head."""
    small = {"img_size": 32, "patch_size": 8, "num_classes": 0, "seed": 0}
    model = timm.create_model("specvit_nano_patch16_224", **(small | options))
    assert isinstance(model, VisionTransformer)
    return model.eval()


def images(size: int = 32, *, num: int = 2, channels: int = 3) -> Tensor:
    return torch.randn(num, channels, size, size, generator=torch.Generator().manual_seed(1))


def shake(model: VisionTransformer) -> VisionTransformer:
    """Move own weights away from the shared ones."""
    torch.manual_seed(2)
    with torch.no_grad():
        for value in own_parameters(model).values():
            value.add_(torch.randn_like(value), alpha=0.1)
    return model


@pytest.mark.long
def test_importing_the_registry_registers_every_scale_and_importing_the_package_costs_no_torch() -> None:
    code = (
        "import specvit, sys; assert not {'torch', 'timm'} & set(sys.modules)"
        "; import specvit.models.timm_registry, timm"
        "; from specvit.models.scales import SCALES; print(sorted(timm.list_models('specvit_*')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(sorted(f"specvit_{scale}_patch16_224" for scale in SCALES))


def test_unspecialized_equals_timms_small_to_the_last_bit_from_one_seed_of_torch() -> None:
    torch.manual_seed(3)
    ours = timm.create_model("specvit_small_patch16_224").eval()
    torch.manual_seed(3)
    theirs = timm.create_model("vit_small_patch16_224").eval()
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    ours.load_state_dict(theirs.state_dict())
    batch = images(224, num=1)
    with torch.inference_mode():
        assert torch.equal(ours(batch), theirs(batch))
    torch.manual_seed(3)
    again = timm.create_model("specvit_small_patch16_224")
    assert all(torch.equal(again.state_dict()[name], value) for name, value in theirs.state_dict().items())


def test_specialized_from_copies_equals_timms_and_a_seed_fixes_the_weights() -> None:
    text = "norm@all+qkv@first-third"
    one, same, other = (timm.create_model("specvit_tiny_patch16_224", specialize=text, seed=s) for s in (0, 0, 1))
    plain = timm.create_model("vit_tiny_patch16_224").eval()
    names = plain.state_dict().keys()
    plain.load_state_dict({name: value for name, value in one.state_dict().items() if name in names})
    assert torch.equal(one.eval()(images(224, num=1)), plain(images(224, num=1)))
    assert torch.equal(one.head.weight, same.head.weight)
    assert not torch.equal(one.head.weight, other.head.weight)


def test_timms_arguments_reach_the_model() -> None:
    model = create(
        num_classes=7, in_chans=1, img_size=(32, 48), drop_path_rate=0.3, init_values=1e-3, global_pool="avg"
    )
    assert model(torch.zeros(2, 1, 32, 48)).shape == (2, 7)
    assert model.blocks[-1].drop_path1.drop_prob == pytest.approx(0.3)
    assert torch.equal(model.blocks[0].ls1.gamma, torch.full((64,), 1e-3))
    assert model.norm.__class__.__name__ == "Identity"
    default = timm.create_model("specvit_nano_patch16_224")
    assert (default.num_classes, default.patch_embed.img_size, default.pretrained_cfg["architecture"]) == (
        1000,
        (224, 224),
        "specvit_nano_patch16_224",
    )


def test_tokens_and_registers_choose_the_rows() -> None:
    def rows(**options: Any) -> object:
        return create(specialize="norm", **options).blocks[0].norm1.rows

    assert rows() == PrefixRows(1)
    assert rows(high_norm="registers:4") == PrefixRows(5)
    assert rows(high_norm="registers:4", registers_with="patches") == PrefixRows(1)
    placed = rows(tokens="placebo", placebo_position=(0, 3), img_size=(32, 64))
    assert placed == PatchRow(num_prefix=1, grid=(4, 8), position=(0, 3))
    assert hasattr(create(high_norm="attention_bias").blocks[0].attn, "key_bias")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pretrained": True}, "pretrained: must be False"),
        ({"embed_dim": 128}, "embed_dim: not an argument"),
        ({"reg_tokens": 4}, "reg_tokens: .*high_norm"),
        ({"tokens": "patch"}, "tokens: must be cls or placebo, not 'patch'"),
        ({"high_norm": "registers"}, "registers:N"),
        ({"specialize": "norn"}, "unknown component 'norn'"),
        ({"specialize": "layerscale"}, "layerscale needs"),
        ({"specialize": "final_norm", "global_pool": "avg"}, "final_norm needs"),
        ({"specialize": "mlp", "mlp_ratio": 3.0}, "fc1 needs an mlp_ratio of 4"),
        ({"patch_size": 7}, "must divide the image size 32, not 7"),
    ],
)
def test_what_cannot_be_built_is_refused_with_the_field(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        create(**options)


@pytest.mark.parametrize("high_norm", ["vanilla", "registers:3", "attention_bias"])
def test_features_and_intermediates_are_those_of_the_blocks(high_norm: str) -> None:
    model = shake(create(specialize=EVERYTHING, init_values=0.5, high_norm=high_norm))
    num_prefix = 4 if high_norm == "registers:3" else 1
    x = model._pos_embed(model.patch_embed(images()))
    states = []
    for block in model.blocks:
        x = block(x)
        states.append(x)
    features = model.forward_features(images())
    assert torch.equal(features, model.norm(states[-1]))
    assert features.shape == (2, num_prefix + 16, 64)
    final, taken = model.forward_intermediates(images(), indices=[1, 5], return_prefix_tokens=True, norm=True)
    assert torch.equal(final, features)
    for (patches, prefix), index in zip(taken, (1, 5), strict=True):
        normed = model.norm(states[index])
        assert torch.equal(prefix, normed[:, :num_prefix])
        assert torch.equal(patches.flatten(2).transpose(1, 2), normed[:, num_prefix:])


def test_features_only_gives_maps_and_pooled_logits_come_from_cls() -> None:
    model = create(specialize="norm", features_only=False, num_classes=5)
    assert torch.equal(model(images()), model.head(model.forward_features(images())[:, 0]))
    maps = timm.create_model(
        "specvit_nano_patch16_224", img_size=32, patch_size=8, specialize="norm", features_only=True
    )(images())
    assert [tuple(each.shape) for each in maps] == [(2, 64, 4, 4)] * 3


def test_dynamic_image_size_resamples_positions_as_timms_does() -> None:
    model = create(specialize="norm+qkv", dynamic_img_size=True)
    plain = timm.create_model(
        "vit_tiny_patch16_224", img_size=32, patch_size=8, embed_dim=64, depth=6, num_heads=2, num_classes=0,
        dynamic_img_size=True,
    ).eval()
    plain.load_state_dict({name: model.state_dict()[name] for name in plain.state_dict()})
    assert torch.equal(model(images(56)), plain(images(56)))
    with pytest.raises(AssertionError, match="height"):
        create(specialize="norm")(images(56))


@pytest.mark.parametrize("high_norm", ["vanilla", "registers:3"])
def test_gradient_checkpointing_changes_neither_outputs_nor_gradients(high_norm: str) -> None:
    model = shake(create(specialize=EVERYTHING, init_values=0.5, high_norm=high_norm)).train()

    def outcome() -> tuple[Tensor, dict[str, Tensor]]:
        model.zero_grad()
        tokens = model.forward_features(images())
        tokens.square().mean().backward()
        return tokens.detach(), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}

    plain_tokens, plain = outcome()
    model.set_grad_checkpointing()
    tokens, gradients = outcome()
    assert torch.equal(tokens, plain_tokens)
    assert gradients.keys() == plain.keys() == dict(model.named_parameters()).keys()
    for name, gradient in gradients.items():
        assert torch.equal(gradient, plain[name]), name


def groups_of(model: VisionTransformer, groups: list[dict[str, Any]], key: str) -> dict[str, object]:
    by_id = {id(p): group[key] for group in groups for p in group["params"]}
    return {name: by_id[id(parameter)] for name, parameter in model.named_parameters()}


def test_layer_decay_treats_own_weights_as_their_originals() -> None:
    model = create(specialize=EVERYTHING, init_values=0.5)
    scales = groups_of(model, param_groups_layer_decay(model, weight_decay=0.1, layer_decay=0.5), "lr_scale")
    # The stem and six blocks; the final norm goes with the last one, whose factor is 1. Each before it halves.
    assert (scales["cls_token"], scales["blocks.0.norm1.weight"], scales["norm.weight"]) == (0.5**6, 0.5**5, 1.0)
    own = own_parameters(model)
    assert len(own) > 30
    for name in own:
        assert scales[name] == scales[original_name(name)], name


def test_weight_decay_treats_own_weights_as_their_originals() -> None:
    model = create(specialize="norm+qkv+proj(lora:4)+mlp+layerscale+final_norm", init_values=0.5)
    groups = param_groups_weight_decay(model, 0.1, no_weight_decay_list=model.no_weight_decay())
    decay = groups_of(model, groups, "weight_decay")
    assert (decay["pos_embed"], decay["norm.weight"], decay["blocks.0.attn.qkv.weight"]) == (0.0, 0.0, 0.1)
    for name in own_parameters(model):
        assert decay[name] == decay[original_name(name)], name


def test_the_papers_arm_by_its_name_is_built_as_its_places_with_layer_scales_where_there_are_some() -> None:
    for init_values, scales in ((None, ""), (1e-4, "+layerscale@all")):
        with torch.device("meta"):
            model = timm.create_model("specvit_tiny_patch16_224", specialize="paper", init_values=init_values)
        assert config_of(model).specialization == f"norm@all+qkv@first-third{scales}"
