"""A stand-in for ``specvit.trial.run_trial``: trials of cheap steps, with rungs and states, and with ordered faults.

It runs in the workers of a cluster. What it computes is a chain of hashes over all steps: a step that is lost, doubled
or taken from another trial's state changes every number after it.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from specvit.config import TrialConfig
from specvit.files.atomic import replacing

STEPS = 24
RUNGS = (6, 12, 18)
FAULT_STEP = 9
"""The step at which an ordered fault happens."""
HOLD_STEP = 20
"""The step at which trials are held, if they are."""


@dataclass(frozen=True)
class Fault:
    """Name what goes wrong with a trial.

    Attributes:
        kind: ``dies``, ``dies while saving``, ``hangs while saving``, ``stops``, ``raises``, ``memory``.
        times: How often.
    """

    kind: str
    times: int = 1


@dataclass(frozen=True)
class Result:
    """What ``specvit.trial.TrialResult`` holds, without the seconds that a worker takes to import that."""

    metrics: Mapping[str, float]
    stopped_at: int | None = None
    diagnostics: tuple[Any, ...] = ()
    cost: None = None
    weights: tuple[Any, ...] = ()


@dataclass(frozen=True)
class StandIn:
    """Compute a trial as ``run_trial`` would be asked to.

    Attributes:
        folder: Where faults are ordered, a file each, which goes when the fault happens.
    """

    folder: Path

    def order(self, faults: Mapping[str, Fault], *, step_s: float = 0.01, hold: bool = False) -> None:
        """Order faults in place of those before.

        Args:
            faults: By the ids of trials.
            step_s: How long a step takes.
            hold: Whether trials do not come to their ends until they are released.
        """
        for path in self.folder.iterdir():
            path.unlink()
        for trial_id, fault in faults.items():
            self.add(trial_id, fault)
        (self.folder / "step_s").write_text(str(step_s))
        if hold:
            (self.folder / "hold").touch()

    def release(self) -> None:
        """Let trials come to their ends."""
        (self.folder / "hold").unlink(missing_ok=True)

    def add(self, trial_id: str, fault: Fault) -> None:
        """Order one more fault, also of a trial that runs."""
        for number in range(fault.times):
            (self.folder / f"{trial_id}.{number}.{fault.kind}").touch()

    def is_hanging(self, trial_id: str) -> bool:
        """Tell whether a trial hangs, as was ordered."""
        return (self.folder / f"hanging {trial_id}").exists()

    def stand_aside(self) -> None:
        """Have trials computed by ``run_trial`` itself, until the next orders."""
        self.order({})
        (self.folder / "real").touch()

    def _take(self, trial_id: str, kind: str) -> bool:
        """Take an ordered fault if there is one left; also another attempt can, if this process dies of it."""
        for path in sorted(self.folder.glob(f"{trial_id}.*.{kind}")):
            with suppress(FileNotFoundError):
                path.unlink()
                return True
        return False

    def __call__(
        self, config: TrialConfig, dataset: Any, observer: Any, *, probe_datasets: Any, checkpoint: Any, weights: Any
    ) -> Any:
        """Run the trial."""
        if (self.folder / "real").exists():
            from specvit.trial import run_trial

            known = {"probe_datasets": probe_datasets, "checkpoint": checkpoint, "weights": weights}
            return run_trial(config, dataset, observer, **known)
        trial_id = json.loads(checkpoint.identity)["trial"]
        steps = STEPS if config.treatment.is_trained else 0
        step, digest, rungs = self._begin(checkpoint, trial_id)
        for rung in rungs:
            observer.rung(step=rung, metrics=rungs[rung])
        saved_s = time.monotonic()
        while step < steps:
            time.sleep(float((self.folder / "step_s").read_text()))
            step += 1
            digest = hashlib.sha256(f"{digest} {step}".encode()).hexdigest()
            observer.progress(step=step, steps=steps, images_per_s=1.0)
            if step in RUNGS:
                rungs[step] = {"knn_top1": number_of(digest)}
                observer.rung(step=step, metrics=rungs[step])
            while step == HOLD_STEP and (self.folder / "hold").exists() and not observer.should_stop():
                time.sleep(0.05)
            stopped = observer.should_stop()
            if step == FAULT_STEP:
                if self._take(trial_id, "dies"):
                    os.kill(os.getpid(), signal.SIGKILL)
                if self._take(trial_id, "stops"):
                    os.kill(os.getpid(), signal.SIGSTOP)
                if self._take(trial_id, "raises"):
                    raise ArithmeticError(f"ordered at step {step}")
                if self._take(trial_id, "memory"):
                    import torch

                    raise torch.OutOfMemoryError("CUDA out of memory, as was ordered")
            if checkpoint.at_stop() if stopped else time.monotonic() - saved_s >= checkpoint.every_s:
                self._save(checkpoint, trial_id, {"step": step, "digest": digest, "rungs": list(rungs.items())})
                saved_s = time.monotonic()
            if stopped:
                return Result({}, stopped_at=step)
        return Result({"knn_top1": number_of(digest), "loss": number_of(digest[::-1])})

    def _begin(self, checkpoint: Any, trial_id: str) -> tuple[int, str, dict[int, Mapping[str, float]]]:
        try:
            content = json.loads(checkpoint.path.read_text())
        except FileNotFoundError:
            return 0, trial_id, {}
        assert content["identity"] == checkpoint.identity
        checkpoint.notes.update(content["notes"])
        return content["step"], content["digest"], dict(content["rungs"])

    def _save(self, checkpoint: Any, trial_id: str, stands: Mapping[str, Any]) -> None:
        text = json.dumps({"identity": checkpoint.identity, "notes": checkpoint.notes, **stands})
        checkpoint.path.parent.mkdir(exist_ok=True)
        with replacing(checkpoint.path) as temporary:
            temporary.write_text(text[: len(text) // 2])
            if stands["step"] >= FAULT_STEP and self._take(trial_id, "dies while saving"):
                os.kill(os.getpid(), signal.SIGKILL)
            if stands["step"] >= FAULT_STEP and self._take(trial_id, "hangs while saving"):
                (self.folder / f"hanging {trial_id}").touch()
                time.sleep(600.0)
            temporary.write_text(text)


def number_of(digest: str) -> float:
    """Turn a hash into a percentage."""
    return 100 * int(digest[:12], 16) / 16**12

