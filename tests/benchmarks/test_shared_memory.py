"""How long a worker takes to load data that its node has: shared memory, no copy. Run by ``make bench``.

In the object store, and as files that each worker maps.
"""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import ray
from numpy.typing import NDArray
from pytest_benchmark.fixture import BenchmarkFixture

from specvit.data import Dataset, Split
from specvit.data.cache.array_storage import DiskStorage

NUM_IMAGES, SIZE = 100_000, 64


@pytest.fixture
def cluster() -> Iterator[None]:
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    yield
    ray.shutdown()


def _own_bytes() -> int:
    """Return the memory that this process shares with nobody; 0 where the system does not tell."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith("RssAnon:"))


@ray.remote
class _Worker:
    def load(self, references: list[ray.ObjectRef[Dataset]]) -> tuple[float, int, int, bool]:
        """Return the seconds, the bytes of images, the growth of memory of its own, and whether they are shared."""
        before = _own_bytes()
        started = time.perf_counter()
        dataset = ray.get(references[0])
        checksum = int(dataset.train.images[::5000].sum())
        seconds = time.perf_counter() - started
        images = dataset.train.images
        grown = _own_bytes() - before
        return seconds, images.nbytes, grown, checksum > 0 and not images.flags.owndata


def test_worker_loads_cached_images(benchmark: BenchmarkFixture, cluster: None) -> None:
    images = np.random.default_rng(0).integers(0, 256, (NUM_IMAGES, 3, SIZE, SIZE), dtype=np.uint8)
    _measure(benchmark, images)


def test_worker_maps_files(benchmark: BenchmarkFixture, cluster: None, tmp_path: Path) -> None:
    storage = DiskStorage(tmp_path)
    rows = storage.rows("train_images", NUM_IMAGES, (3, SIZE, SIZE), np.uint8)
    block = np.random.default_rng(0).integers(0, 256, (100, 3, SIZE, SIZE), dtype=np.uint8)
    for index in range(NUM_IMAGES):
        rows[index] = block[index % 100]
    before = ray.available_resources()["object_store_memory"]
    images = storage.finish(rows)
    _measure(benchmark, images)
    # Labels are in the store, images are not.
    assert before - ray.available_resources()["object_store_memory"] < images.nbytes / 1000


def _measure(benchmark: BenchmarkFixture, images: NDArray[np.uint8]) -> None:
    split = Split(images=images, labels=np.zeros(NUM_IMAGES, dtype=np.int64))
    dataset = Dataset(train=split, val=split, class_names=("a",), mask_names=(), fingerprint="")
    reference = ray.put(dataset)
    results = []

    def load() -> None:
        worker = _Worker.remote()
        results.append(ray.get(worker.load.remote([reference])))
        ray.kill(worker)

    benchmark.pedantic(load, rounds=5)
    seconds, nbytes, grown, shared = zip(*results, strict=True)
    assert all(shared)
    assert max(grown) < nbytes[0] / 10  # no worker holds a copy
    median = statistics.median(seconds)
    benchmark.extra_info["seconds"] = median
    print(f"\n{NUM_IMAGES} images of {SIZE} px, {nbytes[0] / 1e9:.2f} GB: {median * 1e3:.1f} ms in a worker, "
          f"{max(grown) / 1e6:.0f} MB of its own")
