"""What own weights add to a block's kernels and bytes: a few small ones, none of the size of an activation.

Under autocast on a CPU, which stands for that on a GPU: what is computed is the same, not how fast.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from specvit.models.config import VitConfig
from specvit.models.scales import Scale
from specvit.models.vit import build_vit

BATCH_SIZE, SCALE = 16, Scale(width=16, depth=1, num_heads=2)
SIDES = (48, 24)
"""Sides of an image in pixels: 145 and 37 tokens."""
WHOLE = BATCH_SIZE * 145 * SCALE.width
"""Numbers of an activation; no weight has a tenth of them, nor have the own rows of all images together."""

EVERYWHERE = {
    "full": "norm+qkv+proj+mlp+layerscale+final_norm",
    "parts of a layer": "q+k(gate)+v",
    "gate": "norm(gate)+qkv(gate)+proj(gate)+mlp(gate)+layerscale(gate)+final_norm(gate)",
    "gate:token": "norm(gate:token)+qkv(gate:token)+mlp(gate:token)+layerscale(gate:token)+final_norm(gate:token)",
    "lora": "qkv(lora:2)+proj(lora:2)+mlp(lora:2)",
}

NUM_KERNELS = {
    **dict.fromkeys(("norm1", "norm2", "final_norm"), (3, 5)),
    # Two casts, a product, its rows put in; rows saved, zeroed, put back, four products and sums, two casts.
    **dict.fromkeys(("qkv", "proj", "fc1", "fc2"), (4, 9)),
    "layerscale": (2, 6),
    "q+v": (8, 18),
    "norm1(gate)": (8, 22),
    "fc1(gate)": (12, 23),
    "layerscale(gate)": (14, 32),
    "norm1(gate:token)": (14, 31),
    "fc1(gate:token)": (18, 32),
    "fc1(lora:2)": (8, 9),
}
"""Kernels that own weights add under autocast, forward and backward; ``layerscale`` is two layers."""


class _Kernels(TorchDispatchMode):
    """The operators that compute or copy, by name, and those of them that take a whole activation."""

    def __init__(self) -> None:
        super().__init__()
        self.all: Counter[str] = Counter()
        self.whole: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if not func.is_view and name not in ("empty", "empty_like", "new_empty", "new_empty_strided", "_unsafe_view"):
            sizes = [leaf.numel() for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
            self.all[name] += 1
            self.whole[name] += max(sizes, default=0) >= WHOLE
        return func(*args, **(kwargs or {}))


def _forward(text: str, *, autocast: bool = True, side: int = SIDES[0]) -> Callable[[], Tensor]:
    """Build a ViT of one block and return its forward pass."""
    config = VitConfig(SCALE, image_size=side, patch_size=4, specialization=text, layer_scale=0.1)
    model, images = build_vit(config), torch.randn(BATCH_SIZE, 3, side, side)

    def forward() -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            tokens = model.forward_features(images)
        return tokens.float().square().mean()

    return forward


@functools.cache
def _kernels(text: str, *, autocast: bool = True) -> tuple[_Kernels, _Kernels]:
    """Return the kernels of a forward and of a backward pass."""
    forward = _forward(text, autocast=autocast)
    with _Kernels() as first:
        loss = forward()
    with _Kernels() as second:
        loss.backward()
    return first, second


@functools.cache
def _num_bytes(text: str, *, side: int) -> int:
    """Return the bytes of all that is allocated in a step."""
    forward = _forward(text, side=side)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        forward().backward()
    events = profiler.profiler.kineto_results.events()
    return sum(max(0, event.nbytes()) for event in events if event.name() == "[memory]")


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.mark.parametrize("autocast", [True, pytest.param(False, marks=pytest.mark.long)])
@pytest.mark.parametrize("mode", EVERYWHERE)
def test_own_weights_touch_no_whole_activation_or_gradient_once_more(mode: str, autocast: bool) -> None:
    plain, own = (_kernels(text, autocast=autocast) for text in ("none", EVERYWHERE[mode]))
    for before, after in zip(plain, own, strict=True):
        assert before.whole.total() > 15
        assert after.whole == before.whole


@pytest.mark.parametrize("mode", EVERYWHERE)
def test_the_bytes_that_own_weights_add_do_not_grow_with_the_tokens(mode: str) -> None:
    added = [_num_bytes(EVERYWHERE[mode], side=side) - _num_bytes("none", side=side) for side in SIDES]
    assert 0 < added[0] == added[1]


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(text, marks=() if text in ("norm1", "qkv", "layerscale") else pytest.mark.long)
        for text in NUM_KERNELS
    ],
)
def test_own_weights_add_a_few_small_kernels_a_layer(text: str) -> None:
    plain, own = _kernels("none"), _kernels(text)
    assert tuple(b.all.total() - a.all.total() for a, b in zip(plain, own, strict=True)) == NUM_KERNELS[text]
