"""One cluster of Ray for all tests of a module, with two workers that share a core."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
import ray

from orchestrator.execution.ray_cluster.executor import RayExecutor
from orchestrator.run import load_datasets
from orchestrator.sweep.grid import expand
from orchestrator.sweep.loading import load_sweep
from orchestrator.sweep.resolved import Sweep
from orchestrator.trials.trial import Trial
from specvit.data import Dataset, DataSource

from ... import executor_contract
from ...executor_contract import play_or_run
from .real_jobs import ALONE, PAIR


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory, write_sweep: Callable[..., Path]) -> Sweep:
    return load_sweep(write_sweep(tmp_path_factory.mktemp("sweep"), seeds=1, resources={"cpus": ALONE.cpus}))


@pytest.fixture(scope="module")
def trials(sweep: Sweep) -> tuple[Trial, ...]:
    return expand(sweep)


@pytest.fixture(scope="module")
def datasets(trials: tuple[Trial, ...]) -> Mapping[DataSource, Dataset]:
    return load_datasets(trials)


@pytest.fixture(scope="module")
def executor(datasets: Mapping[DataSource, Dataset]) -> Iterator[RayExecutor]:
    """Start Ray once for all tests of a module, with two workers that share a core."""
    ray.cloudpickle.register_pickle_by_value(executor_contract)  # workers cannot import it
    executor = RayExecutor(datasets, shares=[ALONE], max_slots=2, runner=play_or_run, job_name="tiny")
    yield executor
    executor.close()
    executor.close()


@pytest.fixture(scope="module")
def pair(executor: RayExecutor, datasets: Mapping[DataSource, Dataset]) -> Iterator[RayExecutor]:
    """Lend a slot of two processes on the cluster that is up; it stays up."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("orchestrator.execution.ray_cluster.cluster.connect", lambda *_, **__: "")
        patch.setattr("ray.shutdown", lambda: None)
        pair = RayExecutor(datasets, shares=[PAIR], max_slots=1)
        yield pair
        pair.close()
