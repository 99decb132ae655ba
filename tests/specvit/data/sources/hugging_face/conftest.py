"""A data set of the package ``datasets`` in the forms in which it is written."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from specvit.data import Dataset
from specvit.data.sources.image_folder import ImageFolder

from .small_images import COUNTS, NAMES, SIZE, encoded, mask_of


@pytest.fixture(scope="session")
def hf(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Import datasets with a cache of its own, and without the network."""
    datasets = pytest.importorskip("datasets")
    folder = tmp_path_factory.mktemp("huggingface")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", folder)
        patch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
        datasets.disable_progress_bars()
        yield datasets
        datasets.enable_progress_bars()


@pytest.fixture
def tables(hf: Any) -> Any:
    """Make a DatasetDict with the columns image, label, name, mask and weight."""
    features = hf.Features(
        image=hf.Image(), label=hf.ClassLabel(names=NAMES), name=hf.Value("string"), mask=hf.Image(),
        weight=hf.Value("float32"),
    )  # fmt: skip

    def table(split: str, count: int) -> Any:
        columns = {
            "image": [{"bytes": encoded(split, i), "path": None} for i in range(count)],
            "label": [i % 2 for i in range(count)],
            "name": [NAMES[i % 2] for i in range(count)],
            "mask": [{"bytes": mask_of(split, i), "path": None} for i in range(count)],
            "weight": [0.5] * count,
        }
        return hf.Dataset.from_dict(columns, features=features)

    return hf.DatasetDict({split: table(split, count) for split, count in COUNTS.items()})


@pytest.fixture
def saved(tables: Any, tmp_path: Path) -> Path:
    tables.save_to_disk(str(tmp_path / "saved"))
    return tmp_path / "saved"


@pytest.fixture
def parquet(tables: Any, tmp_path: Path) -> Path:
    folder = tmp_path / "parquet"
    folder.mkdir()
    for split, table in tables.items():
        table.to_parquet(str(folder / f"{split}-00000-of-00001.parquet"))
    return folder


@pytest.fixture
def image_folder(tmp_path: Path) -> Path:
    root = tmp_path / "images"
    for split, folder in (("train", "train"), ("validation", "val")):
        for number in range(COUNTS[split]):
            path = root / folder / NAMES[number % 2] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encoded(split, number))
    return root


@pytest.fixture
def expected(image_folder: Path) -> Dataset:
    """Return what our own image folder makes of the same files: sorted by class."""
    return ImageFolder(root=str(image_folder), image_size=SIZE).load()
