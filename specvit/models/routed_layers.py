"""Layers with two sets of weights: own ones for some tokens ([CLS]), shared ones for all others.

Shapes: B images, N tokens, R of them with own weights, D channels in, E channels out.

Every row goes through the shared weights, then the few rows that have their own are replaced, or corrected by the
difference between the two: a few rows more than the plain layer computes, and no split and concatenation of
the sequence. In float32 and float64 nothing changes as long as the weights are equal, so that an arm that starts from
copies computes the baseline's function to the last bit. The shared weights keep the names of the plain layer,
so that a plain model's weights load unchanged; own weights are called ``own.<component>...``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from timm.layers.layer_scale import LayerScale
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from specvit.device import at_least_float32
from specvit.models.row_additions import add_to_rows, fork_rows
from specvit.models.row_ops import layer_norm_with_rows, linear_with_rows, scale_with_rows
from specvit.specialization.modes import FULL, Mode
from specvit.specialization.token_rows import SpecializedRows

OWN = "own"
"""Name under which a routed layer keeps its own weights."""

TOKEN_GATE = ("gate_weight", "gate_bias")
"""Parameters of a gate that depends on the token."""

GATES = ("gate", *TOKEN_GATE)

NEARLY_SHUT = -4.0
"""Where the bias of such a gate starts if own weights are drawn anew: 2% of them."""


@dataclass(frozen=True)
class OwnedPart:
    """What of a layer is owned.

    Attributes:
        name: Component, or several that are neighbours and share a mode.
        mode: Mode of the own weights.
        first: First of the outputs that are owned.
        size: Number of outputs that are owned.
    """

    name: str
    mode: Mode
    first: int
    size: int


class _OwnWeights(nn.Module):
    """Own weights in mode ``full`` or of a gate, and the blend of their outputs with those of the shared ones.

    A gate g blends: shared + g (own - shared). In mode ``gate`` there is a g for each channel. Where own weights start
    equal to the shared ones, it starts at 1/2: the function is the shared one all the same, while at 0 neither the gate
    nor the own weights would ever get a gradient. Where they start otherwise, it starts at 0.

    In mode ``gate:token`` there is one g for each token x, sigmoid(w x + b), with x as the own weights see it (of a
    norm, normalised). w starts at 0; b too, where own weights start equal to the shared ones, else nearly shut.
    """

    gate: nn.Parameter | None
    gate_weight: nn.Parameter | None
    gate_bias: nn.Parameter | None

    def __init__(self, part: OwnedPart, shared: nn.Module, donor: nn.Module) -> None:
        super().__init__()
        span = slice(part.first, part.first + part.size)
        for name, value in donor.named_parameters(recurse=False):
            self.register_parameter(name, nn.Parameter(value.detach()[span].clone()))
        for name in ("bias", *GATES):
            if name not in self._parameters:
                self.register_parameter(name, None)
        if part.mode == FULL:
            return
        equal = donor is shared or all(
            torch.equal(own, getattr(shared, name).detach()[span]) for name, own in self.named_parameters()
        )
        own = next(self.parameters())
        if part.mode.kind == "gate":
            self.gate = nn.Parameter(own.new_full((part.size,), 0.5 if equal else 0.0))
        else:
            # Of as many channels as x: a matrix has them as its columns, a norm or a layer scale as its own.
            self.gate_weight = nn.Parameter(own.new_zeros(own.shape[-1]))
            self.gate_bias = nn.Parameter(own.new_full((1,), 0.0 if equal else NEARLY_SHUT))

    def blend(
        self, y: Tensor, x: Tensor, own: Tensor, shared: Tensor, rows: tuple[int, int], first: int = 0
    ) -> Tensor:
        """Let the rows of ``y``, of the tokens ``x``, become the blend of ``own`` with ``shared``, what they are.

        In float32, since the difference would hold the rounding of narrower types, and the gate multiply it.
        """
        if self.gate_weight is not None:
            gate = torch.sigmoid(at_least_float32(F.linear(x, self.gate_weight.unsqueeze(0), self.gate_bias)))
        else:
            assert self.gate is not None
            gate = self.gate
        return add_to_rows(y, gate * (at_least_float32(own) - shared), rows, first=first)


class _OwnLinear(_OwnWeights):
    weight: Tensor
    bias: Tensor | None

    def forward(self, y: Tensor, x: Tensor, shared: Tensor, rows: tuple[int, int], first: int) -> Tensor:
        own = F.linear(x, self.weight, self.bias)
        return self.blend(y, x, own, shared.narrow(2, first, own.shape[2]), rows, first)


class _OwnScale(_OwnWeights):
    """Own scale, and for a norm shift, of ``(B, R, D)`` channels."""

    @property
    def scales(self) -> Sequence[Tensor]:
        """Return the scale ``(D,)``, and for a norm the shift ``(D,)``."""
        return [value for name, value in self.named_parameters() if name not in GATES]

    def forward(self, y: Tensor, x: Tensor, shared: Sequence[Tensor], rows: tuple[int, int]) -> Tensor:
        mine = self.scales
        own, plain = (
            x * scale if not shift else torch.addcmul(shift[0], x, scale) for scale, *shift in (mine, shared)
        )
        return self.blend(y, x, own, plain, rows)


class LowRank(nn.Module):
    """A matrix ``up @ down`` of low rank that is added to the shared one; it starts at 0.

    Source: LoRA (Hu et al. 2021), section 4.1, with scale 1: ``down`` starts at random, ``up`` at 0.
    """

    def __init__(self, part: OwnedPart, donor: nn.Linear) -> None:
        super().__init__()
        rank = part.mode.rank
        self.down = nn.Parameter(donor.weight.new_empty(rank, donor.in_features))
        self.up = nn.Parameter(donor.weight.new_zeros(part.size, rank))
        self.draw()

    def draw(self) -> None:
        """Draw ``down`` from torch's generator."""
        nn.init.normal_(self.down, std=self.down.shape[1] ** -0.5)

    def forward(self, y: Tensor, x: Tensor, rows: tuple[int, int], first: int) -> Tensor:
        """Add what the matrix makes of ``(B, R, D)`` to rows of ``y``."""
        return add_to_rows(y, F.linear(F.linear(x, self.down), self.up), rows, first=first)


class RoutedLinear(nn.Linear):
    """A linear layer that maps some tokens by own weights, all others by shared ones: ``(B, N, D) -> (B, N, E)``."""

    def __init__(
        self, shared: nn.Linear, donor: nn.Linear, parts: Sequence[OwnedPart], rows: SpecializedRows
    ) -> None:
        """Take over the parameters of ``shared``; own weights start as those of ``donor``."""
        nn.Module.__init__(self)
        self.in_features, self.out_features = shared.in_features, shared.out_features
        self.weight, self.bias = shared.weight, shared.bias
        self.parts, self.rows = tuple(parts), rows
        self._full = [part for part in self.parts if part.mode == FULL]
        self._blended = [part for part in self.parts if part.mode != FULL]
        self.own = nn.ModuleDict(
            {
                part.name: LowRank(part, donor)
                if part.mode.kind == "lora"
                else _OwnLinear(part, shared, donor)
                for part in self.parts
            }
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, N, D)`` to ``(B, N, E)``."""
        rows = self.rows.of(x.shape[1])
        if self._blended:
            x, x_rows = fork_rows(x, rows)
        if self._full:
            layers = [cast("_OwnLinear", self.own[part.name]) for part in self._full]
            own = [(layer.weight, layer.bias) for layer in layers]
            firsts = [part.first for part in self._full]
            y = linear_with_rows(x, shared=(self.weight, self.bias), own=own, rows=rows, firsts=firsts)
        else:
            # Of flattened tokens, so that the result is no view and can be added to.
            y = F.linear(x.flatten(0, 1), self.weight, self.bias)
        # What the gates blend with is computed once for all of them, by weights that autocast has cast already.
        gated = any(part.mode.kind != "lora" for part in self._blended)
        shared_rows = F.linear(x_rows, self.weight, self.bias) if gated else None
        for part in self._blended:
            if part.mode.kind == "lora":
                y = self.own[part.name](y, x_rows, rows, part.first)
            else:
                y = self.own[part.name](y, x_rows, shared_rows, rows, part.first)
        return y.view(*x.shape[:2], self.out_features)


class RoutedLayerNorm(nn.LayerNorm):
    """A norm that scales and shifts some tokens by own weights, all others by shared ones: ``(B, N, D)``."""

    def __init__(
        self, shared: nn.LayerNorm, donor: nn.LayerNorm, part: OwnedPart, rows: SpecializedRows
    ) -> None:
        """Take over the parameters of ``shared``; own weights start as those of ``donor``."""
        nn.Module.__init__(self)
        self.normalized_shape, self.eps = shared.normalized_shape, shared.eps
        self.elementwise_affine = shared.elementwise_affine
        self.weight, self.bias = shared.weight, shared.bias
        self.parts, self.rows = (part,), rows
        self.own = nn.ModuleDict({part.name: _OwnScale(part, shared, donor)})

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``(B, N, D)`` over its channels."""
        rows, own = self.rows.of(x.shape[1]), cast("_OwnScale", self.own[self.parts[0].name])
        if self.parts[0].mode == FULL:
            scale, shift = own.scales
            shared = (self.weight, self.bias)
            return layer_norm_with_rows(x, shared=shared, own=(scale, shift), rows=rows, eps=self.eps)
        x, x_rows = fork_rows(x, rows)
        y = F.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)
        normalised = F.layer_norm(x_rows, self.normalized_shape, None, None, self.eps)
        normed: Tensor = own(y, normalised, (self.weight, self.bias), rows)
        return normed


class RoutedLayerScale(LayerScale):
    """A scale of the channels of some tokens by own weights, of all others by shared ones: ``(B, N, D)``."""

    def __init__(
        self, shared: LayerScale, donor: LayerScale, part: OwnedPart, rows: SpecializedRows
    ) -> None:
        """Take over the parameter of ``shared``; own weights start as those of ``donor``."""
        nn.Module.__init__(self)
        self.init_values, self.inplace = shared.init_values, False
        self.gamma = shared.gamma
        self.parts, self.rows = (part,), rows
        self.own = nn.ModuleDict({part.name: _OwnScale(part, shared, donor)})

    def forward(self, x: Tensor) -> Tensor:
        """Scale the channels of ``(B, N, D)``."""
        rows, own = self.rows.of(x.shape[1]), cast("_OwnScale", self.own[self.parts[0].name])
        if self.parts[0].mode == FULL:
            return scale_with_rows(x, shared=self.gamma, own=own.scales[0], rows=rows)
        x, x_rows = fork_rows(x, rows)
        scaled: Tensor = own(x * self.gamma, x_rows, (self.gamma,), rows)
        return scaled


RoutedLayer = RoutedLinear | RoutedLayerNorm | RoutedLayerScale


def route(
    shared: nn.Module, donor: nn.Module, parts: Sequence[OwnedPart], rows: SpecializedRows
) -> RoutedLayer:
    """Build the version of a layer that has own weights for some tokens.

    Args:
        shared: The plain layer; its parameters become those of all other tokens.
        donor: A layer of the same shape whose values the own weights start from.
        parts: What is owned; one part covers a norm or a layer scale.
        rows: The tokens with own weights.

    Raises:
        TypeError: If there is no such version of this type of layer.
    """
    if isinstance(shared, nn.Linear) and isinstance(donor, nn.Linear):
        return RoutedLinear(shared, donor, parts, rows)
    (part,) = parts
    if isinstance(shared, nn.LayerNorm) and isinstance(donor, nn.LayerNorm):
        return RoutedLayerNorm(shared, donor, part, rows)
    if isinstance(shared, LayerScale) and isinstance(donor, LayerScale):
        return RoutedLayerScale(shared, donor, part, rows)
    raise TypeError(f"no version with own weights of {type(shared).__name__}")


def has_layer_scale(model: VisionTransformer) -> bool:
    """Return whether a ViT's blocks have layer scales."""
    return isinstance(getattr(model.blocks[0], "ls1", None), LayerScale)


def own_parameters(module: nn.Module) -> Mapping[str, Tensor]:
    """Return the parameters that are own weights, by name."""
    return {name: value for name, value in module.named_parameters() if is_own(name)}


def is_own(name: str) -> bool:
    """Return whether a parameter of that dotted name is an own weight."""
    return f".{OWN}." in f".{name}"
