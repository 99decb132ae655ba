"""Cutting a batch; gradients of its parts against those of the whole; what happens where memory runs out."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from specvit.comparators.patch_diversification.regulariser import PatchRegulariser
from specvit.errors import ConfigError
from specvit.models.batch_slice import BatchSlice
from specvit.training.learner import Batch, Learner, SlicedLearner
from specvit.training.loop import pretrain

from .cases import BATCH_SIZE, CASES, CPU, DATASET, STEPS, learn, make_batch, make_learner, with_micro_batch

EACH_CASE = pytest.mark.parametrize("name", CASES)


def _gradients(learner: Learner, size: int, *, step: int = 0) -> tuple[float, dict[str, Tensor]]:
    """Return the loss of a batch and all gradients; the learner's teacher is made another than its student."""
    learner.train()
    parameters = {name: p for name, p in learner.named_parameters() if p.requires_grad}
    learner.micro_batch = size
    loss = learner.compute_gradients(make_batch(step), parameters=list(parameters.values()), device=CPU)
    return loss, {name: p.grad.clone() for name, p in parameters.items() if p.grad is not None}


def _moved(name: str) -> Learner:
    """Build a case's learner after a fixed change of all weights: neither copies nor zeros are left."""
    learner = make_learner(CASES[name])
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in learner.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return learner


@EACH_CASE
@pytest.mark.parametrize("size", [1, 3, 4])
def test_gradients_and_loss_of_micro_batches_are_those_of_the_whole_batch(name: str, size: int) -> None:
    whole_learner, learner = _moved(name), _moved(name)
    loss, whole = _gradients(whole_learner, BATCH_SIZE, step=3)
    parts_loss, parts = _gradients(learner, size, step=3)
    assert parts_loss == pytest.approx(loss, rel=1e-5)
    assert parts.keys() == whole.keys()
    flat, expected = (torch.cat([grads[key].flatten() for key in whole]) for grads in (parts, whole))
    assert expected.norm() > 1e-3
    assert (flat - expected).norm() < 1e-5 * expected.norm()
    for key, buffer in whole_learner.named_buffers():
        torch.testing.assert_close(learner.get_buffer(key), buffer, rtol=1e-5, atol=1e-7)


@EACH_CASE
def test_a_run_in_micro_batches_has_the_losses_of_a_run_in_whole_batches(name: str) -> None:
    losses, _ = learn(CASES[name])
    in_parts, _ = learn(with_micro_batch(CASES[name], 3))
    assert len(losses) == STEPS
    assert in_parts == pytest.approx(losses, rel=1e-5)


@EACH_CASE
def test_a_micro_batch_of_the_batch_or_more_changes_no_bit(name: str) -> None:
    losses, weights = learn(CASES[name])
    for size in (BATCH_SIZE, 100):
        again, weights_again = learn(with_micro_batch(CASES[name], size))
        assert again == losses
        assert all(torch.equal(weights[key], weights_again[key]) for key in weights)


def _limited(learner: SlicedLearner[Any, Any], largest: int, error: Callable[[], Exception]) -> list[int]:
    """Let passes of more than ``largest`` images fail; return the list to which the sizes are written."""
    sizes: list[int] = []
    compute = learner.slice_losses

    def slice_losses(views: Any, part: BatchSlice, targets: Any) -> dict[str, Tensor]:
        sizes.append(part.size)
        if part.size > largest:
            raise error()
        return compute(views, part, targets)

    learner.slice_losses = slice_losses  # type: ignore[method-assign]
    return sizes


@pytest.mark.parametrize("name", ["dinov2 centre", "deit3 lamb dense", "mae"])
def test_where_memory_runs_out_the_micro_batch_is_halved_for_good_and_the_batch_kept(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    case, losses = CASES[name], []
    learner = make_learner(case)
    assert isinstance(learner, SlicedLearner)
    sizes = _limited(learner, 2, lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"))
    with caplog.at_level(logging.WARNING):
        pretrain(
            learner, case.recipe, DATASET.train, seed=0, device=CPU, after_step=lambda r: losses.append(r.loss) or False
        )
    assert sizes == [8, 4] + [2] * 4 * STEPS
    assert [record.message for record in caplog.records] == [
        f"out of memory at step 1: going on with micro_batch {size}" for size in (4, 2)
    ]
    # Nothing of the passes that failed is left, such as a centre that has moved twice.
    expected, weights = learn(with_micro_batch(case, 2))
    assert losses == expected
    assert all(torch.equal(value, weights[key]) for key, value in learner.named_parameters())
    assert all(torch.equal(value, weights[key]) for key, value in learner.named_buffers())


def test_nothing_of_a_pass_that_ran_out_of_memory_is_held_when_the_cache_is_emptied(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    learner = make_learner(CASES["deit3 diversification"]).train()
    parameters = [p for p in learner.parameters() if p.requires_grad]
    regulariser = learner.regulariser
    assert isinstance(regulariser, PatchRegulariser)
    held: list[bool] = []
    passes = 0

    def fail_in_the_second_pass(*_: object) -> None:
        nonlocal passes
        passes += 1
        if passes == 2:
            assert regulariser._first is not None
            assert any(p.grad is not None for p in parameters)
            raise MemoryError

    learner.eval_backbone.blocks[1].register_forward_pre_hook(fail_in_the_second_pass)
    monkeypatch.setattr(
        torch.cuda,
        "empty_cache",
        lambda: held.append(regulariser._first is not None or any(p.grad is not None for p in parameters)),
    )
    device = mock.Mock(wraps=CPU, is_cuda=True)
    learner.micro_batch = 4
    loss = learner.compute_gradients(make_batch(), parameters=parameters, device=device)
    assert held == [False]
    expected = make_learner(CASES["deit3 diversification"])
    assert loss == _gradients(expected, 2)[0]


def test_an_image_that_does_not_fit_and_other_errors_end_the_run() -> None:
    for error, sizes in ((MemoryError(), [8, 4, 2, 1]), (RuntimeError("shapes differ"), [8])):
        learner = make_learner(CASES["mae"])
        assert isinstance(learner, SlicedLearner)
        seen = _limited(learner, 0, lambda error=error: error)  # type: ignore[misc]
        with pytest.raises(type(error)):
            _gradients(learner, BATCH_SIZE)
        assert seen == sizes


class _Uncut(Learner):
    """A learner that knows whole batches only."""

    def __init__(self) -> None:
        super().__init__()
        self.number = nn.Parameter(torch.ones(()))

    @property
    def eval_backbone(self) -> VisionTransformer:
        raise NotImplementedError

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        return {"a": self.number * len(batch.images), "b": 2 * self.number}


def test_a_learner_that_cannot_be_cut_computes_whole_batches_and_refuses_others() -> None:
    learner = _Uncut()
    loss, gradients = _gradients(learner, BATCH_SIZE)
    assert (loss, float(gradients["number"])) == (BATCH_SIZE + 2, BATCH_SIZE + 2)
    with pytest.raises(ConfigError, match=r"micro_batch must be none.*_Uncut"):
        _gradients(learner, 4)


def test_gradients_replace_those_of_before() -> None:
    learner = make_learner(CASES["mae"])
    for size in (BATCH_SIZE, 3):
        _, once = _gradients(learner, size)
        _, twice = _gradients(learner, size)
        assert all(torch.equal(once[key], twice[key]) for key in once)


def _batch(size: int) -> Batch:
    return Batch(images=torch.zeros(size, 3, 4, 4), labels=None, step=2, steps=5, seed=7)


@given(batch_size=st.integers(1, 20), size=st.integers(1, 25), data=st.data())
def test_parts_cover_their_images_once_in_order(batch_size: int, size: int, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, batch_size - 1))
    stop = data.draw(st.integers(start + 1, batch_size))
    parts = _batch(batch_size).slices(slice(start, stop), size=size)
    assert [i for part in parts for i in range(part.start, part.stop)] == list(range(start, stop))
    assert all(part.size == size for part in parts[:-1])
    assert 1 <= parts[-1].size <= size
    assert sum(part.fraction for part in parts) == pytest.approx((stop - start) / batch_size)
    assert {part.seed for part in parts} == {_batch(batch_size).step_seed}
