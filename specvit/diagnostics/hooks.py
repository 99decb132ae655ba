"""What diagnostics hang into a model: each watch sees a module's calls batch by batch and has readings in the end.

Shapes: B images, N tokens = [CLS], registers, patches; D channels.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from timm.layers.attention import Attention
from torch import Tensor, nn

from specvit.diagnostics.measurement import Measurement
from specvit.diagnostics.token_statistics import attention_shares, cls_patch_cosine, patch_patch_cosine, rank_me
from specvit.models.attention import key_bias_of, split_heads

HIGH_NORM_MEDIANS = 3.0
"""A patch is of high norm relative to the others above so many times their median norm."""

_QUERIES = ("cls", "patches")
_KEYS = ("cls", "registers", "patches", "bias")


class _Means:
    """Average values of images over all batches."""

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
    """Look at what goes into a norm and what comes out."""

    def __init__(
        self, module: nn.Module, block: int, site: str, num_prefix: int, threshold: float, *, is_final: bool = False
    ) -> None:
        self.module, self.block, self.site = module, block, site
        self.sides = [_TokenWatch(num_prefix, threshold) for _ in ("in", "out")]
        self.rank = _RankWatch(num_prefix) if is_final else None

    def hook(self, module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG002
        """See one call of the module."""
        for side, tokens in zip(self.sides, (inputs[0], output), strict=True):
            side.see(tokens.float())
        if self.rank is not None:
            self.rank.see(output.float())

    def readings(self) -> Iterator[Measurement]:
        """Return what was read off all calls together."""
        for name, side in zip(("in", "out"), self.sides, strict=True):
            for quantity, value in side.items():
                yield Measurement(self.block, f"{self.site}.{name}", quantity, value)
        if self.rank is not None:
            for quantity, value in self.rank.items():
                yield Measurement(self.block, f"{self.site}.out", quantity, value)


class _TokenWatch:
    """Gather cosines and norms of tokens ``(B, N, D)``."""

    def __init__(self, num_prefix: int, threshold: float) -> None:
        self.num_prefix, self.threshold = num_prefix, threshold
        self.means = _Means()
        self.patch_norms: list[Tensor] = []

    def see(self, tokens: Tensor) -> None:
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


class _RankWatch:
    """Gather what RankMe needs of tokens ``(B, N, D)``; of patches, which are many, only their D x D products."""

    def __init__(self, num_prefix: int) -> None:
        self.num_prefix = num_prefix
        self.cls: list[Tensor] = []
        self.products: Tensor | None = None
        self.num_patches = 0

    def see(self, tokens: Tensor) -> None:
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


class AttentionWatch:
    """Compute an attention's weights again from the queries and keys that it makes."""

    def __init__(self, attention: Attention, block: int, num_prefix: int) -> None:
        self.module: nn.Module = attention.qkv
        self.attention, self.block, self.num_prefix = attention, block, num_prefix
        self.means = _Means()

    def hook(self, module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG002
        """See one call of the module."""
        q, k, _ = split_heads(self.attention, output)
        key_bias = key_bias_of(self.attention)
        shares = attention_shares(
            q, k, num_prefix=self.num_prefix, scale=self.attention.scale, key_bias=key_bias
        )
        for row, query in enumerate(_QUERIES):
            for column, key in enumerate(_KEYS):
                if (key != "bias" or key_bias is not None) and (key != "registers" or self.num_prefix > 1):
                    self.means.add(f"{query}_to_{key}", shares[:, row, column])

    def readings(self) -> Iterator[Measurement]:
        """Return what was read off all calls together."""
        for quantity, value in self.means.items():
            yield Measurement(self.block, "attention", quantity, value)
