"""[CLS] of the last blocks: timm's own intermediate layers, and models that are cut short."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from timm.models.vision_transformer import VisionTransformer

from specvit.comparators import COMPARATORS
from specvit.data import Split
from specvit.device import Device
from specvit.models.config import VitConfig, find_rows, parse_high_norm
from specvit.models.scales import Scale
from specvit.models.vit import build_vit
from specvit.probes import features
from specvit.probes.features import backbone_features, record_cls
from specvit.training.augment import normalised

CPU = Device(torch.device("cpu"))
SCALE = Scale(16, 5, 2)


def _images() -> torch.Tensor:
    return torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def _moved(model: VisionTransformer) -> VisionTransformer:
    """Move every weight, so that no norm is the identity and own weights differ from shared ones."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def _build(*, init: Any = "copy", **arm: Any) -> VisionTransformer:
    return _moved(build_vit(VitConfig(SCALE, image_size=8, patch_size=4, **arm), init=init))


def _compare(name: str, **settings: Any) -> VisionTransformer:
    plain = build_vit(VitConfig(SCALE, image_size=8, patch_size=4, high_norm=parse_high_norm("registers:2")))
    return _moved(COMPARATORS[name](**settings).build(plain, seed=0))


@torch.no_grad()
def _record(model: VisionTransformer, num_blocks: int) -> list[torch.Tensor]:
    with record_cls(model, num_blocks) as recorded:
        model.forward_features(_images())
    return recorded


PLACEBO = find_rows(tokens="placebo", registers_with="cls", num_registers=2, grid=(2, 2))
ARMS: dict[str, dict[str, Any]] = {
    "plain": {},
    "registers": {"high_norm": parse_high_norm("registers:2")},
    "attention bias": {"high_norm": parse_high_norm("attention_bias")},
    "own norms": {"specialization": "norm@all+final_norm+qkv@first-half"},
    "placebo": {
        "specialization": "norm@all+final_norm",
        "high_norm": parse_high_norm("registers:2"),
        "rows": PLACEBO,
    },
}


@pytest.mark.parametrize("arm", ARMS)
@pytest.mark.parametrize("num_blocks", [1, 4])
def test_recorded_cls_is_that_of_timms_intermediate_layers(arm: str, num_blocks: int) -> None:
    model = _build(**ARMS[arm])
    with torch.no_grad():
        layers = model.get_intermediate_layers(_images(), n=num_blocks, return_prefix_tokens=True, norm=True)
    expected = [prefix[:, 0] for _, prefix in layers]

    recorded = _record(model, num_blocks)

    assert len(recorded) == num_blocks
    torch.testing.assert_close(recorded, expected, rtol=0, atol=1e-6)


def _cut(model: Any, name: str, depth: int) -> VisionTransformer:
    if name == "class_attention":
        model.blocks.class_attention = model.blocks.class_attention[:depth]
        return model
    model.blocks.depth = depth
    if name == "jumbo":
        model.blocks.means = model.blocks.means[:depth]
    return model


@pytest.mark.parametrize(
    ("name", "settings", "depths"),
    [
        ("jumbo", {"slots": 2}, [2, 3, 4, 5]),
        ("token_pooling", {"after": 0.4}, [2, 3, 4, 5]),
        ("class_attention", {}, [1, 2]),  # before, [CLS] has seen no image
        ("class_attention", {"num_blocks": 6}, [3, 4, 5, 6]),
    ],
)
def test_recorded_cls_of_a_comparator_is_that_of_a_model_without_the_later_blocks(
    name: str, settings: dict[str, Any], depths: list[int]
) -> None:
    expected = [_cut(_compare(name, **settings), name, depth).forward_features(_images())[:, 0] for depth in depths]

    recorded = _record(_compare(name, **settings), 4)

    torch.testing.assert_close(recorded, expected, rtol=0, atol=1e-5)
    assert all((one - other).abs().max() > 1e-3 for one, other in pairwise(recorded))


def test_recorded_cls_of_more_blocks_than_there_are_is_that_of_all() -> None:
    assert len(_record(_build(), 9)) == 5


def test_recorded_cls_of_no_block_is_none() -> None:
    assert _record(_build(), 0) == []


def test_recorded_cls_leaves_no_hook_behind_even_after_an_error() -> None:
    model = _build()
    with pytest.raises(ValueError, match="unpack"), record_cls(model, 4) as recorded:
        model(torch.zeros(1, 5))
    model(_images())
    assert recorded == []
    assert not any(block._forward_hooks for block in model.blocks)


@pytest.mark.parametrize("arm", ["plain", "own norms"])
def test_backbone_features_keep_them_from_the_one_pass_whatever_the_batches(
    monkeypatch: pytest.MonkeyPatch, arm: str
) -> None:
    monkeypatch.setattr(features, "BATCH_SIZE", 3)
    model = _build(**ARMS[arm])
    images = np.random.default_rng(0).integers(0, 256, (7, 3, 8, 8), dtype=np.uint8)
    calls: list[int] = []
    model.patch_embed.register_forward_hook(lambda _, inputs, __: calls.append(len(inputs[0])))

    got = backbone_features(model, Split(images=images), device=CPU, num_blocks=4)

    assert calls == [3, 3, 1]
    assert got.intermediate_cls is not None
    assert torch.equal(got.intermediate_cls[:, -1], got.cls)
    with torch.no_grad():
        layers = model.get_intermediate_layers(
            normalised(images, CPU), n=4, return_prefix_tokens=True, norm=True
        )
    expected = torch.stack([prefix[:, 0] for _, prefix in layers], dim=1)
    torch.testing.assert_close(got.intermediate_cls, expected, rtol=0, atol=1e-5)


def test_backbone_features_without_being_asked_keep_none_and_are_the_same() -> None:
    model = _build()
    split = Split(images=np.random.default_rng(0).integers(0, 256, (4, 3, 8, 8), dtype=np.uint8))
    without, beside = (backbone_features(model, split, device=CPU, num_blocks=n) for n in (0, 2))
    assert without.intermediate_cls is None
    assert torch.equal(without.cls, beside.cls)
    assert torch.equal(without.patches, beside.patches)
