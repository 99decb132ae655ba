from __future__ import annotations

import pytest

from orchestrator.trials.resources import ResourceRequest


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
