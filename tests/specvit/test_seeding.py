"""Named random streams."""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from specvit.seeding import derive_seed, numpy_stream, torch_stream


def test_a_seed_is_the_hash_of_the_names_as_documented() -> None:
    digest = hashlib.blake2b(b"3/crops/7", digest_size=8).digest()
    assert derive_seed(3, "crops", 7) == int.from_bytes(digest, "big") // 2


@given(st.integers(0, 2**40), st.text(max_size=12), st.integers(0, 10**6))
def test_seeds_are_accepted_by_both_libraries(seed: int, name: str, step: int) -> None:
    derived = derive_seed(seed, name, step)
    assert 0 <= derived < 2**63
    assert torch_stream(seed, name, step).initial_seed() == derived
    assert numpy_stream(seed, name, step).random() == np.random.default_rng(derived).random()


def test_streams_differ_by_seed_name_and_step() -> None:
    variants = [(s, n, k) for s in range(8) for n in ("crops", "masks", "order") for k in range(8)]
    assert len({derive_seed(*variant) for variant in variants}) == len(variants)


def test_a_stream_does_not_depend_on_what_others_drew() -> None:
    expected = torch.rand(4, generator=torch_stream(0, "crops", 5))
    torch.rand(100, generator=torch_stream(0, "masks", 5))
    torch.rand(3)
    assert torch.equal(torch.rand(4, generator=torch_stream(0, "crops", 5)), expected)


def test_streams_leave_the_global_generators_alone() -> None:
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()
    torch.rand(5, generator=torch_stream(0, "x"))
    numpy_stream(0, "x").random(5)
    assert torch.equal(torch.get_rng_state(), before)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_before)
