"""Finding a kept file by its arm and seed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from specvit.checkpoints import load_model, save_model
from specvit.errors import DataError
from specvit.files.checksum import sha256_of
from specvit.kept_weights import FOLDER_NAME, INDEX_NAME, IndexRow, find_file, render_index
from specvit.models.config import BACKBONE_OPTIONS, VitConfig
from specvit.models.scales import Scale
from specvit.models.vit import build_vit

ROW = IndexRow("", "none", 0, "student", "yes", "none-seed-0-1/student.safetensors", "0" * 64, "1" * 64)
ROWS = [
    ROW,
    replace(ROW, name="teacher", probed="no", path="none-seed-0-1/teacher.safetensors"),
    replace(ROW, seed=1, path="none-seed-1-2/student.safetensors"),
    replace(ROW, arm="=norm, 'all'", path="norm-seed-0-3/student.safetensors"),
]


@pytest.fixture
def results(tmp_path: Path) -> Path:
    (tmp_path / FOLDER_NAME).mkdir()
    (tmp_path / FOLDER_NAME / INDEX_NAME).write_text(render_index(ROWS))
    return tmp_path


def found(results: Path, **asked: object) -> str:
    path, _ = find_file(results, **({"arm": None, "seed": None, "group": None, "name": None} | asked))  # type: ignore[arg-type]
    return str(path.relative_to(results / FOLDER_NAME))


def test_the_probed_backbone_is_found_by_arm_and_seed_and_another_one_by_its_name(results: Path) -> None:
    assert found(results, arm="none", seed=0) == "none-seed-0-1/student.safetensors"
    assert found(results, arm="none", seed=0, name="teacher") == "none-seed-0-1/teacher.safetensors"
    assert found(results, arm="=norm, 'all'") == "norm-seed-0-3/student.safetensors"


def test_where_not_one_file_is_meant_the_message_says_what_there_is(results: Path) -> None:
    with pytest.raises(DataError, match=r"has 2 files with arm='none', not one; there are arm: 'none'; seed: '0', '1'"):
        found(results, arm="none")
    with pytest.raises(DataError, match=r"has 0 files with seed='7', not one; there are arm: .*; seed: '0', '1'"):
        found(results, seed=7)
    (results / FOLDER_NAME / INDEX_NAME).unlink()
    with pytest.raises(DataError, match=f"keeps no weights: there is no {FOLDER_NAME}/{INDEX_NAME}"):
        found(results)


@pytest.mark.parametrize("path", ["../secret.safetensors", "/etc/passwd", ""])
def test_an_index_from_elsewhere_names_no_file_outside(results: Path, path: str) -> None:
    (results / FOLDER_NAME / INDEX_NAME).write_text(render_index([replace(ROW, path=path)]))
    with pytest.raises(DataError, match="names a file outside of its folder"):
        found(results)


def test_a_model_is_loaded_from_the_folder_of_results_if_it_is_the_one_that_was_kept(tmp_path: Path) -> None:
    config = VitConfig(Scale(width=16, depth=1, num_heads=2), image_size=8, patch_size=4, options=BACKBONE_OPTIONS)
    model = build_vit(config, seed=3)
    folder = tmp_path / FOLDER_NAME / "a"
    folder.mkdir(parents=True)
    save_model(model, folder / "backbone.safetensors")
    row = replace(ROW, path="a/backbone.safetensors", sha256=sha256_of(folder / "backbone.safetensors"))
    index = tmp_path / FOLDER_NAME / INDEX_NAME
    index.write_text(render_index([row]))
    loaded = load_model(tmp_path, arm="none", seed=0)
    assert all((value == loaded.state_dict()[name]).all() for name, value in model.state_dict().items())
    index.write_text(render_index([replace(row, sha256="0" * 64)]))
    with pytest.raises(DataError, match="is not the file that was kept"):
        load_model(tmp_path)
    with pytest.raises(DataError, match="no folder of results"):
        load_model(folder / "backbone.safetensors", arm="none")
