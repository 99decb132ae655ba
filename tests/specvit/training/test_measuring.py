"""Measuring a learner: what it records, and that it leaves no trace."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from specvit.training.checkpoint import Checkpoint
from specvit.training.learner import Batch, Learner
from specvit.training.loop import StepReport, pretrain
from specvit.training.measuring import NUM_BATCHES, LossMeasurement
from specvit.trial import run_trial

from .cases import BATCH_SIZE, CASES, CPU, DATASET, STEPS, Heard, make_learner, make_trial, measure

EACH_CASE = pytest.mark.parametrize("name", CASES)


def _tensors(learner: Learner) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in (*learner.named_parameters(), *learner.named_buffers())}


@EACH_CASE
def test_a_run_that_is_measured_after_every_step_is_the_run_that_is_not(name: str, tmp_path: Path) -> None:
    case = CASES[name]

    def run(folder: Path, *, measuring: bool) -> tuple[list[float], dict[str, Tensor], bytes]:
        learner, losses = make_learner(case), []
        check = LossMeasurement(learner, case.recipe, DATASET.train, seed=0, device=CPU)

        def after_step(report: StepReport) -> bool:
            losses.append(report.loss)
            if measuring:
                check.measure(step=report.step)
            return False

        state = Checkpoint(folder, identity="run", every_s=None, every_steps=STEPS)
        pretrain(
            learner, case.recipe, DATASET.train, seed=0, device=CPU, after_step=after_step, checkpoint=state
        )
        return losses, _tensors(learner), folder.read_bytes()

    measured, plain = (run(tmp_path / str(measuring), measuring=measuring) for measuring in (True, False))
    assert measured[0] == plain[0]
    assert all(torch.equal(measured[1][key], value) for key, value in plain[1].items())
    assert measured[2] == plain[2]


@EACH_CASE
def test_measuring_restores_buffers_modes_and_random_numbers_and_makes_no_gradients(name: str) -> None:
    learner = make_learner(CASES[name]).train()
    learner.eval_backbone.eval()
    before, modes = _tensors(learner), [module.training for module in learner.modules()]
    check = LossMeasurement(learner, CASES[name].recipe, DATASET.train, seed=0, device=CPU)
    state = torch.get_rng_state()
    first = check.measure(step=2)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[key], value) for key, value in _tensors(learner).items())
    assert [module.training for module in learner.modules()] == modes
    assert all(parameter.grad is None for parameter in learner.parameters())
    torch.manual_seed(77)
    assert check.measure(step=2) == first


@EACH_CASE
@pytest.mark.parametrize("size", [1, 3])
def test_what_is_measured_in_parts_is_what_is_measured_at_once(name: str, size: int) -> None:
    learner = make_learner(CASES[name])
    check = LossMeasurement(learner, CASES[name].recipe, DATASET.train, seed=0, device=CPU)
    whole = check.measure(step=3)
    sizes: list[int] = []
    measure_slice = learner.measure_slice  # type: ignore[operator]
    learner.measure_slice = lambda views, part, targets: sizes.append(part.size) or measure_slice(  # type: ignore[assignment]
        views, part, targets
    )
    learner.micro_batch = size
    assert check.measure(step=3) == pytest.approx(whole, rel=1e-5, abs=1e-6)
    assert max(sizes) == size
    assert sum(sizes) == NUM_BATCHES * BATCH_SIZE


def _record_batches(learner: Learner) -> list[Batch]:
    """Return the list to which the batches are written that a learner measures from now on."""
    seen: list[Batch] = []
    compute = learner.measure
    learner.measure = lambda batch, *, size: seen.append(batch) or compute(batch, size=size)  # type: ignore[method-assign]
    return seen


@EACH_CASE
def test_terms_are_those_of_the_loss_without_their_weights(name: str) -> None:
    case = CASES[name]
    learner = make_learner(case).train()
    seen = _record_batches(learner)
    found = LossMeasurement(learner, case.recipe, DATASET.train, seed=0, device=CPU).measure(step=3)
    weights = {**learner.term_weights, **getattr(learner.regulariser, "term_weights", {})}
    expected: dict[str, float] = {}
    fresh = make_learner(case).train()  # running centres are as they were
    for batch in seen:
        torch.manual_seed(batch.step_seed)
        for term, value in fresh.losses(batch).items():
            expected[f"{term}_loss"] = expected.get(f"{term}_loss", 0) + value.item() / weights.get(term, 1) / len(seen)
    assert len(seen) == NUM_BATCHES
    recorded = {key: value for key, value in found.items() if key.endswith("_loss")}
    assert recorded == pytest.approx(expected, rel=1e-5)


def test_batches_are_the_same_at_every_rung_and_for_all_arms_and_schedules_stand_where_they_are() -> None:
    seen: list[Batch] = []
    for name in ("deit3", "deit3 class attention"):
        learner = make_learner(CASES[name])
        of_arm = _record_batches(learner)
        check = LossMeasurement(learner, CASES[name].recipe, DATASET.train, seed=0, device=CPU)
        for step in (1, STEPS):
            check.measure(step=step)
        seen += of_arm
    first = seen[:NUM_BATCHES]
    assert not torch.equal(first[0].images, first[1].images)
    assert [batch.step for batch in first] == [STEPS, STEPS + 1]
    assert [batch.progress for batch in seen] == [*[0.0] * NUM_BATCHES, *[(STEPS - 1) / STEPS] * NUM_BATCHES] * 2
    for number, batch in enumerate(seen):
        assert torch.equal(batch.images, first[number % NUM_BATCHES].images)


def test_terms_of_weight_0_are_left_out() -> None:
    case = CASES["dinov2 centre"]
    recipe: Any = case.recipe
    without = dataclasses.replace(case, recipe=dataclasses.replace(recipe, koleo_weight=0.0, dino_weight=0.0))
    assert set(measure(without)) == {"ibot_loss", "ibot_loss_trivial"}


class _Foreign(Learner):
    """A learner of another package, which gives a trivial value for one of its terms."""

    def __init__(self) -> None:
        super().__init__()
        self.number = nn.Parameter(torch.tensor(3.0))

    @property
    def eval_backbone(self) -> VisionTransformer:
        raise NotImplementedError

    def losses(self, batch: Batch) -> dict[str, Tensor]:  # noqa: ARG002
        return {"a": self.number, "b": 2 * self.number}


class _Knowing(_Foreign):
    def trivial_losses(self, averages: Any) -> dict[str, float]:  # noqa: ARG002
        return {"b": 8.0, "unheard": 1.0}


def test_a_recipe_of_another_package_has_its_terms_recorded_and_may_give_trivial_values() -> None:
    recipe = CASES["mae"].recipe

    def found(learner: Learner) -> dict[str, float]:
        return LossMeasurement(learner, recipe, DATASET.train, seed=0, device=CPU).measure(step=1)

    assert found(_Foreign()) == {"a_loss": 3.0, "b_loss": 6.0}
    assert found(_Knowing()) == {"a_loss": 3.0, "b_loss": 6.0, "b_loss_trivial": 8.0}


def test_a_trial_that_resumes_measures_what_one_that_ran_through_measures(tmp_path: Path) -> None:
    config, dataset = make_trial()
    through, heard = Heard(), Heard()
    expected = run_trial(config, dataset, through, device=CPU)
    state = {"identity": "trial", "every_s": None, "every_steps": 1}
    stopped = run_trial(config, dataset, Heard(2), device=CPU, checkpoint=Checkpoint(tmp_path / "s", **state))
    assert stopped.stopped_at == 3
    resumed = run_trial(config, dataset, heard, device=CPU, checkpoint=Checkpoint(tmp_path / "s", **state))
    assert resumed == expected
    assert heard.rungs == through.rungs
    assert all("bce_loss_trivial" in metrics for _, metrics in (*heard.rungs, (6, dict(expected.metrics))))
