from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.trials.resources import ResourceFloor, ResourceRequest, gpus_in_vain, visible_gpus


@pytest.mark.parametrize(
    ("request_", "text"),
    [
        (ResourceRequest(), "1 core"),
        (ResourceRequest(gpus=4.0, processes=2), "1 core, 4 GPUs, 2 processes"),
        (ResourceRequest(cpus=0.5, gpus=1.0, memory_gib=8.0), "0.5 cores, 1 GPU, 8 GiB of memory"),
        (
            ResourceRequest(cpus=2.0, custom=(("fast_disk", 0.25),), labels=(("zone", "b"),)),
            "2 cores, 0.25 fast_disk, zone=b",
        ),
    ],
)
def test_a_request_is_told_in_words(request_: ResourceRequest, text: str) -> None:
    assert str(request_) == text


def test_gpus_of_all_processes_are_summed() -> None:
    assert ResourceRequest(gpus=0.5, processes=4).total_gpus == 2.0


@pytest.mark.parametrize(
    ("floor", "text"),
    [
        (ResourceFloor(0.5), "0.5 GPUs a process"),
        (ResourceFloor(1.0, 32.5, 4), "1 GPUs a process, 32.5 GiB of memory a process, micro-batches of at most 4"),
    ],
)
def test_a_floor_is_told_in_words(floor: ResourceFloor, text: str) -> None:
    assert str(floor) == text


@pytest.mark.parametrize(
    ("named", "expected"), [(None, 3), ("0,1", 2), ("", 0), ("-1", 0), ("NoDevFiles", 0), ("GPU-0a, GPU-1b,", 2)]
)
def test_gpus_are_counted_by_the_files_of_their_driver_unless_the_environment_names_them(
    named: str | None, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.trials.resources._GPUS", tmp_path)
    for name in ("0000:01:00.0", "0000:02:00.0", "0000:03:00.0"):
        (tmp_path / name).mkdir()
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if named is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    assert visible_gpus() == expected
    monkeypatch.setattr("orchestrator.trials.resources._GPUS", tmp_path / "absent")
    assert visible_gpus() == (0 if named is None else expected)


def test_gpus_that_no_trial_asks_for_are_told_of() -> None:
    cores, part = ResourceRequest(), ResourceRequest(gpus=0.25)
    tail = "but no trial asks for one; --set resources.gpus=1 gives one to each trial"
    assert gpus_in_vain(8.0, [cores, cores]) == f"8 GPUs are there, {tail}"
    assert gpus_in_vain(1.0, [cores]) == f"1 GPU is there, {tail}"
    assert gpus_in_vain(8.0, [cores, part]) == gpus_in_vain(0.0, [cores]) == ""
