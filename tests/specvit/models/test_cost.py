"""What own weights cost: operations, memory, and whether compilers and lower precision take them."""

from __future__ import annotations

import functools

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from specvit.models.config import VitConfig
from specvit.models.scales import SCALES, Scale
from specvit.models.vit import build_vit, num_parameters

PAPER = "norm@all+qkv@first-third"
SMALLEST = Scale(width=16, depth=4, num_heads=2)
"""For what takes longer with every block."""

MIXED = "qkv(lora:8)@0:2+mlp@2:4+proj(gate)+final_norm"
BY_TOKEN = "norm(gate:token)@all+qkv(gate:token)@first-third"
MODES = (
    PAPER,
    "norm@all+qkv(lora:8)@first-third",
    "norm(gate)@all+qkv(gate)@first-third",
    BY_TOKEN,
)


def _build(
    text: str, *, shape: Scale = SCALES["nano"], image_size: int = 24, patch_size: int = 4
) -> VisionTransformer:
    return build_vit(VitConfig(shape, image_size=image_size, patch_size=patch_size, specialization=text))


def _step(model: VisionTransformer, images: Tensor) -> Tensor:
    tokens = model.forward_features(images)
    tokens.square().mean().backward()
    return tokens.detach()


@functools.cache
def _flops(text: str, *, scale: str, image_size: int, patch_size: int) -> int:
    with torch.device("meta"):
        model = _build(text, shape=SCALES[scale], image_size=image_size, patch_size=patch_size)
        images = torch.zeros(4, 3, image_size, image_size)
    with FlopCounterMode(display=False) as counter:
        _step(model, images)
    total: int = counter.get_total_flops()
    return total


def _peak_bytes(model: VisionTransformer, images: Tensor) -> int:
    """Return the most bytes that a step holds at once beyond the weights, gradients included."""
    _step(model, images)
    model.zero_grad(set_to_none=True)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        _step(model, images)
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


SHAPES = [("nano", 24, 4), ("nano", 32, 4), ("small", 224, 16), ("base", 224, 16)]
"""Scale, side of an image, side of a patch."""


@pytest.mark.parametrize(
    ("scale", "image_size", "patch_size", "text"),
    [
        pytest.param(*shape, text, marks=() if shape in quick else pytest.mark.long)
        for text, quick in ((text, SHAPES[1:2] if text == BY_TOKEN else SHAPES[:3]) for text in MODES)
        for shape in SHAPES
    ],
)
def test_own_weights_add_at_most_half_a_percent_of_operations(
    text: str, scale: str, image_size: int, patch_size: int
) -> None:
    shape = {"scale": scale, "image_size": image_size, "patch_size": patch_size}
    plain = _flops("none", **shape)
    assert plain < _flops(text, **shape) <= 1.005 * plain


@pytest.mark.parametrize("text", MODES)
def test_own_weights_add_at_most_two_percent_of_peak_memory_beyond_themselves(text: str) -> None:
    images = torch.randn(16, 3, 32, 32)
    plain, specialized = _build("none", image_size=32), _build(text, image_size=32)
    extra_bytes = 4 * (num_parameters(specialized) - num_parameters(plain))
    peak = _peak_bytes(plain, images)
    assert peak > 1e6
    assert _peak_bytes(specialized, images) <= 1.02 * peak + extra_bytes


@pytest.mark.long
@pytest.mark.parametrize("text", [PAPER, MIXED, *MODES[1:]])
def test_a_compiled_model_is_one_graph_and_computes_the_same(text: str) -> None:
    torch.manual_seed(0)
    model = _build(text, shape=SMALLEST, image_size=16)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    images = torch.randn(2, 3, 16, 16)
    expected = _step(model, images)
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    compiled = torch.compile(model.forward_features, fullgraph=True, backend="aot_eager")
    tokens = compiled(images)
    tokens.square().mean().backward()
    torch.testing.assert_close(tokens.detach(), expected)
    for name, gradient in gradients.items():
        torch.testing.assert_close(model.get_parameter(name).grad, gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("text", MODES)
def test_in_bfloat16_own_weights_that_are_copies_compute_the_plain_model_within_its_rounding(text: str) -> None:
    torch.manual_seed(0)
    images = torch.randn(8, 3, 24, 24)
    with torch.no_grad():
        exact = _build("none").forward_features(images)
    with torch.autocast("cpu", torch.bfloat16):
        plain, specialized = (_step(_build(name), images).float() for name in ("none", text))
    error = (plain - exact).abs().mean()
    assert (specialized - exact).abs().mean() < 1.5 * error
    assert (specialized - plain).abs().mean() < 1.5 * error


@pytest.mark.parametrize("text", MODES)
def test_gradients_in_bfloat16_are_those_of_full_precision_within_its_rounding(text: str) -> None:
    torch.manual_seed(0)
    images = torch.randn(8, 3, 24, 24)
    model = _build(text)
    _step(model, images)
    exact = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    with torch.autocast("cpu", torch.bfloat16):
        tokens = model.forward_features(images)
    tokens.float().square().mean().backward()
    for name, gradient in exact.items():
        got = model.get_parameter(name).grad
        assert got is not None
        assert got.dtype == torch.float32
        if gradient.norm() > 1e-4:
            assert torch.nn.functional.cosine_similarity(got.flatten(), gradient.flatten(), dim=0) > 0.98, name
