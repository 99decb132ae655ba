"""Specialized models against a slow, obvious one: split the tokens, apply two layers, concatenate."""

from __future__ import annotations

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from specvit.models.config import HighNorm, VitConfig, find_rows
from specvit.models.routed_layers import RoutedLayerNorm, RoutedLayerScale, RoutedLinear, own_parameters
from specvit.models.scales import Scale
from specvit.models.vit import build_vit, encode
from specvit.specialization.components import ALIASES, COMPONENTS
from specvit.specialization.token_rows import PrefixRows, SpecializedRows

TOLERANCE = 1e-9
SCALE = Scale(width=12, depth=3, num_heads=2)
GRID = (4, 4)


class _Obvious(nn.Module):
    """Compute a routed layer from the same parameters, by definition."""

    def __init__(self, routed: RoutedLinear | RoutedLayerNorm | RoutedLayerScale) -> None:
        super().__init__()
        self.routed = routed

    def _own(self, name: str) -> Tensor:
        """Return the weight or bias that the special tokens see, put together part by part."""
        shared = getattr(self.routed, name)
        pieces, end = [], 0
        for part in self.routed.parts:
            pieces.append(shared[end : part.first])
            end = part.first + part.size
            mine, span = self.routed.own[part.name], shared[part.first : end]
            if part.mode.kind == "lora":
                pieces.append(span + mine.up @ mine.down if name == "weight" else span)
            elif part.mode.kind == "gate":
                gate = mine.gate[:, None] if span.ndim == 2 else mine.gate
                pieces.append((1 - gate) * span + gate * getattr(mine, name))
            else:
                pieces.append(getattr(mine, name))
        return torch.cat([*pieces, shared[end:]])

    def forward(self, x: Tensor) -> Tensor:
        start, stop = self.routed.rows.of(x.shape[1])
        special, layer = x[:, start:stop], self.routed
        if isinstance(layer, RoutedLinear):
            plain = F.linear(x, layer.weight, layer.bias)
            own = F.linear(special, self._own("weight"), self._own("bias"))
        elif isinstance(layer, RoutedLayerNorm):
            shape, eps = layer.normalized_shape, layer.eps
            plain = F.layer_norm(x, shape, layer.weight, layer.bias, eps)
            own = F.layer_norm(special, shape, self._own("weight"), self._own("bias"), eps)
            special = F.layer_norm(special, shape, None, None, eps)
        else:
            plain = x * layer.gamma
            own = special * self._own("gamma")
        share = self._shares(special)
        blend = (1 - share) * plain[:, start:stop] + share * own
        return torch.cat([plain[:, :start], blend, plain[:, stop:]], dim=1)

    def _shares(self, special: Tensor) -> Tensor:
        """Return the share of the own output in that of each token and channel: 1 but for gates by the token."""
        num_outputs = self.routed.weight.shape[0] if hasattr(self.routed, "weight") else self.routed.gamma.shape[0]
        shares = list(torch.ones(num_outputs, *special.shape[:2], dtype=special.dtype))
        for part in self.routed.parts:
            mine = self.routed.own[part.name]
            for channel in range(part.first, part.first + part.size):
                if part.mode.kind == "gate:token":
                    shares[channel] = 1 / (1 + torch.exp(-(special @ mine.gate_weight + mine.gate_bias)))
        return torch.stack(shares, dim=-1)


def _tokens(model: VisionTransformer, images: Tensor) -> Tensor:
    tokens = encode(model, images)
    return torch.cat([tokens.cls[:, None], tokens.registers, tokens.patches], dim=1)


def _obvious(model: VisionTransformer) -> VisionTransformer:
    reference = copy.deepcopy(model)
    for name, module in list(reference.named_modules()):
        if isinstance(module, RoutedLinear | RoutedLayerNorm | RoutedLayerScale):
            reference.set_submodule(name, _Obvious(module))
    return reference


def _build(
    text: str, *, rows: SpecializedRows | None = None, registers: int = 0, init: str = "copy"
) -> VisionTransformer:
    return build_vit(
        VitConfig(
            SCALE,
            image_size=16,
            patch_size=4,
            specialization=text,
            rows=rows or PrefixRows(),
            layer_scale=0.3,
            high_norm=HighNorm(num_registers=registers),
        ),
        init=init,
    ).double()


def _shake(model: VisionTransformer) -> None:
    """Move every parameter away from its initial value, so that no difference hides."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))


def _check(model: VisionTransformer, images: Tensor) -> None:
    reference = _obvious(model)
    outputs, gradients = [], []
    for net in (model, reference):
        x = images.clone().requires_grad_()
        tokens = _tokens(net, x)
        loss = (tokens.sin() * torch.linspace(-1, 1, tokens[0].numel()).view(tokens[0].shape)).sum()
        loss.backward()
        outputs.append(tokens.detach())
        gradients.append(
            {"images": x.grad} | {n.replace(".routed.", "."): p.grad for n, p in net.named_parameters()}
        )
    torch.testing.assert_close(outputs[0], outputs[1], rtol=0, atol=TOLERANCE)
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        assert gradient is not None, name
        torch.testing.assert_close(gradient, gradients[1][name], rtol=TOLERANCE, atol=TOLERANCE, msg=name)


@st.composite
def _texts(draw: st.DrawFn) -> str:
    """Draw a specialization in which no place gets two modes."""
    terms = []
    for name in draw(st.lists(st.sampled_from(tuple(COMPONENTS)), min_size=1, unique=True)):
        modes = ["full", "gate", "gate:token"] + (["lora:1", "lora:3"] if COMPONENTS[name].has_matrix else [])
        mode = draw(st.sampled_from(modes))
        blocks = draw(st.sampled_from(["all", "first-third", "0:2", "2:3"])) if COMPONENTS[name].per_block else ""
        terms.append(f"{name}({mode})" + (f"@{blocks}" if blocks else ""))
    return "+".join(terms)


@settings(max_examples=40, deadline=None)
@given(
    text=_texts(),
    registers=st.sampled_from([0, 1, 4]),
    registers_with=st.sampled_from(["cls", "patches"]),
    tokens=st.sampled_from(["cls", "placebo"]),
    init=st.sampled_from(["copy", "independent"]),
    size=st.sampled_from([8, 16]),
    seed=st.integers(0, 2**31),
)
@pytest.mark.long
def test_any_specialized_model_equals_the_obvious_one_in_outputs_and_all_gradients(
    text: str, registers: int, registers_with: str, tokens: str, init: str, size: int, seed: int
) -> None:
    rows = find_rows(tokens=tokens, registers_with=registers_with, num_registers=registers, grid=GRID)
    model = _build(text, rows=rows, registers=registers, init=init)
    torch.manual_seed(seed)
    _shake(model)
    _check(model, torch.randn(2, 3, size, size, dtype=torch.float64))


WITH_MATRIX = {name for name, component in COMPONENTS.items() if component.has_matrix}
EVERY_TERM = [
    f"{name}({mode})"
    for name in (*COMPONENTS, *ALIASES)
    for mode in ("full", "gate", "gate:token", "lora:2")
    if mode != "lora:2" or set(ALIASES.get(name, (name,))) <= WITH_MATRIX
]


@pytest.mark.parametrize(
    ("registers", "text"),
    [
        pytest.param(num, text, marks=pytest.mark.long if "gate:token" in text and num != 1 else ())
        for text in EVERY_TERM
        for num in (0, 1, 4)
    ],
)
def test_every_component_in_every_mode_equals_the_obvious_one(text: str, registers: int) -> None:
    model = _build(text, registers=registers)
    torch.manual_seed(registers)
    _shake(model)
    _check(model, torch.randn(2, 3, 16, 16, dtype=torch.float64))


@settings(max_examples=40, deadline=None)
@given(text=_texts(), registers=st.sampled_from([0, 1, 4]), tokens=st.sampled_from(["cls", "placebo"]))
def test_any_arm_that_starts_from_copies_computes_the_baseline_to_the_last_bit(
    text: str, registers: int, tokens: str
) -> None:
    rows = find_rows(tokens=tokens, registers_with="cls", num_registers=registers, grid=GRID)
    images = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    baseline = _tokens(_build("none", registers=registers), images)
    assert torch.equal(_tokens(_build(text, rows=rows, registers=registers), images), baseline)


@settings(max_examples=20, deadline=None)
@given(text=_texts())
def test_gates_and_low_ranks_start_at_the_shared_weights_also_when_own_ones_are_drawn_anew(text: str) -> None:
    text = text.replace("(full)", "(gate)").replace("(gate:token)", "(gate)")
    images = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    assert torch.equal(_tokens(_build(text, init="independent"), images), _tokens(_build("none"), images))


def test_gates_by_the_token_start_with_two_percent_of_weights_that_are_drawn_anew() -> None:
    model = _build("mlp(gate:token)", init="independent")
    images = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    shares = [float(torch.sigmoid(p.detach())) for n, p in model.named_parameters() if n.endswith("gate_bias")]
    assert shares == pytest.approx([1 / (1 + math.exp(4))] * 2 * SCALE.depth)
    assert 0 < float((_tokens(model, images) - _tokens(_build("none"), images)).detach().abs().max()) < 0.1
    _check(model, images)


@pytest.mark.parametrize("init", ["copy", "independent"])
@pytest.mark.parametrize("mode", ["gate", "gate:token"])
@pytest.mark.parametrize("name", ["norm", "qkv", "mlp", "layerscale"])
def test_gates_learn_from_the_first_steps(name: str, mode: str, init: str) -> None:
    """A gate at 0 over equal weights would be stuck: both gradients are products with 0."""
    model = _build(f"{name}({mode})", init=init)
    own = own_parameters(model)
    for _ in range(2):
        images = torch.randn(2, 3, 16, 16, dtype=torch.float64)
        _tokens(model, images).sin().sum().backward()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.sub_(0.1 * parameter.grad)
        moved = {n for n, p in own.items() if p.grad is not None and p.grad.abs().sum() > 0}
        model.zero_grad()
    assert moved == set(own)


@pytest.mark.parametrize("text", ["norm1@all", "qkv@all", "qkv(lora:2)@all", "norm(gate)@all"])
def test_a_second_derivative_is_refused(text: str) -> None:
    model = build_vit(VitConfig(SCALE, image_size=16, patch_size=4, specialization=text))
    features = model.forward_features(torch.randn(2, 3, 16, 16))
    with pytest.raises(RuntimeError, match="create_graph"):
        torch.autograd.grad(features.square().sum(), list(model.parameters())[:3], create_graph=True)
