"""Saving the states of a run while it goes on: training waits for the copying, a thread hashes and writes.

There is one copy in host memory at a time, and one write: a state that falls due by time while the last one is being
written waits for its turn. What saving takes from the training is counted, and a state waits until all of it is no more
than ``Checkpoint.max_share`` of the time since the run began: larger models are saved less often. Counted are the
copying and whatever training waits for, and on a CPU, where the thread computes on the cores that train, also its
core-seconds. The last state comes on top, and is waited for: when the run has ended, in whatever way, nothing is being
written any more. A process that is killed leaves the state of before, or the new one.

On a GPU the copying is into pageable memory, and has not been measured.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import torch
from torch import nn

from specvit.device import Device
from specvit.errors import SpecsweepError
from specvit.training import collectives
from specvit.training.checkpoint import Checkpoint, SavedStep, StateCopy, copy_state, state_bytes, write_state

_LOG = logging.getLogger(__name__)

COPYING_S_PER_BYTE, WRITING_S_PER_BYTE = 1e-9, 3e-9
"""What the first state is expected to take; 0.2 to 0.9 and 0.8 to 3.2 s a GB were measured on a shared core."""


class StateWriter:
    """Save the states of a run."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        learner: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        device: Device,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin to count the time.

        Args:
            checkpoint: Where to save, and how often.
            learner: What is trained.
            optimizer: Its optimizer.
            device: Where it is trained.
            clock: Returns seconds.
        """
        self.checkpoint = checkpoint
        self._learner, self._optimizer = learner, optimizer
        self._shares_cores = not device.is_cuda
        self._clock = clock
        self._began = self._saved = clock()
        self._spent_s = 0.0
        self._copying_s: float | None = None
        self._writing_s = 0.0
        self._in_flight: tuple[int, Future[tuple[float, str]]] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="state's writing")

    def is_due(self, step: int) -> bool:
        """Return whether to save after ``step`` (from 1); ask after every step."""
        if self._in_flight is not None and self._in_flight[1].done():
            self._finish()
        asked = self.checkpoint
        if asked.every_steps is not None and step % asked.every_steps == 0:
            return True
        now = self._clock()
        if asked.every_s is None or now - self._saved < asked.every_s:
            return False
        if asked.max_share == 1:
            return True
        if self._copying_s is None:
            size = state_bytes(self._learner, self._optimizer)
            self._copying_s, self._writing_s = size * COPYING_S_PER_BYTE, size * WRITING_S_PER_BYTE
        expected_s = self._copying_s + (self._writing_s if self._shares_cores else 0.0)
        return self._in_flight is None and self._spent_s + expected_s <= asked.max_share * (now - self._began)

    def save(self, stands: SavedStep) -> None:
        """Copy the state, once the last one is written, and have it written."""
        started = self._clock()
        self._finish()
        copying = self._clock()
        # In a list, out of which the thread takes it: a task keeps its arguments for a moment after it is done.
        copies = [copy_state(self.checkpoint, self._learner, self._optimizer, stands)]
        self._in_flight = stands.step, self._thread.submit(self._write, copies)
        self._saved = self._clock()
        self._copying_s = self._saved - copying
        self._spent_s += self._saved - started

    def close(self) -> None:
        """Wait until the last state is written."""
        try:
            self._finish()
        finally:
            self._thread.shutdown()

    def _finish(self) -> None:
        """Wait for the write in flight, if there is one; a full disk costs the checkpoint, not the run."""
        if self._in_flight is None:
            return
        (step, future), self._in_flight = self._in_flight, None
        self._writing_s, error = future.result()
        if self._shares_cores:
            self._spent_s += self._writing_s
        if error:
            _LOG.warning("%s; training goes on without a checkpoint of step %d", error, step)

    def _write(self, copies: list[StateCopy]) -> tuple[float, str]:
        """Write a state, and let go of it; return the core-seconds that took, and why it failed, or nothing."""
        started, failure = time.thread_time(), ""
        try:
            write_state(self.checkpoint, copies.pop())
        except SpecsweepError as error:
            failure = str(error)  # the error itself would keep the copy, by its traceback
        return time.thread_time() - started, failure


@contextmanager
def state_writer(
    checkpoint: Checkpoint | None, learner: nn.Module, optimizer: torch.optim.Optimizer, *, device: Device
) -> Iterator[StateWriter | None]:
    """Return what saves the states of a run, whose last one is written when the context ends.

    Args:
        checkpoint: Where to save, and how often; None = nowhere.
        learner: What is trained.
        optimizer: Its optimizer.
        device: Where it is trained.

    Returns:
        The writer; None where nothing is saved, or another process of the trial does it.
    """
    if checkpoint is None or not collectives.is_main():
        yield None
        return
    writer = StateWriter(checkpoint, learner, optimizer, device=device)
    try:
        yield writer
    except BaseException:
        try:
            writer.close()
        except Exception as error:  # what ended the run is what counts
            _LOG.warning("%s: the last state was not written (%s)", checkpoint.path, error)
        raise
    writer.close()
