"""What the orchestration costs: trials a second, busy slots, ten thousand trials. Run by ``make bench``.

Trials are stand-ins that compute nothing, so that what is measured is the way from the ledger over the scheduler and
Ray to a worker and back. Ray Tune runs as many trials of as many reports in the same run, with its quiet settings.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ray

from orchestrator.execution.executor import Job, Place
from orchestrator.execution.ray_cluster.executor import RayExecutor
from orchestrator.ledger.ledger import Ledger
from orchestrator.ledger.provenance import collect_provenance
from orchestrator.monitoring.sweep_progress import SweepProgress
from orchestrator.reports.ablation_table import build_tables
from orchestrator.reports.rendering.markdown_table import render_markdown
from orchestrator.run import LEDGER_NAME, describe
from orchestrator.scheduling.allocation import Allocator
from orchestrator.scheduling.protocols import SweepCallback
from orchestrator.scheduling.pruning import Judge
from orchestrator.scheduling.scheduler import Scheduler
from orchestrator.storage.checkpoint_store import CheckpointStore
from orchestrator.sweep.grid import expand
from orchestrator.sweep.loading import load_sweep
from orchestrator.sweep.resolved import Sweep
from orchestrator.trials.events import Event, Finished, Progressed, Reported, Started
from orchestrator.trials.resources import ResourceRequest
from orchestrator.trials.trial import Trial
from specvit.config import TrialConfig
from specvit.trial import Observer, TrialResult

from ..orchestrator.plain_slots import PlainSlots

NUM_TUNE_TRIALS = 200
NUM_REPORTS = 3


def no_op(config: TrialConfig, dataset: object, observer: Observer, **_: object) -> TrialResult:
    """Stand in for a trial: three reports, and an end."""
    for step in range(1, NUM_REPORTS + 1):
        observer.rung(step=step, metrics={"knn_top1": float(step), "miou": 2.0})
    return TrialResult({"knn_top1": 1.0, "miou": 2.0, "loss": 3.0})


def ten_seconds(config: TrialConfig, dataset: object, observer: Observer, **_: object) -> TrialResult:
    """Stand in for a trial that takes ten seconds."""
    for step in range(20):
        time.sleep(0.5)
        observer.progress(step=step + 1, steps=20, images_per_s=1.0)
    return TrialResult({"knn_top1": 1.0, "miou": 2.0, "loss": 3.0})


# Workers cannot import this module.
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])


class Following(SweepProgress):
    """A progress that is asked with every tick for the time that is left, as the live view does."""

    def on_tick(self) -> None:
        self.seconds_left()


class Spans(SweepCallback):
    """When trials started and ended, and for how long they ran."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.seconds = 0.0

    def on_event(self, event: Event) -> None:
        if isinstance(event, Started | Finished):
            self.times.append(time.monotonic())
        if isinstance(event, Finished):
            self.seconds += event.seconds


def resident_mib() -> float:
    """Return the memory that this process occupies, in MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def make_sweep(folder: Path, num_trials: int) -> Sweep:
    """Make a sweep of at least so many trials, of ten arms and floors."""
    components = ["none", "norm", "qkv", "mlp", "proj", "norm+qkv", "norm+mlp", "qkv+mlp"]
    content = {
        "objective": {"recipe": "dinov2_cpu", "steps": 10},
        "probes": {"knn": {}, "segmentation": {}},
        "ablate": {"components": components},
        "seeds": -(-num_trials // 10),
    }
    path = folder / "many.yaml"
    path.write_text(json.dumps(content))
    return load_sweep(path)


class Driver:
    """Drive trials as ``run_sweep`` does."""

    def __init__(
        self, folder: Path, sweep: Sweep, trials: Sequence[Trial], executor: Any, *callbacks: SweepCallback
    ) -> None:
        self.ledger = Ledger.open(folder / LEDGER_NAME)
        self.ledger.register(describe(sweep, trials, {}), trials, collect_provenance())
        records = self.ledger.records()
        progress = Following(records, num_slots=lambda: executor.num_slots, shown_metric="knn_top1")
        self.scheduler = Scheduler(
            ledger=self.ledger,
            judge=Judge(sweep.file.pruning, higher_is_better=True, records=records, metric="knn_top1"),
            judged_metric="knn_top1",
            executor=executor,
            callbacks=[progress, *callbacks],
            states=CheckpointStore(folder / "checkpoints", every_s=60),
            allocator=Allocator(sweep.file.resources),
        )

    def run(self, trials: Sequence[Trial]) -> float:
        """Run trials; return the seconds that they took."""
        started = time.monotonic()
        assert self.scheduler.run(trials)
        return time.monotonic() - started


def ray_executor(trials: Sequence[Trial], runner: Any) -> RayExecutor:
    source = trials[0].config.data
    datasets = {source: replace(source, num_train=4, num_val=2).load()}
    return RayExecutor(datasets, shares=[ResourceRequest()], max_slots=2, runner=runner)


TUNE = f"""
import os, time
os.environ["RAY_AIR_NEW_OUTPUT"] = "0"
import ray
from ray import tune

class NoOp(tune.Trainable):
    def setup(self, config):
        self.reports = 0
    def step(self):
        self.reports += 1
        return {{"knn_top1": float(self.reports), "done": self.reports >= {NUM_REPORTS}}}
    def reset_config(self, config):
        self.reports = 0
        return True
    def save_checkpoint(self, folder):
        pass

ray.init(address="local", num_cpus=2, include_dashboard=False, logging_level=40, log_to_driver=False)
tuner = tune.Tuner(
    tune.with_resources(NoOp, {{"cpu": 1}}),
    param_space={{"x": tune.grid_search(list(range({NUM_TUNE_TRIALS})))}},
    tune_config=tune.TuneConfig(reuse_actors=True),
    run_config=tune.RunConfig(storage_path=os.environ["TUNE_FOLDER"], verbose=0),
)
started = time.monotonic()
results = tuner.fit()
assert len(results) == {NUM_TUNE_TRIALS} and not results.errors
print("seconds", time.monotonic() - started)
"""


def tune_rate(folder: Path) -> float:
    """Return the trials a second of Ray Tune."""
    pytest.importorskip("pyarrow")
    environment = {"TUNE_FOLDER": str(folder), "PATH": "/usr/bin:/bin", "HOME": str(folder)}
    done = subprocess.run([sys.executable, "-c", TUNE], capture_output=True, text=True, env=environment, check=True)
    seconds = next(line.split()[1] for line in done.stdout.splitlines() if line.startswith("seconds"))
    return NUM_TUNE_TRIALS / float(seconds)


def test_no_op_trials_a_second_over_ray_tune(benchmark: Any, tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path, 20 + 5 * NUM_TUNE_TRIALS)
    trials = expand(sweep)
    executor = ray_executor(trials, no_op)
    driver = Driver(tmp_path, sweep, trials, executor)
    driver.run(trials[:20])  # warms the workers up
    batches = [trials[20 + n * NUM_TUNE_TRIALS :][:NUM_TUNE_TRIALS] for n in range(5)]
    seconds = benchmark.pedantic(lambda: [driver.run(batch) for batch in batches], rounds=1)
    executor.close()
    driver.ledger.close()
    rates = [NUM_TUNE_TRIALS / one for one in seconds]
    tune = tune_rate(tmp_path)
    ours = statistics.median(rates)
    benchmark.extra_info.update(trials_per_s=ours, tune_trials_per_s=tune, ratio=ours / tune)
    print(
        f"\n{NUM_TUNE_TRIALS} trials of {NUM_REPORTS} reports, each on record: {ours:.0f} a second "
        f"({min(rates):.0f} to {max(rates):.0f}), Ray Tune {tune:.1f}: {ours / tune:.0f} times"
    )


def test_share_of_the_time_that_slots_are_busy_with_trials_of_ten_seconds(benchmark: Any, tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path, 10)
    trials = expand(sweep)[:10]
    executor = ray_executor(trials, ten_seconds)
    spans = Spans()
    driver = Driver(tmp_path, sweep, trials, executor, spans)
    benchmark.pedantic(lambda: driver.run(trials), rounds=1)
    executor.close()
    driver.ledger.close()
    assert len(spans.times) == 2 * len(trials)
    busy = spans.seconds / (2 * (spans.times[-1] - spans.times[0]))
    benchmark.extra_info["busy"] = busy
    print(f"\n10 trials of ten seconds on 2 slots: busy {busy:.1%} of the time from the first start to the last end")


class Instant(PlainSlots):
    """Be an executor whose trials end as soon as they are asked for."""

    num_slots = 2

    def __init__(self) -> None:
        self.jobs: list[Job] = []

    def has_room(self, share: ResourceRequest, avoid: frozenset[str] = frozenset()) -> bool:
        return len(self.jobs) < self.num_slots

    def submit(self, job: Job) -> Place:
        self.jobs.append(job)
        return Place()

    def prune(self, trial_id: str, why: str = "") -> None:
        pass

    def kill(self, trial_id: str) -> None:
        pass

    def close(self) -> None:
        pass

    def poll(self, timeout_s: float) -> Sequence[Event]:
        events: list[Event] = []
        for job in self.jobs:
            key = job.trial_id, job.attempt
            events += [Started(*key, worker="node:1"), Progressed(*key, step=10, steps=10, images_per_s=1.0)]
            events += [Reported(*key, step=step, metrics={"knn_top1": 1.0, "miou": 2.0}) for step in (1, 2, 3)]
            metrics = {"knn_top1": float(job.config.seed % 7), "miou": 2.0, "loss": 3.0}
            events.append(Finished(*key, metrics=metrics, seconds=10.0, core_seconds=9.0))
        self.jobs = []
        return events


@pytest.mark.parametrize("pruner", ["none", "median"])
def test_ten_thousand_trials_cost_of_one_opening_table_and_memory(
    benchmark: Any, tmp_path: Path, pruner: str
) -> None:
    sweep = replace(make_sweep(tmp_path, 10_000))
    if pruner != "none":
        sweep = load_sweep(sweep.path, [f"pruning={{pruner: {pruner}}}"])
    trials = expand(sweep)
    before = resident_mib()
    few = Driver(tmp_path / "few", sweep, trials[:100], Instant())
    few_seconds = few.run(trials[:100]) / 100
    few.ledger.close()
    many = Driver(tmp_path / "many", sweep, trials, Instant())
    many.run(trials[:-100])
    last_seconds = benchmark.pedantic(lambda: many.run(trials[-100:]), rounds=1) / 100
    grown = resident_mib() - before
    many.ledger.close()
    started = time.monotonic()
    with Ledger.open(tmp_path / "many" / LEDGER_NAME) as ledger:
        opened = time.monotonic()
        info, records = ledger.sweep(), ledger.records()
    text = render_markdown(build_tables(records, info.metrics), info)
    seconds = time.monotonic() - started
    assert len(records) == len(trials)
    assert "norm@all" in text
    benchmark.extra_info.update(ratio=last_seconds / few_seconds, table_seconds=seconds, grown_mib=grown)
    print(
        f"\n{len(trials)} trials, pruner {pruner}: {1e3 * last_seconds:.2f} ms each at the end, "
        f"{1e3 * few_seconds:.2f} ms of 100 ({last_seconds / few_seconds:.2f} times); "
        f"ledger opened in {opened - started:.2f} s, with its table {seconds:.2f} s; the driver grew by {grown:.0f} MiB"
    )
