"""Diagnostics of whole models against the same forward pass written out step by step in float64."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from timm.models.vision_transformer import ParallelScalingBlock, VisionTransformer
from torch import Tensor, nn

from specvit.diagnostics.diagnose import Measurement, diagnose
from specvit.errors import ConfigError
from specvit.models.config import VitConfig, parse_high_norm
from specvit.models.scales import Scale
from specvit.models.vit import build_vit
from specvit.specialization.token_rows import PrefixRows

DEPTH, WIDTH, HEADS = 3, 16, 2
NUM_IMAGES = 5


def _timm(**changes: Any) -> VisionTransformer:
    settings: dict[str, Any] = {
        "img_size": 16, "patch_size": 4, "num_classes": 0, "embed_dim": WIDTH, "depth": DEPTH, "num_heads": HEADS
    }
    torch.manual_seed(0)
    return VisionTransformer(**settings | changes)


def _ours(specialize: str = "none", high_norm: str = "vanilla", **changes: Any) -> VisionTransformer:
    model = build_vit(
        VitConfig(
            Scale(width=WIDTH, depth=DEPTH, num_heads=HEADS),
            image_size=16,
            patch_size=4,
            specialization=specialize,
            high_norm=parse_high_norm(high_norm),
            **changes,
        ),
        init="independent",
    )
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():  # so that own weights, norms and biases all matter
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model


MODELS: dict[str, Callable[[], VisionTransformer]] = {
    "plain timm": _timm,
    "timm with norms of q and k": lambda: _timm(qk_norm=True, init_values=0.5),
    "timm with registers": lambda: _timm(reg_tokens=3, no_embed_class=True),
    "specialized": lambda: _ours("norm@all+qkv@first-third+final_norm"),
    "registers:4": lambda: _ours("norm@all+qkv(lora:2)", "registers:4", rows=PrefixRows(5)),
    "attention_bias": lambda: _ours("qkv@all", "attention_bias"),
}


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randn(NUM_IMAGES, 3, 16, 16, generator=torch.Generator().manual_seed(2))


def _as_table(readings: tuple[Measurement, ...]) -> dict[tuple[int, str, str], float]:
    table = {(reading.block, reading.site, reading.quantity): reading.value for reading in readings}
    assert len(table) == len(readings)
    return table


def _tokens_reference(tokens: Tensor, num_prefix: int, threshold: float) -> dict[str, float]:
    array = tokens.numpy()
    norms = np.linalg.norm(array, axis=-1)
    unit = array / norms[..., None]
    cosines = unit @ unit.transpose(0, 2, 1)
    patches = cosines[:, num_prefix:, num_prefix:]
    num_patches = patches.shape[1]
    pairs = [patches[:, i, j] for i in range(num_patches) for j in range(num_patches) if i != j]
    patch_norms = norms[:, num_prefix:]
    expected = {
        "cls_patch_cosine": cosines[:, 0, num_prefix:].mean(),
        "patch_patch_cosine": np.mean(pairs),
        "cls_norm": norms[:, 0].mean(),
        "patch_norm": patch_norms.mean(),
        "high_norm_share": (patch_norms > threshold).mean(),
        "high_norm_share_relative": (patch_norms > 3 * np.median(patch_norms)).mean(),
    }
    if num_prefix > 1:
        expected["register_norm"] = norms[:, 1:num_prefix].mean()
    return expected


def _attention_reference(attn: Any, x: Tensor, num_prefix: int) -> dict[str, float]:
    qkv = attn.qkv(x).reshape(*x.shape[:2], 3, HEADS, WIDTH // HEADS).permute(2, 0, 3, 1, 4)
    q, k = attn.q_norm(qkv[0]), attn.k_norm(qkv[1])
    key_bias = getattr(attn, "key_bias", None)
    if key_bias is not None:
        k = torch.cat([k, key_bias.expand(len(x), -1, -1, -1)], dim=2)
    weights = torch.exp(q @ k.transpose(-1, -2) / math.sqrt(WIDTH // HEADS))
    weights = weights / weights.sum(-1, keepdim=True)
    num_tokens = x.shape[1]
    keys = {"cls": slice(0, 1), "patches": slice(num_prefix, num_tokens)}
    if num_prefix > 1:
        keys["registers"] = slice(1, num_prefix)
    if key_bias is not None:
        keys["bias"] = slice(num_tokens, num_tokens + 1)
    queries = {"cls": slice(0, 1), "patches": slice(num_prefix, num_tokens)}
    return {
        f"{query}_to_{key}": float(weights[:, :, rows, columns].sum(-1).mean())
        for query, rows in queries.items()
        for key, columns in keys.items()
    }


def _rank_me_reference(features: Tensor) -> float:
    values = np.linalg.svd(features.numpy(), compute_uv=False)
    shares = values / values.sum()
    return math.exp(-sum(share * math.log(share) for share in shares if share > 0))


@torch.no_grad()
def _reference(model: VisionTransformer, images: Tensor, threshold: float) -> dict[tuple[int, str, str], float]:
    model = copy.deepcopy(model).double().eval()
    num_prefix = model.num_prefix_tokens
    found: dict[tuple[int, str, str], float] = {}

    def note(block: int, site: str, values: dict[str, float]) -> None:
        found.update({(block, site, quantity): value for quantity, value in values.items()})

    x = model.norm_pre(model._pos_embed(model.patch_embed(images.double())))
    for index, block in enumerate(model.blocks):
        block: Any
        for name in ("norm1", "norm2"):
            normed = getattr(block, name)(x)
            note(index, f"{name}.in", _tokens_reference(x, num_prefix, threshold))
            note(index, f"{name}.out", _tokens_reference(normed, num_prefix, threshold))
            if name == "norm1":
                note(index, "attention", _attention_reference(block.attn, normed, num_prefix))
                x = x + block.ls1(block.attn(normed))
            else:
                x = x + block.ls2(block.mlp(normed))
    out = model.norm(x)
    note(DEPTH, "final_norm.in", _tokens_reference(x, num_prefix, threshold))
    ranks = {
        "cls_rankme": _rank_me_reference(out[:, 0]),
        "patch_rankme": _rank_me_reference(out[:, num_prefix:].flatten(0, 1)),
    }
    note(DEPTH, "final_norm.out", _tokens_reference(out, num_prefix, threshold) | ranks)
    return found


@pytest.mark.parametrize("name", MODELS)
def test_readings_are_those_of_the_forward_pass_written_out(name: str, images: Tensor) -> None:
    model = MODELS[name]()
    threshold = 3.5
    readings = _as_table(diagnose(model, images, batch_size=2, high_norm_threshold=threshold))
    expected = _reference(model, images, threshold)
    assert readings.keys() == expected.keys()
    for key, value in expected.items():
        assert readings[key] == pytest.approx(value, abs=2e-4, rel=1e-4), key


@pytest.mark.parametrize("name", MODELS)
def test_attention_shares_of_each_query_kind_sum_to_one(name: str, images: Tensor) -> None:
    sums: dict[tuple[int, str], float] = {}
    for reading in diagnose(MODELS[name](), images):
        if reading.site == "attention":
            key = (reading.block, reading.quantity.partition("_to_")[0])
            sums[key] = sums.get(key, 0.0) + reading.value
    assert sums == pytest.approx({(block, kind): 1.0 for block in range(DEPTH) for kind in ("cls", "patches")})


def test_readings_do_not_depend_on_the_batches(images: Tensor) -> None:
    model = _ours("norm", "registers:4")
    one, five = (_as_table(diagnose(model, images, batch_size=size)) for size in (1, 5))
    assert one == pytest.approx(five, rel=1e-5)


def test_high_norm_shares_count_a_patch_that_stands_out() -> None:
    # The right column of patches, 4 of 16, is white, and the embedding passes one pixel on to all 16 channels.
    model = _timm(depth=1, pos_embed="none")
    with torch.no_grad():
        model.patch_embed.proj.weight.zero_()
        model.patch_embed.proj.bias.fill_(0.1)  # type: ignore[union-attr]
        model.patch_embed.proj.weight[:, 0, 0, 0] = 50.0
    images = torch.zeros(1, 3, 16, 16)
    images[:, :, :, 12:] = 1.0
    # Norms: 0.1 sqrt(16) = 0.4 for 12 patches, 50.1 * 4 = 200.4 for 4 of them.
    table = _as_table(diagnose(model, images))
    assert table[0, "norm1.in", "high_norm_share"] == 0.25
    assert table[0, "norm1.in", "high_norm_share_relative"] == 0.25
    assert table[0, "norm1.in", "patch_norm"] == pytest.approx(0.75 * 0.4 + 0.25 * 200.4)
    assert _as_table(diagnose(model, images, high_norm_threshold=201))[0, "norm1.in", "high_norm_share"] == 0.0


def test_a_collapsed_model_has_rank_one(images: Tensor) -> None:
    model = _timm()
    with torch.no_grad():
        model.norm.weight.zero_()
        model.norm.bias.fill_(1.0)
    table = _as_table(diagnose(model, images))
    assert table[DEPTH, "final_norm.out", "cls_rankme"] == pytest.approx(1.0, abs=1e-3)
    assert table[DEPTH, "final_norm.out", "patch_rankme"] == pytest.approx(1.0, abs=1e-3)
    assert table[DEPTH, "final_norm.out", "patch_patch_cosine"] == pytest.approx(1.0)


def _hooks(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) for module in model.modules())


def test_modes_and_hooks_are_as_before_also_after_an_error(images: Tensor) -> None:
    model = _ours("norm").train()
    model.blocks[1].eval()
    modes = [module.training for module in model.modules()]
    diagnose(model, images)
    assert [module.training for module in model.modules()] == modes
    assert _hooks(model) == 0
    model.norm.forward = None  # type: ignore[assignment, method-assign]
    with pytest.raises(TypeError):
        diagnose(model, images)
    assert [module.training for module in model.modules()] == modes
    assert _hooks(model) == 0


def test_a_model_in_training_mode_is_measured_without_its_stochastic_depth(images: Tensor) -> None:
    model = _timm(drop_path_rate=0.9, proj_drop_rate=0.5)
    assert diagnose(model.train(), images) == diagnose(model.eval(), images)


def test_progress_is_told_after_each_batch(images: Tensor) -> None:
    heard: list[tuple[int, int]] = []
    diagnose(_timm(), images, batch_size=2, progress=lambda done, total: heard.append((done, total)))
    assert heard == [(2, 5), (4, 5), (5, 5)]


def test_one_patch_has_no_pair_and_broken_tokens_are_not_taken_for_low_norms(images: Tensor) -> None:
    assert not any(r.quantity == "patch_patch_cosine" for r in diagnose(_timm(img_size=4), images[..., :4, :4]))
    model = _timm()
    with torch.no_grad():
        model.patch_embed.proj.bias.fill_(math.nan)  # type: ignore[union-attr]
    table = _as_table(diagnose(model, images))
    assert all(math.isnan(table[DEPTH, "final_norm.out", name]) for name in ("high_norm_share", "patch_rankme"))


def test_another_trunk_is_measured_at_its_final_norm_alone(images: Tensor) -> None:
    class Whole(nn.Module):
        def __len__(self) -> int:
            return DEPTH

        def forward(self, x: Tensor) -> Tensor:
            return x

    model = _timm()
    model.blocks = Whole()  # type: ignore[assignment]
    readings = diagnose(model, images)
    assert {(reading.block, reading.site) for reading in readings} == {
        (DEPTH, "final_norm.in"), (DEPTH, "final_norm.out")
    }


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: _timm(class_token=False, global_pool="avg"), r"\[CLS\]"),
        (lambda: _timm(block_fn=ParallelScalingBlock), "not ParallelScalingBlock"),
        (lambda: _timm(attn_layer="diff"), "not Block with DiffAttention"),
    ],
)
def test_a_model_that_cannot_be_looked_into_is_refused(
    make: Callable[[], VisionTransformer], message: str, images: Tensor
) -> None:
    with pytest.raises(ConfigError, match=message):
        diagnose(make(), images)


def test_no_images_and_no_batch_are_refused(images: Tensor) -> None:
    with pytest.raises(ConfigError, match=r"images: must be .* not \(0, 3, 16, 16\)"):
        diagnose(_timm(), images[:0])
    with pytest.raises(ConfigError, match="batch_size"):
        diagnose(_timm(), images, batch_size=0)
