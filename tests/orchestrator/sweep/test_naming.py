from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.sweep.loading import load_sweep
from orchestrator.sweep.naming import MAX_LENGTH, changes_results, check_name, find_name, has_other_text, results_name
from orchestrator.sweep.yaml_reader import parse_document, write_document

TEXT = "# why\nobjective: {recipe: deit3_cpu, steps: 9}\nprobes: {knn: }\nseeds: 2\n"
NUMBERS = st.integers(-(2**63) + 1, 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
SCALARS = st.none() | st.booleans() | NUMBERS
KEYS = st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "Z"]), min_size=1)
VALUES = st.recursive(
    SCALARS | KEYS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3)
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(TEXT)
    return path


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        ([], "mine"),
        (["data.root=/images", "model.checkpoint=/w.safetensors", "probes.knn.data.root=/x"], "mine"),
        (["resources.gpus=1", "max_retries=0", "priority=[norm@all]", "keep_weights=true"], "mine"),
        (["objective.steps=2"], "mine-objective.steps-2"),
        (["data.root=/x", "objective.lr=1e-3", "seeds=[4, 5]"], "mine-objective.lr-1e-3-seeds-4-5"),
        (["objective.steps=2", "name=short"], "short"),
    ],
)
def test_overrides_that_change_results_are_part_of_the_name(overrides: list[str], name: str) -> None:
    given = "short" if "name=short" in overrides else None
    assert results_name(Path("sweeps/mine.yaml"), given, overrides) == name


def test_a_long_name_is_cut_and_stays_a_name_of_its_own() -> None:
    overrides = (f"vary.objective.lr=[{n * '1e-3, '}1]" for n in (20, 30))
    names = {results_name(Path("mine.yaml"), None, [text]) for text in overrides}
    assert len(names) == 2
    for name in names:
        assert len(name) == MAX_LENGTH
        check_name(name)


def test_the_text_that_is_kept_holds_what_was_set_and_reads_back_as_the_same_sweep(file: Path, tmp_path: Path) -> None:
    assert load_sweep(file).text == load_sweep(file, ["resources.cpus=1"]).text == TEXT
    changes = ["objective.lr=1e-5", "ablate.components=[qkv]", "ablate.blocks=['1:2']"]
    sweep = load_sweep(file, [*changes, "resources.cpus=1"])
    assert sweep.text.startswith(f"# mine.yaml with {', '.join(changes)}\n")
    assert "cpus" not in sweep.text  # it changes no number
    again = tmp_path / "again.yaml"
    again.write_text(sweep.text)
    assert load_sweep(again).groups == sweep.groups
    assert load_sweep(again).file.ablate == sweep.file.ablate


@given(st.dictionaries(KEYS, VALUES, max_size=4))
def test_a_mapping_that_is_written_reads_back(value: dict[str, object]) -> None:
    assert parse_document(write_document(value) if value else "{}", name="x").value == value


@pytest.mark.parametrize("text", ["objective: [", "seeds: 1\n", "name: 3\nprobes: 1\n", "name: mine\nunknown: 1\n", ""])
def test_the_results_of_a_broken_file_are_found_by_its_name(file: Path, text: str) -> None:
    file.write_text(text)
    assert find_name(file) == "mine"
    assert has_other_text(file, (), TEXT)


def test_another_text_is_told_by_what_it_holds_once_set(file: Path) -> None:
    sweep = load_sweep(file, ["objective.steps=4"])
    assert not has_other_text(file, ["objective.steps=4", "resources.cpus=2"], sweep.text)
    assert has_other_text(file, [], sweep.text)


def test_fields_that_change_no_number_are_those_of_the_file() -> None:
    assert changes_results("data.seed=1")
    assert not changes_results("time_budget_h=3")
