"""What a trial occupies, as sweep files say it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.sweep.grid import expand
from orchestrator.sweep.loading import load_sweep
from orchestrator.sweep.problems import SweepFileError
from orchestrator.sweep.resolved import Sweep
from orchestrator.sweep.resource_settings import Resources, share_of
from orchestrator.trials.resources import ResourceFloor, ResourceRequest

BASE = "objective: {recipe: dinov2_cpu, batch_size: 8}\nprobes: {knn: }\n"


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., Sweep]:
    def load_text(text: str, *overrides: str) -> Sweep:
        path = tmp_path / "x.yaml"
        path.write_text(BASE + text)
        return load_sweep(path, overrides)

    return load_text


def test_a_file_that_says_nothing_takes_a_core(load: Callable[..., Sweep]) -> None:
    assert share_of(load("").file.resources, "nano") == ResourceRequest(cpus=1.0)


def test_a_scale_takes_what_it_says_and_the_rest_as_the_others_do(load: Callable[..., Sweep]) -> None:
    resources = load(
        "resources:\n"
        "  {cpus: 2, gpus: 0.25, memory_gib: 4, custom: {fast_disk: 0.5, a: 1}, labels: {region: b},\n"
        "   micro: {gpus: 2, processes: 4, custom: {}, labels: {ray.io/accelerator-type: A100}}}\n"
    ).file.resources
    assert share_of(resources, "nano") == ResourceRequest(
        2.0, 0.25, 1, 4.0, custom=(("a", 1.0), ("fast_disk", 0.5)), labels=(("region", "b"),)
    )
    assert share_of(resources, "micro") == ResourceRequest(
        2.0, 2.0, 4, 4.0, labels=(("ray.io/accelerator-type", "A100"),)
    )


def test_a_scale_can_take_no_gpu_where_the_others_do(load: Callable[..., Sweep]) -> None:
    resources = load("resources: {gpus: 1, memory_gib: 8, nano: {gpus: 0, memory_gib: 0}}\n").file.resources
    assert share_of(resources, "nano") == ResourceRequest()
    assert share_of(resources, "micro") == ResourceRequest(gpus=1.0, memory_gib=8.0)


def test_a_scale_is_read_under_by_scale_and_beside_the_other_fields_alike(load: Callable[..., Sweep]) -> None:
    under = load("resources: {gpus: 1, by_scale: {nano: {gpus: 2}, micro: {gpus: 4}}}\n").file.resources
    assert under == load("resources: {gpus: 1, by_scale: {nano: {gpus: 2}}, micro: {gpus: 4}, mini: }\n").file.resources
    assert under == Resources(gpus=1, by_scale={"nano": {"gpus": 2}, "micro": {"gpus": 4}})
    assert [share_of(under, scale).gpus for scale in ("nano", "micro", "mini")] == [2.0, 4.0, 1.0]


def test_resources_can_be_set_on_the_command_line(load: Callable[..., Sweep]) -> None:
    resources = load("", "resources.micro.gpus=2", "resources.custom={disk: 3}").file.resources
    assert share_of(resources, "micro") == ResourceRequest(gpus=2.0, custom=(("disk", 3.0),))


@pytest.mark.parametrize(
    ("resources", "message"),
    [
        ("{gpus: 1.5}", "resources.gpus: must be a whole number where it is above 1, not 1.5"),
        ("{nano: {gpus: 2.5}}", "resources.nano.gpus: must be a whole number where it is above 1, not 2.5"),
        ("{gpus: -1}", "resources.gpus: must be at least 0"),
        ("{cpus: 0}", "resources.cpus: must be at least 0.0001"),
        ("{memory_gib: -1}", "resources.memory_gib: must be at least 0"),
        ("{nano: {cpus: 0}}", "resources.nano.cpus: must be at least 0.0001"),
        ("{nano: {processes: 0}}", "resources.nano.processes: must be greater than 0"),
        ("{nanno: {cpus: 1}}", "did you mean 'nano'"),
        ("{giant: {cpus: 1}}", "resources.giant: unknown field"),
        ("{nano: {cpu: 1}}", "did you mean 'cpus'"),
        ("{custom: {GPU: 1}}", "must name resources of your own, not 'GPU'"),
        ("{custom: {CPU: 1}}", "must name resources of your own, not 'CPU'"),
        ("{custom: {memory: 1}}", "must name resources of your own, not 'memory'"),
        ("{custom: {object_store_memory: 1}}", "must name resources of your own, not 'object_store_memory'"),
        ("{custom: {'node:10.0.0.1': 1}}", "must name resources of your own, not 'node:10.0.0.1'"),
        ("{custom: {'': 1}}", "must name resources of your own, not ''"),
        ("{custom: {disk: 0}}", "must be at least 0.0001"),
        ("{custom: {disk: much}}", "must be a number"),
        ("{labels: {kind: 3}}", "must be text"),
        ("{labels: {'': x}}", "resources.labels"),
        ("{processes: 3}", "resources.processes: must divide objective.batch_size, 8, not 3"),
        ("{nano: {processes: 3}}", "resources.nano.processes: must divide objective.batch_size, 8, not 3"),
        ("{by_scale: {nano: {gpus: 2.5}}}", "resources.by_scale.nano.gpus: must be a whole number"),
        ("{by_scale: {micro: {}}, nano: {gpus: 2.5}}", "resources.nano.gpus: must be a whole number"),
        ("{by_scale: {nano: {cpu: 1}}}", "resources.by_scale.nano.cpu: unknown field; known: cpus, gpus"),
        ("{by_scale: {nanno: {}}}", "resources.by_scale.nanno: must be nano, micro, mini, tiny, small, base or large"),
        ("{by_scale: 3}", "resources.by_scale: must be a mapping (field: value), not 3"),
        ("{by_scale: {nano: 3}}", "resources.by_scale.nano: must be a mapping (field: value), not 3"),
        ("{nano: 3}", "resources.nano: must be a mapping (field: value), not 3"),
        ("3", "resources: must be a mapping (field: value), not 3"),
        ("{by_scale: {nano: {}}, nano: {}}", "resources.nano: must not be given beside by_scale.nano"),
        ("{by_scale: {nano: {processes: 3}}}", "resources.by_scale.nano.processes: must divide objective.batch_size"),
        ("{gpus: 0.5, nano: {processes: 2}}", "nano.processes: must be 1 where gpus is a share of a GPU (0.5)"),
    ],
)
def test_what_a_file_cannot_say_of_resources_is_told_with_its_place(
    resources: str, message: str, load: Callable[..., Sweep]
) -> None:
    with pytest.raises(SweepFileError) as caught:
        load(f"model: {{scale: nano}}\nresources: {resources}\n")
    assert message in str(caught.value)


def test_a_scale_that_the_sweep_does_not_have_is_not_checked_against_its_batch(load: Callable[..., Sweep]) -> None:
    sweep = load("model: {scale: nano}\nresources: {micro: {processes: 3}}\n")
    assert share_of(sweep.file.resources, "micro").processes == 3


def test_resources_and_limits_take_no_part_in_the_ids_of_trials(load: Callable[..., Sweep]) -> None:
    plain = expand(load("model: {scale: nano}\n"))
    resources = "{cpus: 2, gpus: 1, memory_gib: 3, custom: {disk: 1}, labels: {kind: A100}, nano: {processes: 2}}"
    limits = "max_retries: 0\nstall_timeout_s: 5\ntime_budget_h: 1\nmax_gpu_hours: 1\n"
    other = expand(load(f"model: {{scale: nano}}\nresources: {resources}\n{limits}"))
    assert [trial.trial_id for trial in other] == [trial.trial_id for trial in plain]
    assert [trial.config for trial in other] == [trial.config for trial in plain]


def test_a_larger_share_is_the_least_that_a_scale_gets() -> None:
    resources = Resources(gpus=0.25, memory_gib=8, by_scale={"micro": {"gpus": 1}})
    larger = ResourceFloor(gpus=0.5, memory_gib=4.0)
    assert share_of(resources, "nano", larger) == ResourceRequest(gpus=0.5, memory_gib=8.0)
    assert share_of(resources, "micro", larger) == ResourceRequest(gpus=1.0, memory_gib=8.0)
