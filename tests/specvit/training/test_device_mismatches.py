"""Steps and a trial with every probe on a device that is not the CPU: nothing they need lies elsewhere."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from specvit.comparators import COMPARATORS
from specvit.probes import PROBES
from specvit.recipes.deit3.settings import DeiT3Cpu
from specvit.training.learnt import is_learning_metric
from specvit.trial import run_trial

from ..pretended_device import PRETENDED, pretended_device
from ..short_probes import SHORT_PROBES
from .cases import BATCH_SIZE, CASES, CPU, SHORT, Case, Heard, learn, make_trial, with_micro_batch

SHORT_RUN = [("mae", BATCH_SIZE)]
RUNS = {**CASES, "deit3 gates": Case(DeiT3Cpu(layer_scale=0.1, **SHORT), "norm(gate:token)+qkv(gate)+layerscale")}
LONG_RUN = [(name, size) for name in RUNS for size in (BATCH_SIZE, 4) if (name, size) not in SHORT_RUN]


def test_the_pretended_device_computes_and_refuses_what_lies_on_the_cpu() -> None:
    weights = torch.nn.Linear(3, 2)
    x = torch.rand(4, 3)
    expected = weights(x).detach()
    with pretended_device() as device:
        assert not device.is_cuda
        weights.to(device.torch_device)
        there = x.to(device.torch_device)
        y = weights(there)
        assert y.device.type == weights.weight.device.type == PRETENDED.type
        assert torch.equal(y.detach().cpu(), expected)
        y.sum().backward()
        assert weights.weight.grad is not None
        assert weights.weight.grad.device.type == PRETENDED.type
        with pytest.raises(RuntimeError, match="expected all tensors to be on the same device"):
            weights(x)
        with pytest.raises(RuntimeError, match="expected all tensors to be on the same device"):
            x[torch.tensor([1, 2]).to(device.torch_device)]
        assert there[torch.tensor([1, 2])].device.type == PRETENDED.type
        with pytest.raises(RuntimeError, match="numpy"):
            there.numpy()


def test_every_comparator_is_run() -> None:
    assert {type(case.comparator) for case in RUNS.values()} == {type(None), *COMPARATORS.values()}


@pytest.mark.parametrize(
    ("name", "size"), [*SHORT_RUN, *(pytest.param(*case, marks=pytest.mark.long) for case in LONG_RUN)]
)
def test_steps_on_another_device_have_the_losses_of_the_cpu(name: str, size: int) -> None:
    case = with_micro_batch(RUNS[name], size)
    with pretended_device() as device:
        losses, _ = learn(case, stop_after=2, device=device)
    assert losses == pytest.approx(learn(case, stop_after=2)[0], rel=1e-4)


@pytest.mark.long
def test_a_trial_with_every_probe_on_another_device_has_the_results_of_the_cpu() -> None:
    config, dataset = make_trial()
    probes = tuple(PROBES[name](**settings) for name, settings in dict(SHORT_PROBES).items())
    config = dataclasses.replace(config, probes=probes, diagnostics=True)
    with pretended_device() as device:
        found = run_trial(config, dataset, Heard(), device=device)
    expected = run_trial(config, dataset, Heard(), device=CPU)
    assert found.metrics.keys() == expected.metrics.keys() >= {m.name for probe in probes for m in probe.metrics}
    # Of one image more or less a probe's metric jumps.
    smooth = [name for name in expected.metrics if name == "loss" or is_learning_metric(name)]
    exact = {name: expected.metrics[name] for name in smooth}
    assert {name: found.metrics[name] for name in smooth} == pytest.approx(exact, rel=1e-3)
    assert len(found.diagnostics) == len(expected.diagnostics) > 0
