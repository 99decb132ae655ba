"""What a plan says of the memory that trials take."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchestrator.plan import make_plan
from orchestrator.sweep.grid import expand
from orchestrator.sweep.resolved import Sweep
from specvit.data.reading.counting import Deadline
from specvit.footprint import footprint
from specvit.memory import GIB


def test_memory_is_that_of_the_largest_arm_of_each_scale_beside_what_is_reserved(
    make_sweep: Callable[..., Sweep], tmp_path: Path
) -> None:
    sweep = make_sweep(vary={"model.scale": ["nano", "micro"]}, resources={"nano": {"memory_gib": 0.5}})
    by_scale = {each.scale: each for each in make_plan(sweep, results_root=tmp_path).memory}
    for trial in expand(sweep):
        found = footprint(trial.config, num_parameters=trial.num_parameters)
        assert found.machine is not None
        assert found.machine / GIB <= (by_scale[trial.config.model.scale].machine_gib or 0)
    # Libraries alone are 1 GiB.
    assert (by_scale["nano"].reserved_gib, by_scale["nano"].exceeds) == (0.5, True)
    assert (by_scale["micro"].reserved_gib, by_scale["micro"].exceeds) == (0, False)
    assert by_scale["nano"].gpu_gib == 0


def test_images_of_a_folder_are_counted_once_for_the_memory_of_all_arms(
    make_sweep: Callable[..., Sweep], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = {"source": "image_folder", "root": str(tmp_path / "images"), "image_size": 32}
    sweep = make_sweep(data=data, probes={"knn": {}})
    assert make_plan(sweep, results_root=tmp_path).memory[0].machine_gib is None
    for split, number in (("train", 500), ("val", 100)):
        (tmp_path / "images" / split / "a").mkdir(parents=True)
        for index in range(number):
            (tmp_path / "images" / split / "a" / f"{index}.png").touch()
    listed: list[Path] = []
    entries = Deadline.entries

    def list_entries(deadline: Deadline, folder: Path) -> Iterator[os.DirEntry[str]]:
        listed.append(folder)
        return entries(deadline, folder)

    monkeypatch.setattr(Deadline, "entries", list_entries)
    (memory,) = make_plan(sweep, results_root=tmp_path).memory
    # [CLS] of 64 channels and a label each; kNN copies 1.8 of those that it is fitted on. Raw pixels have 3072.
    assert memory.features_gib == pytest.approx((600 * (3072 * 4 + 8) + 1.8 * 500 * 3072 * 4) / GIB)
    assert (memory.machine_gib or 0) > 1
    assert len(listed) == len(set(listed)) == 4
    listed.clear()
    sizes = make_sweep(data=data, probes={"knn": {}}, vary={"data.image_size": [32, 64]})
    assert (make_plan(sizes, results_root=tmp_path).memory[0].features_gib or 0) > memory.features_gib
    assert len(listed) == len(set(listed)) == 4


def test_memory_of_a_gpu_follows_the_micro_batch(
    make_sweep: Callable[..., Sweep], tmp_path: Path
) -> None:
    plain = make_plan(make_sweep(resources={"gpus": 1}), results_root=tmp_path).memory
    cut = make_plan(
        make_sweep(resources={"gpus": 1}, objective={"recipe": "deit3_cpu", "batch_size": 512}), results_root=tmp_path
    ).memory
    smaller = make_plan(
        make_sweep(resources={"gpus": 1}, objective={"recipe": "deit3_cpu", "batch_size": 512, "micro_batch": 8}),
        results_root=tmp_path,
    ).memory
    assert (cut[0].gpu_gib or 0) > max(plain[0].gpu_gib or 0, smaller[0].gpu_gib or 0)
