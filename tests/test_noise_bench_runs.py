"""The noise bench trains as a trial does: tiny trainings, their twins and their probes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from specvit.device import Device
from specvit.errors import DivergenceError
from specvit.probes import METRICS
from specvit.trial import run_trial

from .faults.harness.processes import descendants_of, is_alive
from .noise_bench import training
from .noise_bench.arms import ARMS, BASELINE, REAL, Task, arm_config
from .noise_bench.probe_noise import ProbeTask, run_probe_task
from .noise_bench.records import RUNS, Run, read_runs
from .noise_bench.settings import FIRST_SEED, Setting, read_settings
from .noise_bench.training import CPU, load, run_task
from .waiting import wait_for, wait_for_end

ROOT = Path(__file__).parents[1]
TINY = """
tiny:
  data: {num_train: 64, num_val: 32, image_size: 16}
  objective: {recipe: deit3_cpu, steps: 7, batch_size: 8}
  probes: {knn: {}, segmentation: {}}
"""


class Nobody:
    """An observer that does not care."""

    def progress(self, **_: object) -> None: ...
    def rung(self, **_: object) -> None: ...
    def should_stop(self) -> bool:
        return False


@pytest.fixture
def tiny(tmp_path: Path) -> Setting:
    file = tmp_path / "tiny.yaml"
    file.write_text(TINY)
    return read_settings(file)["tiny"]


def test_a_run_has_the_numbers_of_the_trial_and_its_twin_is_a_little_off(tiny: Setting, tmp_path: Path) -> None:
    first, twin = run_task(Task(tiny, 903, REAL, f"{REAL} repeat"), tmp_path, "abc")
    config = arm_config(tiny, REAL, 903)
    trial = dict(run_trial(config, load(config.data), Nobody(), device=Device(CPU.torch_device)).metrics)
    # The bench asks for what probes report, and not for what training records of itself.
    assert first.metrics == {name: value for name, value in trial.items() if name in METRICS}
    assert (first.distance, first.error, first.commit) == ({}, "", "abc")
    assert list(twin.distance) == [5, 7]
    assert all(1e-7 < distance < 1e-2 for distance in twin.distance.values())
    assert first.training_core_s > 0
    assert read_runs(tmp_path / RUNS) == [first, twin]


def test_a_missing_twin_is_the_same_as_if_it_had_not_been_missing(tiny: Setting, tmp_path: Path) -> None:
    run_task(Task(tiny, 900, BASELINE, "repeat"), tmp_path, "")
    _, twin = read_runs(tmp_path / RUNS)
    (again,) = run_task(Task(tiny, 900, BASELINE, "repeat", record_run=False), tmp_path, "")
    assert (again.arm, again.metrics, again.distance) == ("repeat", twin.metrics, twin.distance)


def test_a_run_that_fails_is_recorded_with_its_error(
    tiny: Setting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def diverge(*_: object, **__: object) -> None:
        raise DivergenceError("the loss is nan")

    monkeypatch.setattr(training, "pretrain", diverge)
    runs = run_task(Task(tiny, 900, BASELINE, "repeat"), tmp_path, "")
    assert [(run.arm, run.metrics, run.error) for run in runs] == [
        (BASELINE, {}, "the loss is nan"),
        ("repeat", {}, "the loss is nan"),
    ]


def test_the_first_cell_of_the_probes_noise_is_the_trials_own_metric(tiny: Setting, tmp_path: Path) -> None:
    record = run_probe_task(ProbeTask(tiny), tmp_path, "")
    (own,) = run_task(Task(tiny, 900, BASELINE), tmp_path, "")
    assert set(record["tables"]) == {"knn_top1", "miou"}
    for metric, table in record["tables"].items():
        assert [len(row) for row in table] == [4] * 4
        assert table[0][0] == record["by_probe_seed"][metric][0] == own.metrics[metric]
        assert len(record["by_probe_seed"][metric]) == 5


@pytest.mark.long
def test_a_bench_that_is_killed_leaves_no_worker_and_goes_on(tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(TINY)
    arguments = ["--file", str(tmp_path / "tiny.yaml"), "--results", str(tmp_path), "--seeds", "1", "--workers", "1"]
    command = [sys.executable, "-m", "tests.noise_bench", *arguments]

    def recorded() -> list[Run]:
        return read_runs(tmp_path / RUNS)

    bench = subprocess.Popen(command, cwd=ROOT)
    wait_for(recorded)
    workers = descendants_of(bench.pid)
    bench.kill()
    bench.wait()
    assert workers
    wait_for(lambda: not any(map(is_alive, workers)))
    before = recorded()
    with (tmp_path / RUNS).open("a") as file:
        file.write('{"setting": "ti')
    again = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    _, said = wait_for_end(again)
    assert "dropped half a line" in said
    assert recorded()[: len(before)] == before
    tiny = read_settings(tmp_path / "tiny.yaml")["tiny"]
    arms = [arm for arm in ARMS if arm_config(tiny, arm, FIRST_SEED) is not None]
    assert sorted(run.key for run in recorded()) == sorted((tiny.digest, arm, FIRST_SEED) for arm in arms)

