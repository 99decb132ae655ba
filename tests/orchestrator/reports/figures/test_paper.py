from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.font_manager import FontProperties

from orchestrator.reports.ablation_table import tables_of
from orchestrator.reports.drawing.axes import text_width
from orchestrator.reports.drawing.shapes import Label
from orchestrator.reports.figures.paper import FILE_NAME, LETTERS, figures_of, write_figures
from specvit.errors import SpecsweepError

from ..table_records import DECIDED, INFO, make_records
from .test_parameters import EXTRA
from .test_parameters import RECORDS as SIZED
from .test_training_curves import with_rungs


@pytest.mark.long
def test_figures_are_written_in_two_widths_as_svg_and_pdf_the_same_every_time(tmp_path: Path) -> None:
    records = [
        replace(each, trial=replace(each.trial, extra_parameters_percent=EXTRA.get(each.trial.arm, 0.0)))
        for each in with_rungs(SIZED, 1.0)
    ]
    tables = tables_of(records, INFO)
    written = write_figures(tmp_path, tables, records)
    names = [f"{name}{width}" for width in ("", "-column") for name in ("forest", "parameters", "curves")]
    assert [path.name for path in written] == [f"{name}.{kind}" for name in names for kind in ("svg", "pdf")]
    assert all(FILE_NAME.fullmatch(path.name) for path in written)
    widths = {path.name: ET.parse(path).getroot().get("width") for path in written if path.suffix == ".svg"}
    assert widths["forest.svg"] == "489.6pt"  # 6.8 inches of 72 points
    assert widths["forest-column.svg"] == "237.6pt"  # 3.3 inches
    before = [path.read_bytes() for path in written]
    assert [path.read_bytes() for path in write_figures(tmp_path, tables, records)] == before


def test_groups_have_figures_of_their_own_whatever_they_are_called() -> None:
    records = [
        replace(each, trial=replace(each.trial, group=group, group_id=group, arm_id=f"{group}{each.trial.arm}"))
        for group in ("model.scale=nano", "../../x y")
        for each in DECIDED
    ]
    assert [name for name, _ in figures_of(tables_of(records, INFO), records)] == [
        *("forest-1-model.scale=nano", "forest-1-model.scale=nano-column"),
        *("forest-2-x-y", "forest-2-x-y-column"),
    ]


@pytest.mark.parametrize(("family", "share"), [("DejaVu Sans", 1.0), ("STIXGeneral", LETTERS)])
@pytest.mark.parametrize(
    "text", ["norm@first-third+qkv@first-third+mlp@all", "+1.0 [-1.5, +3.4]", "undecided", "none = 59.5 ± 1.5"]
)
def test_a_text_is_about_as_wide_as_it_is_taken_for_and_no_wider(text: str, family: str, share: float) -> None:
    font = FontProperties(family=family, size=100)
    width, _, _ = RendererAgg(10, 10, 72).get_text_width_height_descent(text, font, False)
    assert 0.85 < width / 100 / (share * text_width(text)) <= 1.0


def test_in_the_width_of_a_page_names_of_arms_are_whole() -> None:
    arm = "norm@first-third+qkv@first-third+mlp@first-third"
    records = [*DECIDED, *make_records(arm, 0.0, 1.1, 2.2, 0.4, 1.6)]
    drawings = dict(figures_of(tables_of(records, INFO), records))
    labels = [item.text for item in drawings["forest"].items if isinstance(item, Label)]
    assert arm in labels


def test_a_folder_that_is_a_link_is_not_written_to(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "figures").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SpecsweepError, match="must not be a link"):
        write_figures(tmp_path, tables_of(DECIDED, INFO), DECIDED)
    assert list((tmp_path / "elsewhere").iterdir()) == []
