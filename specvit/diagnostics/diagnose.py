"""What [CLS] and patches look like inside a ViT: cosines, norms and attention, block by block.

Sites of a measurement:

* ``norm1.in``, ``norm1.out``, ``norm2.in``, ``norm2.out`` in every block, ``final_norm.in`` and
  ``final_norm.out`` behind the last one: the tokens before and after that norm. Quantities, means over images:
  ``cls_patch_cosine``, ``patch_patch_cosine`` (two different patches of an image), ``cls_norm``,
  ``register_norm``, ``patch_norm``, and over all patches of all images ``high_norm_share`` (norm above a fixed
  threshold) and ``high_norm_share_relative`` (norm above 3 times the median patch norm at this site).
* ``attention`` in every block: ``cls_to_patches``, ``patches_to_cls`` and the other shares ``cls_to_cls``,
  ``cls_to_registers``, ``cls_to_bias``, ``patches_to_patches``, ...: the total weight that a query of the first
  kind gives to all keys of the second, averaged over heads, queries and images. Those of one query kind sum
  to 1; ``bias`` is the learned key of attention_bias.
* ``final_norm.out`` also has ``cls_rankme`` and ``patch_rankme``, alarms for collapse; see ``rank_me``.

What a model does not have (registers, a second patch) is not measured.

Source: Marouani et al. 2026 (arXiv 2602.08626), analysis of cosines around the norms. Darcet et al. 2023,
"Vision Transformers Need Registers" (arXiv 2309.16588), section 2: tokens of norm above 150 are the artefacts
of their ViT-g. That cut-off is bound to the model; the one relative to the median is ours.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from timm.layers.attention import Attention
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from specvit.diagnostics.measurement import Measurement
from specvit.diagnostics.token_statistics import attention_shares, cls_patch_cosine, patch_patch_cosine, rank_me
from specvit.errors import ConfigError
from specvit.models.attention import key_bias_of, split_heads

HIGH_NORM_THRESHOLD = 150.0
HIGH_NORM_MEDIANS = 3.0
"""A patch is of high norm relative to the others above so many times their median norm."""

FINAL_NORM = "final_norm"

_QUERIES = ("cls", "patches")
_KEYS = ("cls", "registers", "patches", "bias")


@torch.inference_mode()
def diagnose(
    model: VisionTransformer,
    images: Tensor,
    *,
    batch_size: int = 64,
    high_norm_threshold: float = HIGH_NORM_THRESHOLD,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Measurement, ...]:
    """Measure the tokens and the attention of a model on images.

    Args:
        model: A ViT of timm's with [CLS]; plain or with own weights, registers, attention biases. It is run
            in evaluation mode, in float32 or what it is in; mode and hooks are as before afterwards. Where
            something else stands in the place of its blocks, only the final norm is measured.
        images: ``(M, 3, H, W)`` float, normalised as the model wants it, M of 1 or more, on any device. A
            few hundred are enough; RankMe of [CLS] is at most M.
        batch_size: Images at a time.
        high_norm_threshold: Norm above which a patch counts for ``high_norm_share``.
        progress: Called after each batch with the number of images that are done, and with M.

    Returns:
        The measurements by block, then in the order of the forward pass; see the top of the module.

    Raises:
        ConfigError: If the model has no [CLS], or blocks that cannot be looked into, or there are no images.
    """
    if images.ndim != 4 or len(images) == 0:
        raise ConfigError(f"images: must be (M, 3, H, W) with M of 1 or more, not {tuple(images.shape)}")
    if batch_size < 1:
        raise ConfigError(f"batch_size: must be 1 or more, not {batch_size}")
    recorders = _recorders(model, high_norm_threshold)
    device = next(model.parameters()).device
    with _evaluating(model), _hooked(recorders):
        for start in range(0, len(images), batch_size):
            model.forward_features(images[start : start + batch_size].to(device))
            if progress is not None:
                progress(min(start + batch_size, len(images)), len(images))
    return tuple(result for recorder in recorders for result in recorder.results())


def _recorders(model: VisionTransformer, threshold: float) -> list[NormRecorder | AttentionRecorder]:
    if not model.has_class_token:
        raise ConfigError("model: must have a [CLS] token to be diagnosed, but it has none")
    num_prefix = model.num_prefix_tokens
    recorders: list[NormRecorder | AttentionRecorder] = []
    # Other trunks do not carry these tokens through their blocks: there may be more of them, or fewer.
    blocks: list[Any] = list(model.blocks) if isinstance(model.blocks, nn.Sequential) else []
    for index, block in enumerate(blocks):
        attention = getattr(block, "attn", None)
        if not isinstance(attention, Attention) or not hasattr(block, "norm1") or not hasattr(block, "norm2"):
            kind = " with ".join(type(module).__name__ for module in (block, attention) if module is not None)
            raise ConfigError(f"model: must have blocks of norm1, attn, norm2 with timm's Attention, not {kind}")
        recorders += [
            NormRecorder(block.norm1, index, "norm1", num_prefix, threshold),
            AttentionRecorder(attention, index, num_prefix),
            NormRecorder(block.norm2, index, "norm2", num_prefix, threshold),
        ]
    return [*recorders, NormRecorder(model.norm, len(model.blocks), FINAL_NORM, num_prefix, threshold, is_final=True)]


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode, and each of its modules back into its own."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


@contextmanager
def _hooked(recorders: list[NormRecorder | AttentionRecorder]) -> Iterator[None]:
    handles = []
    try:
        for recorder in recorders:
            handles.append(recorder.module.register_forward_hook(recorder.hook))
        yield
    finally:
        for handle in handles:
            handle.remove()


class _Means:
    """Averages of values of images over all batches."""

    def __init__(self) -> None:
        self._sums: defaultdict[str, float] = defaultdict(float)
        self._counts: defaultdict[str, int] = defaultdict(int)

    def add(self, name: str, values: Tensor) -> None:
        self._sums[name] += float(values.sum(dtype=torch.float64))
        self._counts[name] += len(values)

    def items(self) -> Iterator[tuple[str, float]]:
        for name, total in self._sums.items():
            yield name, total / self._counts[name]


class NormRecorder:
    """A recorder of what goes into a norm and what comes out."""

    def __init__(
        self, module: nn.Module, block: int, site: str, num_prefix: int, threshold: float, *, is_final: bool = False
    ) -> None:
        self.module, self.block, self.site = module, block, site
        self.sides = [_TokenRecorder(num_prefix, threshold) for _ in ("in", "out")]
        self.rank = _RankRecorder(num_prefix) if is_final else None

    def hook(self, module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG002
        """Record one call of the module."""
        for side, tokens in zip(self.sides, (inputs[0], output), strict=True):
            side.update(tokens.float())
        if self.rank is not None:
            self.rank.update(output.float())

    def results(self) -> Iterator[Measurement]:
        """Return the measurements over all calls."""
        for name, side in zip(("in", "out"), self.sides, strict=True):
            for quantity, value in side.items():
                yield Measurement(self.block, f"{self.site}.{name}", quantity, value)
        if self.rank is not None:
            for quantity, value in self.rank.items():
                yield Measurement(self.block, f"{self.site}.out", quantity, value)


class _TokenRecorder:
    """Cosines and norms of tokens ``(B, N, D)``, over all batches."""

    def __init__(self, num_prefix: int, threshold: float) -> None:
        self.num_prefix, self.threshold = num_prefix, threshold
        self.means = _Means()
        self.patch_norms: list[Tensor] = []

    def update(self, tokens: Tensor) -> None:
        patches = tokens[:, self.num_prefix :]
        self.means.add("cls_patch_cosine", cls_patch_cosine(tokens, num_prefix=self.num_prefix))
        if patches.shape[1] > 1:
            self.means.add("patch_patch_cosine", patch_patch_cosine(patches))
        norms = tokens.norm(dim=-1)
        self.means.add("cls_norm", norms[:, 0])
        if self.num_prefix > 1:
            self.means.add("register_norm", norms[:, 1 : self.num_prefix].flatten())
        self.patch_norms.append(norms[:, self.num_prefix :].flatten().cpu())

    def items(self) -> Iterator[tuple[str, float]]:
        yield from self.means.items()
        norms = torch.cat(self.patch_norms).double().numpy()
        yield "patch_norm", float(norms.mean())
        for name, limit in (
            ("high_norm_share", self.threshold),
            ("high_norm_share_relative", HIGH_NORM_MEDIANS * float(np.median(norms))),
        ):
            # A comparison with NaN is false: broken tokens would pass for tokens of low norm.
            yield name, float((norms > limit).mean()) if np.isfinite(norms).all() else math.nan


class _RankRecorder:
    """What RankMe needs of tokens ``(B, N, D)``; of patches, which are many, only their D x D products."""

    def __init__(self, num_prefix: int) -> None:
        self.num_prefix = num_prefix
        self.cls: list[Tensor] = []
        self.products: Tensor | None = None
        self.num_patches = 0

    def update(self, tokens: Tensor) -> None:
        self.cls.append(tokens[:, 0].double().cpu())
        patches = tokens[:, self.num_prefix :].flatten(0, 1).double()
        products = patches.T @ patches
        self.products = products if self.products is None else self.products + products
        self.num_patches += len(patches)

    def items(self) -> Iterator[tuple[str, float]]:
        cls, products = torch.cat(self.cls), self.products
        assert products is not None
        if not bool(cls.isfinite().all()) or not bool(products.isfinite().all()):
            yield from (("cls_rankme", math.nan), ("patch_rankme", math.nan))
            return
        yield "cls_rankme", rank_me(torch.linalg.svdvals(cls))
        squares = torch.linalg.eigvalsh(products.cpu()).clamp(min=0).flip(0)
        yield "patch_rankme", rank_me(squares[: min(self.num_patches, len(squares))].sqrt())


class AttentionRecorder:
    """A recorder of an attention's weights, computed again from the queries and keys that it makes."""

    def __init__(self, attention: Attention, block: int, num_prefix: int) -> None:
        self.module: nn.Module = attention.qkv
        self.attention, self.block, self.num_prefix = attention, block, num_prefix
        self.means = _Means()

    def hook(self, module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG002
        """Record one call of the module."""
        q, k, _ = split_heads(self.attention, output)
        key_bias = key_bias_of(self.attention)
        shares = attention_shares(
            q, k, num_prefix=self.num_prefix, scale=self.attention.scale, key_bias=key_bias
        )
        for row, query in enumerate(_QUERIES):
            for column, key in enumerate(_KEYS):
                if (key != "bias" or key_bias is not None) and (key != "registers" or self.num_prefix > 1):
                    self.means.add(f"{query}_to_{key}", shares[:, row, column])

    def results(self) -> Iterator[Measurement]:
        """Return the measurements over all calls."""
        for quantity, value in self.means.items():
            yield Measurement(self.block, "attention", quantity, value)
