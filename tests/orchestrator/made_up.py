"""Stand-ins for the training of a trial, for tests in which its numbers do not matter.

``python -m tests.orchestrator.made_up`` is the command line with such trials, of which arms wait to be stopped.
"""

from __future__ import annotations

from specvit.config import TrialConfig
from specvit.data import Dataset
from specvit.trial import Observer, TrialResult

from ..waiting import wait_for


def made_up_trial(config: TrialConfig, dataset: Dataset, observer: Observer, **_: object) -> TrialResult:
    """Report two rungs, then metrics that tell the trials apart."""
    value = 10.0 * config.seed + len(config.treatment.specialize)
    for step in (1, 3):
        observer.progress(step=step, steps=4, images_per_s=10.0)
        observer.rung(step=step, metrics={"knn_top1": value})
        if observer.should_stop():
            return TrialResult({}, stopped_at=step)
    return TrialResult({"knn_top1": value, "loss": 1.0})


def waiting_trial(config: TrialConfig, dataset: Dataset, observer: Observer, **_: object) -> TrialResult:
    """Wait to be stopped where it is an arm; else end at once."""
    if config.treatment.specialize == "none":
        return made_up_trial(config, dataset, observer)
    wait_for(observer.should_stop)
    return TrialResult({}, stopped_at=1)


if __name__ == "__main__":
    import specvit.trial
    from orchestrator.cli.app import main

    specvit.trial.run_trial = waiting_trial  # type: ignore[assignment]
    main()
