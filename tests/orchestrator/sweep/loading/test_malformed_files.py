"""How every mistake in a sweep file is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.sweep.loading import load_sweep
from orchestrator.sweep.problems import SweepFileError

from .malformed_texts import MALFORMED
from .sweep_texts import MINIMAL, Load, changed, message_of


@pytest.mark.parametrize("case", MALFORMED)
def test_load_sweep_malformed_file_names_line_field_and_rule(load: Load, case: str) -> None:
    text, line, *words = MALFORMED[case]
    told = message_of(load, text)
    assert told.startswith(f"x.yaml:{line}: ")
    assert "\n" not in told
    for word in words:
        assert word in told
    for jargon in ("pydantic", "Input should", "http", "Value error", "NoneType", "tuple", "dataclass"):
        assert jargon not in told


def test_load_sweep_objective_absent_is_required(load: Load) -> None:
    assert message_of(load, "probes: {knn: }\n") == "x.yaml:1: objective: is required"


def test_load_sweep_stem_that_is_no_name_asks_for_one(load: Load) -> None:
    told = message_of(load, MINIMAL, name="my sweep.yaml")
    assert told.startswith("my sweep.yaml:1: name: must be at most 100 letters")


def test_load_sweep_several_problems_lists_each_once_in_order(load: Load) -> None:
    text = changed("steps: 150", "steps: 0").replace("seeds: [0", "seeds: [-2").replace("name: comp", "nam: comp")
    told = message_of(load, text)
    assert [line.split(":")[1] for line in told.splitlines()] == ["1", "7", "13"]


def test_load_sweep_part_missing_from_every_kind_stands_at_its_own_field(load: Load) -> None:
    text = changed("model.scale: [nano, micro]", "objective.recipe: [dinov2_cpu, dinov2]").replace("  steps:", "  stepz:")  # noqa: E501
    assert message_of(load, text).startswith("x.yaml:7: objective.stepz: unknown field")


def test_a_placebo_is_refused_with_a_recipe_that_drops_patches(tmp_path: Path) -> None:
    path = tmp_path / "mae.yaml"
    path.write_text(
        "objective: {recipe: mae_cpu}\nprobes: {knn: {}}\n"
        "ablate:\n  specialize: [norm@all]\n  tokens: [cls, placebo]\n"
    )
    with pytest.raises(SweepFileError, match=r"mae\.yaml:5: ablate\.tokens.*'placebo' with recipe 'mae_cpu'"):
        load_sweep(path)
