"""When states are saved, what of that training waits for, and what is there whenever a run ends."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from specvit.device import Device
from specvit.training import state_writer
from specvit.training.checkpoint import (
    Checkpoint,
    SavedStep,
    StateCopy,
    copy_state,
    load_state,
    read_state,
    write_state,
)
from specvit.training.loop import StepReport, pretrain
from specvit.training.state_writer import StateWriter

from ...waiting import LIMIT_S, wait_for
from .cases import CASES, CPU, DATASET, make_learner

ONE = CASES["dinov2 centre"]
GPU = Device(torch.device("cuda"))
"""Only asked what it is."""


class Run:
    """A model whose weights are the step, a clock that is set by hand, and writes that wait to be let go.

    Attributes:
        now: Seconds.
        copying_s, writing_s: What copying takes by the clock, and writing of a core.
        written: Steps of the states that have been written.
        copies: Of them, in memory.
        error: Raised by the next write.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, device: Device = GPU, **asked: Any) -> None:
        self.now = self.copying_s = self.writing_s = 0.0
        self.written: list[int] = []
        self.copies: list[weakref.ref[StateCopy]] = []
        self.error: Exception | None = None
        self.may_write = threading.Event()
        self.model = nn.Linear(1, 1)
        optimizer = torch.optim.SGD(self.model.parameters())
        self.checkpoint = Checkpoint(**{"identity": "it", "every_s": 60.0, **asked})
        self.states = StateWriter(self.checkpoint, self.model, optimizer, device=device, clock=lambda: self.now)
        monkeypatch.setattr(state_writer, "copy_state", self._copy)
        monkeypatch.setattr(state_writer, "write_state", self._write)
        monkeypatch.setattr(state_writer.time, "thread_time", lambda: self._core_s)
        self._core_s = 0.0

    def _copy(self, *args: Any) -> StateCopy:
        assert all(copy() is None for copy in self.copies)
        self.now += self.copying_s
        copied = copy_state(*args)
        self.copies.append(weakref.ref(copied))
        return copied

    def _write(self, checkpoint: Checkpoint, state: StateCopy) -> None:
        self.may_write.wait(LIMIT_S)
        self._core_s += self.writing_s
        if self.error is not None:
            error, self.error = self.error, None
            raise error
        write_state(checkpoint, state)
        self.written.append(state.content["step"])

    def save(self, step: int) -> None:
        with torch.no_grad():
            self.model.weight.fill_(step)
        self.states.save(SavedStep(step, 0.5, 1))

    def due_after(self, step: int = 1) -> float:
        """Return how long after now, in whole seconds, a state is due."""
        began = self.now
        while not self.states.is_due(step):
            self.now += 1.0
        return self.now - began

    def read_bytes(self) -> bytes:
        return read_state(self.checkpoint.path)

    def read(self) -> tuple[SavedStep, float]:
        """Return where the saved run stood, and its weight."""
        model = nn.Linear(1, 1)
        optimizer = torch.optim.SGD(model.parameters())
        stands = load_state(self.read_bytes(), self.checkpoint, model, optimizer)
        return stands, model.weight.item()


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    made: list[Run] = []

    def make(**asked: Any) -> Run:
        made.append(Run(monkeypatch, **{"path": tmp_path / f"state {len(made)}", **asked}))
        return made[-1]

    yield make
    for run in made:
        run.may_write.set()
        run.states.close()


def test_states_are_due_by_time_or_by_steps(runs: Any) -> None:
    by_time = runs(every_s=10.0)
    assert by_time.due_after() == 10.0
    by_steps = runs(every_s=None, every_steps=3)
    assert [step for step in range(1, 8) if by_steps.states.is_due(step)] == [3, 6]
    never = runs(every_s=None)
    never.now = 1e9
    assert not never.states.is_due(1)


def test_saving_takes_no_more_than_its_share_of_the_time(runs: Any) -> None:
    run = runs()
    run.may_write.set()
    run.copying_s = 2.0
    due = []
    for step in range(1, 5):
        run.due_after()
        due.append(run.now)
        run.save(step)
        wait_for(lambda last=step: run.written[-1:] == [last])
    # The first after a minute, for so small a state is expected to take no time; then 100 s a second of copying.
    assert due == [60.0, 400.0, 600.0, 800.0]


def test_the_first_state_is_expected_to_take_a_second_a_gigabyte(
    runs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state_writer, "state_bytes", lambda *_: 5_000_000_000)
    assert runs().due_after() == 500.0  # 5 s of copying are 1%
    assert runs(device=CPU).due_after() == 2000.0  # and 15 s of writing
    assert runs(max_share=0.25).due_after() == 60.0
    assert runs(max_share=1).due_after() == 60.0


@pytest.mark.parametrize(("device", "due"), [(CPU, 1000.0), (GPU, 200.0)])
def test_core_seconds_of_the_writing_thread_count_where_it_shares_the_cores_that_train(
    device: Device, due: float, runs: Any
) -> None:
    run = runs(device=device)
    run.may_write.set()
    run.copying_s, run.writing_s = 1.0, 4.0
    run.due_after()
    run.save(1)
    wait_for(lambda: run.written)
    run.due_after()
    assert run.now == due  # 1% are two copies, and on a CPU two writes


def test_no_state_is_copied_while_one_is_written(runs: Any) -> None:
    run = runs()
    run.due_after()
    run.save(1)
    run.now = 1e6
    assert not run.states.is_due(2)
    run.may_write.set()
    wait_for(lambda: run.states.is_due(3))
    run.save(3)
    run.states.close()
    assert run.written == [1, 3]


def test_a_state_that_has_to_be_saved_waits_for_the_one_that_is_written(runs: Any) -> None:
    run = runs(max_share=1)
    run.save(1)
    run.now = 1e6
    assert run.states.is_due(2)  # as often as asked, whatever it takes
    second = threading.Thread(target=run.save, args=(2,))
    second.start()
    assert run.written == []
    run.may_write.set()
    second.join(LIMIT_S)
    run.states.close()
    assert run.written == [1, 2]
    assert [copy() for copy in run.copies] == [None, None]  # and the second was made when the first was gone


def test_a_state_that_cannot_be_written_is_let_go_of_and_told_of(
    runs: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = runs(path=tmp_path / "absent" / "folder" / "state")
    run.may_write.set()
    with caplog.at_level(logging.WARNING):
        run.save(1)
        run.save(2)  # which asserts that the first copy is gone
        wait_for(lambda: run.states.is_due(3) or len(caplog.records) == 2)  # in the thread of the training
    messages = [record.getMessage() for record in caplog.records]
    assert [message.rpartition("; ")[2] for message in messages] == [
        f"training goes on without a checkpoint of step {step}" for step in (1, 2)
    ]
    assert all(message.startswith(f"{tmp_path / 'absent' / 'folder'}: cannot be made") for message in messages)
    assert run.read_bytes() == b""


def test_what_is_written_is_the_state_that_was_copied(runs: Any) -> None:
    run = runs()
    run.checkpoint.notes["rungs"] = [[1]]
    run.save(1)
    with torch.no_grad():
        run.model.weight.fill_(2.0)
    run.checkpoint.notes["rungs"][0].append(2)
    run.may_write.set()
    run.states.close()
    assert run.read() == (SavedStep(1, 0.5, 1), 1.0)
    assert run.checkpoint.notes == {"rungs": [[1]]}


def test_an_error_of_a_write_that_is_no_full_disk_ends_the_run(runs: Any) -> None:
    run = runs()
    run.may_write.set()
    run.error = MemoryError("none left")
    run.save(1)
    with pytest.raises(MemoryError, match="none left"):
        wait_for(lambda: run.states.is_due(2) and False)


class BrokenError(RuntimeError):
    """What ends a run."""


@pytest.mark.parametrize(
    ("how", "saved"), [("to its end", [2, 4, 5]), ("stopped", [2]), ("interrupted", [2, 3]), ("broken", [2])]
)
def test_however_a_run_ends_its_last_state_has_been_written(
    how: str, saved: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(checkpoint: Checkpoint, state: StateCopy) -> None:
        assert not has_ended.wait(0.05)  # the run has not ended while this goes on
        write_state(checkpoint, state)
        steps.append(state.content["step"])

    def after_step(report: StepReport) -> bool:
        if how == "broken" and report.step == 3:
            raise BrokenError
        return how in ("stopped", "interrupted") and report.step == 3

    steps: list[int] = []
    has_ended = threading.Event()
    monkeypatch.setattr(state_writer, "write_state", write)
    asked: Any = {"every_s": None, "every_steps": 2, "at_stop": lambda: how == "interrupted"}
    given: Any = {"seed": 0, "device": CPU, "checkpoint": Checkpoint(tmp_path / "state", "run", **asked)}
    with suppress(BrokenError):
        pretrain(make_learner(ONE), ONE.recipe, DATASET.train, after_step=after_step, **given)
    has_ended.set()
    assert steps == saved
    assert [path.name for path in tmp_path.iterdir()] == ["state"]


def test_a_failed_write_does_not_hide_what_ended_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def write(*_: object) -> None:
        raise MemoryError("none left")

    monkeypatch.setattr(state_writer, "write_state", write)
    learner, optimizer = nn.Linear(1, 1), torch.optim.SGD([nn.Parameter(torch.ones(1))])
    checkpoint = Checkpoint(tmp_path / "state", "run", every_s=None)

    def break_off() -> None:
        with state_writer.state_writer(checkpoint, learner, optimizer, device=CPU) as states:
            assert states is not None
            states.save(SavedStep(1, 0.5, 1))
            raise BrokenError

    with caplog.at_level(logging.WARNING), pytest.raises(BrokenError):
        break_off()
    assert "the last state was not written (none left)" in caplog.text


KILLED = """
import sys
from pathlib import Path
import torch
from torch import nn
from specvit.device import Device
from specvit.training.checkpoint import Checkpoint, SavedStep
from specvit.training.state_writer import state_writer

model = nn.Linear(500, 500)
optimizer = torch.optim.SGD(model.parameters())
checkpoint = Checkpoint(Path(sys.argv[1]), "it", every_s=None, every_steps=1)
with state_writer(checkpoint, model, optimizer, device=Device(torch.device("cpu"))) as states:
    for step in range(1, 10**9):
        with torch.no_grad():
            model.weight.fill_(step)
        states.save(SavedStep(step, 0.5, 1))
        print(step, flush=True)
"""


@pytest.mark.long
def test_a_process_that_is_killed_while_it_writes_leaves_a_whole_state(tmp_path: Path) -> None:
    path = tmp_path / "state"
    for number in range(4):
        with subprocess.Popen([sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for _ in range(2 + 7 * number):
                last = int(process.stdout.readline())
            os.kill(process.pid, signal.SIGKILL)
            last = max([last, *map(int, process.stdout.read().split())])
        model = nn.Linear(500, 500)
        checkpoint = Checkpoint(path, "it")
        stands = load_state(read_state(path), checkpoint, model, torch.optim.SGD(model.parameters()))
        assert last - 1 <= stands.step <= last + 1
        assert bool((model.weight == stands.step).all())
