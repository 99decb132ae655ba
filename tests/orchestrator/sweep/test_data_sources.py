"""Tiny sweeps on every kind of data in files, from the command to the table."""

from __future__ import annotations

import io
import logging
import os
import shutil
import signal
import sys
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import ray
from pandas.testing import assert_frame_equal
from PIL import Image
from rich.console import Console

from orchestrator.cli.app import main
from orchestrator.cli.run import load_data
from orchestrator.execution.executor import Job
from orchestrator.execution.ray_cluster.executor import RayExecutor
from orchestrator.run import load_datasets
from orchestrator.sweep.grid import expand
from orchestrator.sweep.resolved import Sweep
from orchestrator.trials.events import END_STATES, Event, Failed, Finished, Started
from orchestrator.trials.identity import trial_id
from orchestrator.trials.resources import ResourceRequest
from specvit.data.sources.hugging_face import HuggingFace
from specvit.data.sources.scenes import Scenes
from specvit.errors import DataError

from ...measured_columns import MEASURED
from ...waiting import wait_for

COUNTS = {"train": 64, "val": 32}
SIZE = 32
SECTIONS: dict[str, Any] = {
    "objective": {"recipe": "mae_cpu", "steps": 2, "batch_size": 8},
    "rungs": {"count": 1, "num_images": 32},
    "seeds": 1,
}

Run = Callable[..., tuple[int, str, str]]


def encoded(split: str, number: int) -> bytes:
    """Draw an image whose class, ``number % 2``, is its colour."""
    rng = np.random.default_rng([len(split), number])
    pixels = rng.integers(0, 100, (SIZE, SIZE, 3), dtype=np.uint8)
    pixels[..., number % 2] += 120
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def image_folder(tmp_path: Path) -> dict[str, Any]:
    for split, count in COUNTS.items():
        for number in range(count):
            path = tmp_path / "images" / split / "ab"[number % 2] / f"{number:03}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encoded(split, number))
    return {"source": "image_folder", "root": str(tmp_path / "images"), "image_size": SIZE}


@pytest.fixture
def webdataset(tmp_path: Path) -> dict[str, Any]:
    for split, count in COUNTS.items():
        for shard in range(2):
            with tarfile.open(tmp_path / f"{split}-{shard:06}.tar", "w") as tar:
                for number in range(shard, count, 2):
                    for kind, content in (("png", encoded(split, number)), ("cls", b"%d" % (number % 2))):
                        info = tarfile.TarInfo(f"{number:05}.{kind}")
                        info.size = len(content)
                        tar.addfile(info, io.BytesIO(content))
    return {
        "source": "webdataset", "root": str(tmp_path), "image_size": SIZE,
        "train": "train-{000000..000001}.tar", "val": "val-{000000..000001}.tar",
    }  # fmt: skip


@pytest.fixture
def hugging_face(tmp_path: Path) -> dict[str, Any]:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=["a", "b"]))

    def table(split: str, count: int) -> Any:
        images = [{"bytes": encoded(split, number), "path": None} for number in range(count)]
        columns = {"image": images, "label": [number % 2 for number in range(count)]}
        return datasets.Dataset.from_dict(columns, features=features)

    tables = {split: table(split, count) for split, count in COUNTS.items()}
    datasets.DatasetDict(tables).save_to_disk(str(tmp_path / "saved"))
    return {"source": "hugging_face", "path": str(tmp_path / "saved"), "val_split": "val", "image_size": SIZE}


@pytest.fixture
def run(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    write_sweep: Callable[..., Path],
) -> Run:
    """Give a command with a tiny sweep on some data; return its code and what it printed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.delenv("FORCE_COLOR", raising=False)

    def act(command: str, data: dict[str, Any], *arguments: str) -> tuple[int, str, str]:
        write_sweep(tmp_path, **SECTIONS, data=data)
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["specsweep", command, "tiny.yaml", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        assert isinstance(end.value.code, int)
        return end.value.code, *capsys.readouterr()

    return act


def table(folder: str) -> pd.DataFrame:
    return pd.read_csv(Path(folder, "tiny", "table.csv")).drop(columns=MEASURED)


@pytest.mark.parametrize(
    "source",
    [
        pytest.param("image_folder", marks=pytest.mark.long),
        "webdataset",
        pytest.param("hugging_face", marks=pytest.mark.long),
    ],
)
def test_a_sweep_runs_to_its_table_with_the_same_numbers_from_memory_and_from_disk(
    source: str, run: Run, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    data = request.getfixturevalue(source)
    code, out, err = run("run", data, "--executor", "local", "--results", "memory")
    assert (code, err) == (0, "")
    assert f"data: {source}, 64 images to train on, 32 to report on, 2 classes in labels, 32 px" in out
    on_disk = {**data, "cache": "disk", "cache_folder": str(tmp_path / "cache")}
    code, out, err = run("run", on_disk, "--executor", "local", "--results", "disk")
    assert (code, err) == (0, "")
    assert "data: decoding once into " in out
    found = table("disk")
    assert_frame_equal(found, table("memory"), check_exact=True)
    assert found["arm"].tolist() == ["none", "norm@all", "random init", "raw pixels"]
    assert found["done"].tolist() == [1, 1, 1, 1]
    # The two classes have colours of their own: raw pixels tell them apart.
    assert found.set_index("arm")["knn_top1_mean"]["raw pixels"] == 100.0
    # Where images are kept makes no other trials.
    code, out, _ = run("run", on_disk, "--executor", "local", "--results", "memory")
    assert "nothing to run" in out


def events_of(executor: RayExecutor, job: Job) -> list[Event]:
    """Run a job to its end."""
    executor.submit(job)
    events: list[Event] = []

    def has_ended() -> bool:
        events.extend(executor.poll(1.0))
        return bool(events) and type(events[-1]) in END_STATES

    wait_for(has_ended)
    return events


@pytest.mark.long
def test_workers_of_a_cluster_map_the_files_themselves(
    image_folder: dict[str, Any], make_sweep: Callable[..., Sweep], tmp_path: Path
) -> None:
    data = {**image_folder, "cache": "disk", "cache_folder": str(tmp_path / "cache")}
    trials = expand(make_sweep(**SECTIONS, data=data, floors=["raw_pixels"]))
    datasets = load_datasets(trials)
    executor = RayExecutor(datasets, shares=[ResourceRequest(cpus=0.5)], max_slots=1)
    try:
        reference = ray.put(next(iter(datasets.values())))
        received = ray.get(reference)
        assert isinstance(received.train.images, np.memmap)
        trial = trials[-1]
        job = Job(trial.trial_id, 1, trial.label, trial.config)
        started, *_, finished = events_of(executor, job)
        assert isinstance(started, Started)
        assert isinstance(finished, Finished)
        assert finished.metrics["knn_top1"] == 100.0
        # As on a machine that does not see the cache: the next worker does not find it.
        shutil.rmtree(tmp_path / "cache")
        os.kill(int(started.worker.rpartition(":")[2]), signal.SIGKILL)
        errors = [events_of(executor, job)[-1] for _ in range(2)]
        assert isinstance(errors[0], Failed)
        assert errors[0].error.startswith("the worker was lost: ")
        assert isinstance(errors[1], Failed)
        place = f"{tmp_path}/cache/image_folder-32-"
        assert errors[1].error.startswith(f"DataError: cannot open the decoded images '{place}")
        assert errors[1].error.endswith("data.cache_folder must be the same folder on every machine that runs trials")
    finally:
        executor.close()


@pytest.mark.parametrize("place", ["data", "probes.knn.data"])
@pytest.mark.parametrize("command", ["plan", "run"])
def test_a_package_that_is_missing_is_told_of_before_anything_is_done(
    command: str, place: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("specvit.data.base.find_spec", lambda _: None)
    source = f"{{source: hugging_face, path: {tmp_path}, image_size: 32}}"
    code, out, err = run(command, {"source": "scenes"}, "--set", f"{place}={source}")
    assert code == 2
    assert err == (
        "specsweep: data.source 'hugging_face' needs the package 'datasets', which is not installed: "
        'pip install "specsweep[huggingface]"\n'
    )
    assert out == ""
    assert not (tmp_path / "results").exists()


def test_a_package_that_is_missing_is_told_of_before_another_source_is_read(
    make_sweep: Callable[..., Sweep], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(_: Scenes) -> None:
        raise AssertionError("read before the check")

    sweep = make_sweep(**SECTIONS)
    monkeypatch.setattr("specvit.data.base.find_spec", lambda _: None)
    monkeypatch.setattr(Scenes, "load", refuse)
    trials = expand(sweep)
    other = replace(trials[-1], config=replace(trials[-1].config, data=HuggingFace(path=str(tmp_path))))
    with pytest.raises(DataError, match="needs the package"):
        load_datasets([*trials, other])


def test_a_corrupt_image_is_one_message_and_leaves_no_results(
    webdataset: dict[str, Any], run: Run, tmp_path: Path
) -> None:
    content = encoded("val", 0)
    with tarfile.open(tmp_path / "val-000001.tar", "w") as tar:
        for name, part in (("x.png", content[:400]), ("x.cls", b"0")):
            info = tarfile.TarInfo(name)
            info.size = len(part)
            tar.addfile(info, io.BytesIO(part))
    code, _, err = run("run", webdataset, "--executor", "local")
    assert code == 2
    assert err.startswith(f"specsweep: cannot read the image '{tmp_path}/val-000001.tar: x.png': ")
    assert not (tmp_path / "results").exists()


def test_a_long_load_says_how_far_it_is(
    image_folder: dict[str, Any], make_sweep: Callable[..., Sweep], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("specvit.data.reading.progress.INTERVAL_S", 0.0)
    console = Console(file=io.StringIO(), width=200)
    load_data(console, expand(make_sweep(**SECTIONS, data=image_folder)))
    assert isinstance(console.file, io.StringIO)
    assert "data: read 64 of 64 images of train, " in console.file.getvalue()
    logger = logging.getLogger("specvit.data")
    assert (logger.handlers, logger.level) == ([], logging.NOTSET)


def test_where_images_are_kept_is_no_part_of_a_trial(make_sweep: Callable[..., Sweep]) -> None:
    def id_of(**fields: str) -> str:
        data = {"source": "image_folder", "root": "/x", **fields}
        return trial_id(expand(make_sweep(data=data))[0].config)

    assert id_of() == id_of(cache="disk") == id_of(cache="disk", cache_folder="/scratch")
