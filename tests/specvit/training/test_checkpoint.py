"""Runs that are stopped and continued, and files that must not be continued from."""

from __future__ import annotations

import json
import logging
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save
from torch import Tensor, nn

from specvit.errors import ConfigError, DataError, SpecsweepError
from specvit.training import checkpoint
from specvit.training.checkpoint import Checkpoint, SavedStep, copy_state, load_state, read_state, write_state
from specvit.training.loop import StepReport, pretrain

from ...waiting import wait_for
from ..file_size_limit import file_size_limit
from .cases import CASES, CPU, DATASET, STEPS, Case, learn, make_learner, with_micro_batch

ONE = CASES["dinov2 centre"]


def _checkpoint(path: Path, **changes: Any) -> Checkpoint:
    return Checkpoint(**{"path": path, "identity": "trial", "every_s": None, "every_steps": 1, **changes})


def _step_of(path: Path) -> int:
    """Return the step of a run's state; 0 if there is none."""
    data = read_state(path)
    if not data:
        return 0
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    step: int = json.loads(header["__metadata__"]["specvit_training_state"])["step"]
    return step


def _states(case: Case, folder: Path) -> tuple[list[float], dict[str, Tensor], list[Path]]:
    """Run a case to its end; return losses, weights and the file of the state after each step but the last."""
    learner, path = make_learner(case), folder / "state"
    losses: list[float] = []
    kept: list[Path] = []

    def note(report: StepReport) -> bool:
        losses.append(report.loss)
        if report.step > 1:
            wait_for(lambda: _step_of(path) == report.step - 1)
            kept.append(folder / f"state {report.step - 1}")
            shutil.copy(path, kept[-1])
        return False

    pretrain(
        learner, case.recipe, DATASET.train, seed=0, device=CPU, after_step=note, checkpoint=_checkpoint(path)
    )
    return losses, {**dict(learner.named_parameters()), **dict(learner.named_buffers())}, kept


@pytest.mark.parametrize("name", CASES)
def test_a_run_continued_after_any_step_ends_as_one_that_was_never_stopped(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    losses, weights, kept = _states(case, tmp_path)
    assert learn(case)[0] == losses  # saving changes nothing
    assert len(kept) == STEPS - 1
    for step, path in enumerate(kept, start=1):
        torch.manual_seed(step)  # the global generator of the new process is at another place
        told: list[StepReport] = []
        rest, weights_again = learn(case, checkpoint=_checkpoint(path, every_steps=None), continued=told.append)
        assert rest == losses[step:]
        assert [(report.step, report.loss) for report in told] == [(step, losses[step - 1])]
        assert weights_again.keys() == weights.keys()
        for key, value in weights.items():
            assert torch.equal(weights_again[key], value), (step, key)


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(stops=st.lists(st.integers(1, STEPS), max_size=4), every=st.integers(1, 3))
def test_a_run_that_is_stopped_several_times_ends_the_same(
    stops: list[int], every: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("states") / "state"
    for stop in stops:
        learn(CASES["mae"], stop_after=stop, checkpoint=_checkpoint(path, every_steps=every))
    rest, weights = learn(CASES["mae"], checkpoint=_checkpoint(path))
    losses, expected = learn(CASES["mae"])
    assert rest == losses[STEPS - len(rest) :]
    assert all(torch.equal(weights[key], expected[key]) for key in expected)


def test_a_run_that_is_complete_is_not_trained_again(tmp_path: Path) -> None:
    losses, weights = learn(ONE, checkpoint=_checkpoint(tmp_path / "state"))
    told: list[StepReport] = []
    again, weights_again = learn(ONE, checkpoint=_checkpoint(tmp_path / "state"), continued=told.append)
    assert again == []
    assert [(report.step, report.loss) for report in told] == [(STEPS, losses[-1])]
    assert all(torch.equal(weights[key], weights_again[key]) for key in weights)


def test_a_micro_batch_that_was_halved_stays_halved_but_may_be_smaller(tmp_path: Path) -> None:
    """A run that goes on computes as before, though the memory would now do for more."""
    halved = with_micro_batch(ONE, 2)
    losses, _, kept = _states(halved, tmp_path)
    again = shutil.copy(kept[1], tmp_path / "again")
    assert learn(ONE, checkpoint=_checkpoint(again, every_steps=None))[0] == losses[2:]
    smaller = learn(with_micro_batch(ONE, 1), checkpoint=_checkpoint(kept[1], every_steps=None))[0]
    assert smaller == pytest.approx(losses[2:], rel=1e-5)


def test_the_file_is_one_of_safetensors_with_all_that_trains(tmp_path: Path) -> None:
    learn(ONE, stop_after=3, checkpoint=_checkpoint(tmp_path / "state", notes={"a": [1, 0.1, None]}))
    tensors = load_file(tmp_path / "state")
    names = {name.removeprefix("learner.") for name in tensors if name.startswith("learner.")}
    learner = make_learner(ONE)
    assert names == {*dict(learner.named_parameters()), *dict(learner.named_buffers())}
    assert {"teacher.backbone.pos_embed", "cls_centre.centre", "mask_token"} <= names
    trained = {name for name, parameter in learner.named_parameters() if parameter.requires_grad}
    # Frozen for the first half of the run: the optimizer has not seen them.
    trained = {name for name in trained if "prototypes" not in name}
    for key in ("exp_avg", "exp_avg_sq", "step"):
        prefix = f"optimizer.state.{key}."
        assert {name.removeprefix(prefix) for name in tensors if name.startswith(prefix)} == trained
    assert float(tensors["optimizer.state.step.mask_token"]) == 2  # stopped by the third, before it was saved
    assert sorted(path.name for path in tmp_path.iterdir()) == ["state"]


def _saved(path: Path, **changes: Any) -> bytes:
    """Write a small state and return the file's bytes."""
    learner, optimizer = _small()
    checkpoint = _checkpoint(path, notes={"note": [1, math.inf]}, **changes)
    write_state(checkpoint, copy_state(checkpoint, learner, optimizer, SavedStep(3, 0.1, 4)))
    return path.read_bytes()


def _small(width: int = 3, *, kind: Callable[..., torch.optim.Optimizer] = torch.optim.AdamW) -> Any:
    learner = nn.Sequential(nn.Linear(2, width), nn.Linear(width, 1))
    optimizer = kind(learner.parameters(), lr=0.1)
    learner(torch.ones(4, 2)).sum().backward()
    optimizer.step()
    return learner, optimizer


def _load(data: bytes, learner_and_optimizer: Any = None, **changes: Any) -> tuple[SavedStep, Checkpoint]:
    checkpoint = _checkpoint(Path("state file"), **changes)
    return load_state(data, checkpoint, *(learner_and_optimizer or _small())), checkpoint


def test_what_was_noted_and_where_the_run_stood_come_back(tmp_path: Path) -> None:
    stands, checkpoint = _load(_saved(tmp_path / "state"), notes={"stale": 1})
    assert stands == SavedStep(step=3, loss=0.1, micro_batch=4)
    assert checkpoint.notes == {"note": [1, math.inf]}


def _refused(data: bytes, match: str, learner_and_optimizer: Any = None, **changes: Any) -> None:
    """Expect a message that names the file, and nothing to be changed."""
    learner, optimizer = learner_and_optimizer or _small()
    weights = {name: value.clone() for name, value in learner.state_dict().items()}
    numbers = json.dumps(optimizer.state_dict()["param_groups"])
    moments = [value.clone() for state in optimizer.state.values() for value in state.values()]
    notes = {"mine": 1}
    with pytest.raises(DataError, match=f"state file: .*{match}"):
        _load(data, (learner, optimizer), notes=notes, **changes)
    assert notes == {"mine": 1}
    assert all(torch.equal(value, weights[name]) for name, value in learner.state_dict().items())
    assert json.dumps(optimizer.state_dict()["param_groups"]) == numbers
    now = [value for state in optimizer.state.values() for value in state.values()]
    assert all(torch.equal(one, other) for one, other in zip(moments, now, strict=True))


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_file_that_is_cut_off_or_changed_anywhere_is_refused(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    whole = _saved(tmp_path_factory.mktemp("small") / "state")
    if data.draw(st.booleans()):
        _refused(whole[: data.draw(st.integers(1, len(whole) - 1))], "")
        return
    changed = bytearray(whole)
    changed[data.draw(st.integers(0, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
    refused, checkpoint = "", _checkpoint(Path("state file"))
    learner, optimizer = _small()
    try:
        stands = load_state(bytes(changed), checkpoint, learner, optimizer)
    except DataError as error:
        refused = str(error)
    if not refused:  # one blank for another between the parts of the JSON: what is read is what was written
        assert stands == SavedStep(step=3, loss=0.1, micro_batch=4)
        assert checkpoint.notes == {"note": [1, math.inf]}
    else:
        assert refused.startswith("state file: ")


@pytest.mark.parametrize("length", [0, 1, 7, 8, 100])
def test_files_of_another_kind_are_refused(length: int) -> None:
    rng = np.random.default_rng(length)
    _refused(rng.bytes(length) or b"\0", "is no training state, or a damaged one")
    _refused(b"PK\x03\x04" + rng.bytes(length), "is no training state")  # a zip, such as torch.save writes
    _refused(save({"weight": torch.ones(length)}), "is no training state")
    _refused(save({"weight": torch.ones(length)}, {"specvit_training_state": "[1]"}), "is no training state")


def test_states_of_another_trial_version_learner_or_optimizer_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = _saved(tmp_path / "state")
    _refused(data, "another trial", identity="other trial")
    _refused(data, "other parameters", _small(width=4))
    _refused(data, "other parameters", (learner := _small()[0].double(), torch.optim.AdamW(learner.parameters())))
    learner, _ = _small()
    _refused(data, "another optimizer", (learner, torch.optim.AdamW(learner[0].parameters())))
    monkeypatch.setattr(checkpoint, "VERSION", checkpoint.VERSION + 1)
    _refused(data, r"version 1, not 2")
    monkeypatch.undo()
    monkeypatch.setattr(checkpoint, "_digest", lambda *_: "same")
    metadata = {"specvit_training_state": json.dumps({"version": 1, "sha256": "same"})}
    _refused(save({"a": torch.ones(1)}, metadata), "lacks a part")


class _Strict(torch.optim.AdamW):
    """Refuse every state that holds something, with an error of its own."""

    error: Exception

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        if state_dict["param_groups"][0]["lr"] != 0.5:
            raise self.error


@pytest.mark.parametrize("error", [ValueError("a group is missing"), KeyError("a group is missing")])
def test_an_optimizer_that_refuses_a_state_leaves_all_as_it_was(error: Exception, tmp_path: Path) -> None:
    data = _saved(tmp_path / "state")
    learner, _ = _small()
    optimizer = _Strict(learner.parameters(), lr=0.5)
    optimizer.error = error
    optimizer.step()
    _refused(data, "another optimizer .*a group is missing", (learner, optimizer))


@pytest.mark.parametrize("damage", [lambda data: data[:-5], lambda _: b"", lambda _: b"x" * 1000])
def test_a_run_that_finds_a_damaged_state_begins_anew_and_says_so(
    damage: Callable[[bytes], bytes], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "state"
    losses, _ = learn(ONE, stop_after=4, checkpoint=_checkpoint(path))
    path.write_bytes(damage(path.read_bytes()))
    with caplog.at_level(logging.WARNING):
        again, _ = learn(ONE, stop_after=4, checkpoint=_checkpoint(path))
    assert again == losses
    (message,) = [record.message for record in caplog.records]
    assert message.startswith(f"{path}: is ")
    assert message.endswith("; training begins anew")
    assert learn(ONE, stop_after=4, checkpoint=_checkpoint(path))[0] == losses[3:]  # replaced by a whole one


@pytest.mark.parametrize("at_stop", [True, False])
def test_a_run_that_is_stopped_saves_its_state_where_it_is_to_go_on(at_stop: bool, tmp_path: Path) -> None:
    path = tmp_path / "state"
    losses, _ = learn(ONE)
    stopped = _checkpoint(path, every_steps=None, at_stop=lambda: at_stop)
    assert learn(ONE, stop_after=3, checkpoint=stopped)[0] == losses[:3]
    assert path.exists() == at_stop
    assert learn(ONE, checkpoint=_checkpoint(path))[0] == losses[3 if at_stop else 0 :]


def test_whoever_is_to_hear_of_a_saved_state_finds_it_whole(tmp_path: Path) -> None:
    steps: list[int] = []

    def saved(path: Path) -> None:
        steps.append(_load(path.read_bytes())[0].step)

    _saved(tmp_path / "state", after_save=saved)
    assert steps == [3]


def test_a_run_that_is_stopped_for_good_saves_nothing_more(tmp_path: Path) -> None:
    learn(ONE, stop_after=1, checkpoint=_checkpoint(tmp_path / "state"))
    assert list(tmp_path.iterdir()) == []


def test_the_folder_of_a_state_is_made_but_not_the_folder_that_should_hold_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    learn(ONE, checkpoint=_checkpoint(tmp_path / "made" / "state"))
    assert (tmp_path / "made" / "state").exists()
    with caplog.at_level(logging.WARNING):
        learn(ONE, stop_after=2, checkpoint=_checkpoint(tmp_path / "absent" / "made" / "state"))
    assert "training goes on without a checkpoint of step 1" in caplog.text
    assert not (tmp_path / "absent").exists()


def test_a_folder_in_place_of_the_file_is_told_of_and_training_goes_on_without(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "state").mkdir()
    with caplog.at_level(logging.WARNING):
        losses, _ = learn(ONE, stop_after=3, checkpoint=_checkpoint(tmp_path / "state"))
    assert losses == learn(ONE, stop_after=3)[0]
    messages = [record.message for record in caplog.records]
    assert "cannot be read as a training state" in messages[0]
    assert [message.rpartition("; ")[2] for message in messages[1:]] == [
        f"training goes on without a checkpoint of step {step}" for step in (1, 2)
    ]


def test_a_write_that_fails_leaves_the_state_of_before(tmp_path: Path) -> None:
    path = tmp_path / "state"
    before = _saved(path)
    with file_size_limit(len(before) // 2), pytest.raises(SpecsweepError, match="File too large"):
        _saved(path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["state"]


def test_the_folder_of_a_state_is_made_and_a_missing_file_is_empty(tmp_path: Path) -> None:
    path = tmp_path / "a" / "state"
    assert read_state(path) == b""
    assert read_state(path) != _saved(path) == read_state(path)


@pytest.mark.parametrize(
    "changes",
    [
        *({"every_steps": 0}, {"every_s": -1.0}, {"every_s": 0.0}, {"every_s": math.nan}),
        *({"max_share": 0.0}, {"max_share": 1.5}, {"max_share": math.nan}),
    ],
)
def test_intervals_and_shares_out_of_range_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(changes))} must be above 0"):
        _checkpoint(Path("x"), **changes)
