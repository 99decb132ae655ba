"""Two processes that train one trial, against one process that trains it alone."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from specvit.recipes.dinov2.losses import Centre, koleo_loss, sinkhorn
from specvit.training import collectives
from specvit.training.learnt import is_learning_metric
from specvit.trial import run_trial

from ...waiting import run_to_end
from .cases import CASES, CPU, LOSS_TOLERANCE, SHARED_CASES, STEPS, Heard, learn, make_learner, make_trial, measure

pytestmark = pytest.mark.long  # two processes train every recipe: as long as 300 other tests take

COUNT = 2
ROWS = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
"""What the processes share in the test of the losses: 4 and 2 rows, or 3 and 3."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Start the processes, wait for them, and return the folder of what they wrote."""
    folder = tmp_path_factory.mktemp("processes")
    root = Path(__file__).parents[3]
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    worker = Path(__file__).with_name("distributed_worker.py")
    ended = run_to_end([sys.executable, worker, COUNT, folder], env=environment)
    assert ended.returncode == 0, ended.stderr
    return folder


@pytest.fixture(scope="module")
def reports(folder: Path) -> list[dict[str, Any]]:
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(COUNT)]


@pytest.mark.parametrize("name", SHARED_CASES)
def test_two_processes_have_the_losses_of_one(name: str, reports: list[dict[str, Any]]) -> None:
    losses, _ = learn(CASES[name])
    assert len(losses) == STEPS
    main, other = (report["losses"] for report in reports)
    assert main[name] == pytest.approx(losses, rel=1e-5)
    if name.startswith("dinov2"):
        assert main[f"{name} in parts"] == pytest.approx(losses, rel=1e-5)
    assert other[name] == []  # it is not asked after a step


@pytest.mark.parametrize("name", SHARED_CASES)
def test_two_processes_end_with_the_weights_of_one(name: str, folder: Path) -> None:
    _, weights = learn(CASES[name])
    before = dict(make_learner(CASES[name]).named_parameters())
    own, other = (_weights(folder, rank, name) for rank in range(COUNT))
    assert own.keys() == weights.keys()
    assert all(torch.equal(own[key], other[key]) for key in own)
    # Adam divides by the size of gradients: where these are rounding alone, as those of the bias of keys, which has no
    # effect, so are the steps. So all weights are compared together, by how far they have moved.
    compared = [key for key in before if not key.endswith("qkv.bias")]
    apart = torch.cat([(own[key] - weights[key]).flatten() for key in compared])
    moved = torch.cat([(weights[key] - before[key].detach()).flatten() for key in compared])
    assert moved.norm() > 1e-2
    assert apart.norm() < 1e-3 * moved.norm()
    for key in weights.keys() - before.keys():  # the centres
        torch.testing.assert_close(own[key], weights[key], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", SHARED_CASES)
def test_two_processes_under_autocast_have_the_loss_of_one_in_float32(
    name: str, reports: list[dict[str, Any]]
) -> None:
    (exact,), _ = learn(CASES[name], stop_after=1)
    for size in (3, 4):  # in two parts a process, and in one
        assert reports[0]["in bfloat16"][f"{name} in parts of {size}"] == pytest.approx([exact], rel=LOSS_TOLERANCE)


def _weights(folder: Path, rank: int, name: str) -> dict[str, Tensor]:
    tensors = load_file(folder / f"{rank}.safetensors")
    return {key.removeprefix(f"{name}/"): value for key, value in tensors.items() if key.startswith(f"{name}/")}


def test_sinkhorn_balances_over_the_rows_of_all_processes(reports: list[dict[str, Any]]) -> None:
    first, second = (report["losses of rows"] for report in reports)
    expected = sinkhorn(ROWS, temperature=0.5)
    np.testing.assert_allclose(first["sinkhorn"] + second["sinkhorn"], expected, rtol=1e-5)
    np.testing.assert_allclose(first["sinkhorn of one"], expected, rtol=1e-5)
    assert second["sinkhorn of one"] == []


def test_the_centre_moves_to_the_mean_over_all_processes(reports: list[dict[str, Any]]) -> None:
    centre = Centre(ROWS.shape[1])
    targets = []
    for _ in range(3):
        targets.append(centre(ROWS, temperature=0.1))
        centre.move(centre.sum_of(ROWS), num_rows=len(ROWS))
    for report, (start, stop) in zip(reports, ((0, 4), (4, 6)), strict=True):
        seen = report["losses of rows"]
        for number in (0, 2):
            np.testing.assert_allclose(seen["targets"][number], targets[number][start:stop], rtol=1e-5)
        np.testing.assert_allclose(seen["centre"], centre.centre, rtol=1e-5)
    assert [len(report["losses of rows"]["targets"][1]) for report in reports] == [6, 0]


def test_koleo_finds_neighbours_in_all_processes(reports: list[dict[str, Any]]) -> None:
    features = ROWS.clone().requires_grad_()
    loss = koleo_loss(features)
    loss.backward()
    gradients = [report["losses of rows"]["koleo gradient"] for report in reports]
    assert features.grad is not None
    np.testing.assert_allclose(gradients[0] + gradients[1], features.grad, rtol=1e-4, atol=1e-7)
    koleo = [report["losses of rows"]["koleo"] for report in reports]
    assert koleo == pytest.approx([float(loss.detach())] * COUNT, rel=1e-6)
    # A test that could do without the other process would show nothing.
    similarity = torch.nn.functional.normalize(ROWS, dim=1) @ torch.nn.functional.normalize(ROWS, dim=1).T
    nearest = (similarity - 2 * torch.eye(6)).argmax(dim=1)
    assert any(int(nearest[row]) // 3 != row // 3 for row in range(6))


def test_a_run_of_two_processes_continues_to_the_last_bit(reports: list[dict[str, Any]]) -> None:
    stopped, rest = reports[0]["continued"]
    assert stopped == reports[0]["losses"]["dinov2 centre"][:3]
    assert rest == reports[0]["losses"]["dinov2 centre"][2:]  # saved after the second step


@pytest.mark.parametrize("refusing", ["main", "other"])
def test_where_one_process_cannot_use_the_state_all_begin_anew(
    refusing: str, folder: Path, reports: list[dict[str, Any]]
) -> None:
    main, other = (report[f"refused by {refusing}"] for report in reports)
    assert main == [reports[0]["losses"]["dinov2 centre"], {"own": 1}]
    assert other == [[], {"own": 1}]
    expected = _weights(folder, 0, "dinov2 centre")
    for rank in range(COUNT):
        weights = _weights(folder, rank, f"refused by {refusing}")
        assert weights.keys() == expected.keys()
        assert all(torch.equal(weights[key], expected[key]) for key in expected)


def test_the_main_process_alone_reports_and_both_stop(reports: list[dict[str, Any]]) -> None:
    (stopped, ended), (other_stopped, other_ended) = (report["trial"] for report in reports)
    config, dataset = make_trial()
    heard = Heard()
    alone = run_trial(config, dataset, heard, device=CPU)
    assert [step for step, _ in heard.rungs] == [2, 3, 4]
    assert [step for step, _ in stopped[0]] == [2, 3]
    assert stopped[1:] == [{}, 3]
    assert other_stopped == [[], {}, 3]
    # The rungs of before are told again, from the notes of the state of step 2.
    assert [step for step, _ in ended[0]] == [2, 3, 4]
    assert ended[0][:2] == stopped[0]
    assert ended[1]["loss"] == pytest.approx(alone.metrics["loss"], rel=1e-5)
    assert set(ended[1]) == set(alone.metrics)
    learnt = {name: value for name, value in alone.metrics.items() if is_learning_metric(name)}
    assert len(learnt) == 2
    assert {name: ended[1][name] for name in learnt} == pytest.approx(learnt, rel=1e-4)
    assert ended[2] is None
    assert other_ended == [[], {"loss": ended[1]["loss"]}, None]


def test_the_main_process_measures_alone_what_a_single_one_measures(reports: list[dict[str, Any]]) -> None:
    main, other = (report["measured"] for report in reports)
    assert other == {}
    assert list(main) == ["dinov2 centre", "dinov2 sinkhorn"]
    for name, found in main.items():
        assert found == pytest.approx(measure(CASES[name]), rel=1e-5)


def test_collectives_are_those_of_arithmetic(reports: list[dict[str, Any]]) -> None:
    for rank, seen in enumerate(report["collectives"] for report in reports):
        assert seen["alone"] == [1, True, 1.0]
        assert seen["total"] == [3.0, 4.0]
        assert seen["largest"] == [2, 0]
        assert seen["gather"] == [[0, 1], [10, 11]]
        assert seen["mean"] == pytest.approx([3.0, 4.0])
        assert seen["mean of one"] == [4.0, 6.0]
        assert seen["mean of none"] is None
        # In process 0 gradients of 1, 3 and 5, in process 1 of 10, 20 and 50.
        assert seen["gradients"] == [[11.0] * 2, [20.0] * 2, [3.0] * 3, None, [55.0] * 5]
        assert seen["union"] == [["b", "c", "ä"], [], ["", "long"]]
        assert seen["everywhere"] == [True, False, False, False]
        assert seen["agree"] == [True, False]
        assert seen["copied"] == [[[0.0, 0.0], [0.0, 0.0]], 0]
        assert seen["bytes"] == [bytes(range(13)).hex(), ""]
        assert seen["own"] == [3 * rank, 3 * rank + 3]
        assert seen["refused"] == "batch_size must be a multiple of the 2 processes, not 7"


def test_one_process_needs_no_messages() -> None:
    x = torch.tensor([[1.0, 2.0], [3.0, 6.0]])
    assert (collectives.num_processes(), collectives.rank(), collectives.is_main()) == (1, 0, True)
    assert collectives.own_slice(7) == slice(0, 7)
    assert collectives.total(x) is x
    assert collectives.largest(x) is x
    assert collectives.gather(x) is x
    mean = collectives.mean_of_rows(torch.tensor([4.0, 8.0]), num_rows=2)
    assert mean is not None
    assert mean.tolist() == [2.0, 4.0]
    assert collectives.mean_of_rows(torch.zeros(2), num_rows=0) is None
    assert collectives.union(["a", "a"]) == {"a"}
    assert collectives.everywhere(True)
    assert not collectives.everywhere(False)
    assert collectives.agree(True)
    assert not collectives.agree(False)
    assert collectives.bytes_from_main(b"abc") == b"abc"
