"""The order of images: which step sees which, and how often."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from specvit.training.loop import batches, pretrain

from .small_runs import CPU, DEIT, STEPS, Scripted, Spied, make_split, never, run_loop, take


@settings(max_examples=40, deadline=None)
@given(num_images=st.integers(1, 40), batch_size=st.integers(1, 50), seed=st.integers(0, 2**32))
def test_every_image_is_seen_once_an_epoch_in_full_batches(num_images: int, batch_size: int, seed: int) -> None:
    num_steps = math.ceil(3 * num_images / batch_size)
    taken = take(batches(num_images, batch_size=batch_size, seed=seed), num_steps)
    assert all(len(batch) == batch_size for batch in taken)
    stream = [index for batch in taken for index in batch]
    for epoch in range(3):
        assert sorted(stream[epoch * num_images : (epoch + 1) * num_images]) == list(range(num_images))


@settings(max_examples=40, deadline=None)
@given(
    num_images=st.integers(1, 30), batch_size=st.integers(1, 40), start=st.integers(0, 12), seed=st.integers(0, 99)
)
def test_a_run_that_starts_at_a_step_continues_the_order_from_there(
    num_images: int, batch_size: int, start: int, seed: int
) -> None:
    whole = take(batches(num_images, batch_size=batch_size, seed=seed), start + 4)
    assert take(batches(num_images, batch_size=batch_size, seed=seed, start=start), 4) == whole[start:]


def test_the_order_of_images_does_not_depend_on_the_batch_size() -> None:
    one, other = (take(batches(12, batch_size=size, seed=3), 24 // size) for size in (4, 6))
    assert [i for batch in one for i in batch] == [i for batch in other for i in batch]


def test_epochs_and_seeds_have_their_own_orders() -> None:
    first, second = take(batches(30, batch_size=30, seed=0), 2)
    assert first != second
    assert first != take(batches(30, batch_size=30, seed=1), 1)[0]


@settings(max_examples=40, deadline=None)
@given(
    num_images=st.integers(1, 30), batch_size=st.integers(1, 40), copies=st.integers(1, 4), start=st.integers(0, 9)
)
def test_copies_come_in_a_row_in_the_order_that_images_have_without_them(
    num_images: int, batch_size: int, copies: int, start: int
) -> None:
    taken = take(batches(num_images, batch_size=batch_size, seed=5, start=start, copies=copies), 3)
    assert all(len(batch) == batch_size for batch in taken)
    (plain,) = take(batches(num_images, batch_size=(start + 3) * batch_size, seed=5), 1)
    repeated = [image for image in plain for _ in range(copies)]
    assert [i for batch in taken for i in batch] == repeated[start * batch_size : (start + 3) * batch_size]


def test_a_batch_has_each_image_as_often_as_the_recipe_repeats_it_each_time_otherwise_augmented(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spied = Spied(monkeypatch)
    recipe = dataclasses.replace(DEIT, repeats=4, mixup=0.0, cutmix=0.0)
    scripted = Scripted([0.0] * STEPS)
    pretrain(scripted, recipe, make_split(), seed=0, device=CPU, after_step=never)
    run_loop(recipe)
    for batch, views in zip(scripted.batches, spied.inputs, strict=True):
        assert len(batch.images) == 8
        assert len(torch.unique(batch.images, dim=0)) == 2
        assert len(torch.unique(views, dim=0)) == 8
