"""Token pooling: k-medoids against brute force and plain loops, the attention that weighs, the trunk."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from specvit.comparators.token_pooling.settings import TokenPooling
from specvit.comparators.token_pooling.trunk import attention_received, weighted_k_medoids
from specvit.models.attention import BiasedAttention
from specvit.models.config import VitConfig
from specvit.models.scales import Scale
from specvit.models.vit import build_vit

SCALE = Scale(width=16, depth=4, num_heads=2)
Floats = NDArray[np.float64]


def cost(x: Floats, w: Floats, medoids: tuple[int, ...]) -> float:
    return float(sum(w[i] * min(((x[i] - x[m]) ** 2).sum() for m in medoids) for i in range(len(x))))


def lloyd(x: Floats, w: Floats, k: int, iterations: int) -> tuple[list[int], list[int]]:
    """Run weighted k-medoids with loops."""

    def assign(medoids: list[int]) -> list[int]:
        near = [int(np.argmin([((p - x[m]) ** 2).sum() for m in medoids])) for p in x]
        for number, m in enumerate(medoids):
            near[m] = number
        return near

    medoids = sorted(np.argsort(-w, kind="stable")[:k].tolist())
    for _ in range(iterations):
        near = assign(medoids)
        found = []
        for number in range(k):
            members = [i for i in range(len(x)) if near[i] == number]
            costs = [sum(w[i] * ((x[i] - x[m]) ** 2).sum() for i in members) for m in members]
            found.append(members[int(np.argmin(costs))])
        medoids = sorted(found)
    return medoids, assign(medoids)


@pytest.mark.parametrize(("k", "iterations"), [(1, 1), (2, 0), (3, 1), (4, 5), (12, 3)])
def test_k_medoids_equals_plain_loops(k: int, iterations: int) -> None:
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(5, 12, 3)), rng.random((5, 12))
    medoids, assigned = weighted_k_medoids(torch.tensor(x), torch.tensor(w), k, iterations=iterations)
    for image in range(5):
        expected = lloyd(x[image], w[image], k, iterations)
        assert (medoids[image].tolist(), assigned[image].tolist()) == expected


def test_k_medoids_finds_the_best_of_all_choices_where_clusters_are_clear() -> None:
    rng = np.random.default_rng(1)
    centres = np.array([[0.0, 0.0], [9.0, 0.0], [0.0, 9.0]])
    x = np.concatenate([centre + rng.normal(size=(4, 2)) for centre in centres])
    w = 0.1 * rng.random(12)
    w[[0, 4, 8]] = 1.0  # one heavy token in each cluster, where the search starts
    medoids, assigned = weighted_k_medoids(torch.tensor(x)[None], torch.tensor(w)[None], 3, iterations=5)
    best = min(itertools.combinations(range(12), 3), key=lambda chosen: cost(x, w, chosen))
    assert tuple(medoids[0].tolist()) == best
    assert assigned[0].tolist() == [0] * 4 + [1] * 4 + [2] * 4


def test_one_medoid_is_the_best_of_all_tokens() -> None:
    rng = np.random.default_rng(2)
    x, w = rng.normal(size=(9, 3)), rng.random(9)
    medoids, _ = weighted_k_medoids(torch.tensor(x)[None], torch.tensor(w)[None], 1, iterations=1)
    assert medoids.item() == min(range(9), key=lambda m: cost(x, w, (m,)))


@hypothesis_settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), k=st.integers(1, 8), levels=st.integers(1, 3))
def test_k_medoids_rounds_never_raise_the_cost_even_with_equal_tokens(seed: int, k: int, levels: int) -> None:
    rng = np.random.default_rng(seed)
    x, w = rng.integers(0, levels, size=(8, 2)).astype(float), rng.random(8)
    costs = []
    for iterations in range(4):
        medoids, assigned = weighted_k_medoids(
            torch.tensor(x)[None], torch.tensor(w)[None], k, iterations=iterations
        )
        assert len(set(medoids[0].tolist())) == k
        assert assigned[0][medoids[0]].tolist() == list(range(k))
        costs.append(cost(x, w, tuple(medoids[0].tolist())))
    assert all(later <= earlier + 1e-6 for earlier, later in itertools.pairwise(costs))


@pytest.mark.parametrize("biased", [False, True])
def test_attention_received_is_the_mean_of_the_attention_matrix(biased: bool) -> None:
    attention = build_vit(VitConfig(SCALE, image_size=16, patch_size=4)).blocks[0].attn.double()
    with torch.no_grad():
        attention.qkv.weight.normal_(std=0.5)
        attention.qkv.bias.normal_()
    attention = BiasedAttention(attention) if biased else attention
    x = torch.randn(2, 6, 16, dtype=torch.float64)
    expected = torch.zeros(2, 6)
    for image, head, query in itertools.product(range(2), range(2), range(6)):
        q, k, _ = attention.qkv(x[image]).detach().view(6, 3, 2, 8)[:, :, head].unbind(1)
        keys = torch.cat([k, attention.key_bias[head].detach()]) if biased else k
        expected[image] += torch.softmax(keys @ q[query] / 8**0.5, dim=0)[:6] / 12
    torch.testing.assert_close(attention_received(attention, x), expected)
    assert torch.allclose(expected.sum(dim=1), torch.ones(2)) != biased


def test_keeping_all_patches_is_the_plain_model() -> None:
    plain, pooled = (build_vit(VitConfig(SCALE, image_size=16, patch_size=4)) for _ in range(2))
    pooled = TokenPooling(keep=1.0).build(pooled, seed=0)
    x = torch.randn(3, 17, 16)
    assert torch.equal(pooled.blocks(x), plain.blocks(x))


def test_patches_come_out_as_their_medoids_tokens() -> None:
    plain = build_vit(VitConfig(SCALE, image_size=16, patch_size=4))
    model = TokenPooling(after=0.5, keep=0.25, iterations=2).build(build_vit(
        VitConfig(SCALE, image_size=16, patch_size=4),
    ), seed=0)
    x = torch.randn(3, 17, 16)
    out = model.blocks(x)
    seen: list[int] = []
    for index in range(4):
        block = model.get_submodule(f"blocks.{index}")
        block.register_forward_pre_hook(lambda _, given: seen.append(given[0].shape[1]))
    assert torch.equal(model.blocks(x), out)
    assert seen == [17, 17, 5, 5]  # [CLS] and a quarter of the 16 patches
    before = plain.blocks[0](x)
    weights = attention_received(plain.blocks[1].attn, plain.blocks[1].norm1(before))[:, 1:]
    half = plain.blocks[1](before)
    medoids, assigned = weighted_k_medoids(half[:, 1:], weights, 4, iterations=2)
    for image in range(3):
        kept = torch.cat([half[image, :1], half[image, 1:][medoids[image]]])[None]
        top = plain.blocks[3](plain.blocks[2](kept))[0]
        torch.testing.assert_close(out[image], torch.cat([top[:1], top[1:][assigned[image]]]))


@pytest.mark.parametrize(("after", "num_before"), [(0.01, 1), (0.25, 1), (0.5, 2), (0.7, 3), (0.99, 3)])
def test_at_least_one_block_stands_before_and_after(after: float, num_before: int) -> None:
    model = TokenPooling(after=after).build(build_vit(
        VitConfig(SCALE, image_size=16, patch_size=4),
    ), seed=0)
    assert model.blocks.num_before == num_before
