"""Statistics of tokens and attention against what is written out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from specvit.diagnostics import token_statistics
from specvit.diagnostics.token_statistics import attention_shares, cls_patch_cosine, patch_patch_cosine, rank_me


def test_cosines_of_a_tiny_image_are_those_computed_by_hand() -> None:
    # [CLS] along x; patches along x, along y, and at 45 degrees: cosines 1, 0, sqrt(1/2) to [CLS]; among the
    # patches 0 (x, y), sqrt(1/2) (x, diagonal), sqrt(1/2) (y, diagonal).
    tokens = torch.tensor([[[2.0, 0.0], [5.0, 0.0], [0.0, 0.1], [3.0, 3.0]]])
    half = math.sqrt(0.5)
    assert cls_patch_cosine(tokens, num_prefix=1).tolist() == pytest.approx([(1 + half) / 3])
    assert patch_patch_cosine(tokens[:, 1:]).tolist() == pytest.approx([2 * half / 3])
    # With the first patch a register instead.
    assert cls_patch_cosine(tokens, num_prefix=2).tolist() == pytest.approx([half / 2])


@given(seed=st.integers(0, 1000), num_patches=st.integers(2, 40), shift=st.floats(-3, 3))
def test_patch_patch_cosine_is_the_mean_over_all_pairs(seed: int, num_patches: int, shift: float) -> None:
    patches = torch.randn(3, num_patches, 8, generator=torch.Generator().manual_seed(seed)) + shift
    wide = patches.double()
    cosines = torch.nn.functional.cosine_similarity(wide[:, :, None], wide[:, None], dim=-1)
    different = ~torch.eye(num_patches, dtype=torch.bool)
    expected = torch.stack([image[different].mean() for image in cosines])
    torch.testing.assert_close(patch_patch_cosine(patches), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("chunk", [1, 1 << 24])
@pytest.mark.parametrize(("num_prefix", "bias"), [(1, False), (5, False), (1, True)])
def test_attention_shares_are_those_of_explicit_attention(
    num_prefix: int, bias: bool, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(token_statistics, "_ATTENTION_CHUNK", chunk)
    generator = torch.Generator().manual_seed(0)
    q, k = (2 * torch.randn(3, 2, 9, 4, generator=generator) for _ in range(2))
    key_bias = torch.randn(2, 1, 4, generator=generator) if bias else None
    shares = attention_shares(q, k, num_prefix=num_prefix, scale=0.5, key_bias=key_bias)
    assert shares.shape == (3, 2, 4)
    for image in range(3):
        sums = torch.zeros(2, 4, dtype=torch.float64)
        for head in range(2):
            for query in (0, *range(num_prefix, 9)):
                wide = q[image, head, query].double()
                products = [math.exp(0.5 * float(wide @ key.double())) for key in k[image, head]]
                extra = 0.0 if key_bias is None else math.exp(0.5 * float(wide @ key_bias[head, 0].double()))
                by_kind = torch.tensor(
                    [products[0], sum(products[1:num_prefix]), sum(products[num_prefix:]), extra], dtype=torch.float64
                )
                row, count = (0, 1) if query == 0 else (1, 9 - num_prefix)
                sums[row] += by_kind / (sum(products) + extra) / (2 * count)
        torch.testing.assert_close(shares[image], sums, atol=1e-6, rtol=0)


def test_attention_shares_of_equal_keys_are_the_shares_of_tokens() -> None:
    # 1 [CLS], 2 registers, 5 patches, 1 extra key: ninths.
    nothing = torch.zeros(1, 3, 8, 4)
    shares = attention_shares(nothing, nothing, num_prefix=3, scale=1.0, key_bias=torch.ones(3, 1, 4))
    assert shares[0].flatten().tolist() == pytest.approx([1 / 9, 2 / 9, 5 / 9, 1 / 9] * 2)


@pytest.mark.parametrize(
    ("singular_values", "expected"),
    [
        ([3.0, 3.0, 3.0, 3.0], 4.0),
        ([7.0, 0.0, 0.0], 1.0),
        ([2.0, 1.0, 1.0], math.exp(0.5 * math.log(2) + 0.5 * math.log(4))),  # shares 1/2, 1/4, 1/4
        ([0.0, 0.0], 0.0),
    ],
)
def test_rank_me_of_known_singular_values(singular_values: list[float], expected: float) -> None:
    assert rank_me(torch.tensor(singular_values)) == pytest.approx(expected, rel=1e-5)
