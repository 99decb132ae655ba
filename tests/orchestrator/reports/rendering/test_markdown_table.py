from __future__ import annotations

import dataclasses
import json

import pytest

from orchestrator.reports.ablation_table import build_tables
from orchestrator.reports.rendering.markdown_table import render_markdown
from orchestrator.reports.result_files import render_json

from ..table_records import DECIDED, INFO, METRICS, RECORDS, make_records, with_costs


@pytest.fixture
def markdown() -> str:
    return render_markdown(build_tables(RECORDS, METRICS), INFO)


def cells_of(line: str) -> list[str]:
    return [cell.strip().replace("\0", r"\|") for cell in line.replace(r"\|", "\0").strip("|\n ").split("|")]


def test_markdown_has_one_row_per_arm_with_as_many_cells_as_the_header(markdown: str) -> None:
    lines = [cells_of(line) for line in markdown.splitlines() if line.startswith("|")]
    assert {len(cells) for cells in lines} == {13}
    assert [cells[0] for cells in lines[2:]] == [
        "`none` (baseline)",
        "`norm@all`",
        "`norm@first-third+qkv@first-third+mlp@first-third`",
        r"`a\|b`",
        "`random init` (floor)",
    ]


def test_markdown_row_shows_mean_difference_parameters_states_and_seconds(markdown: str) -> None:
    (line,) = (line for line in markdown.splitlines() if line.startswith("| `norm@all`"))
    # With three seeds there is an interval, but no verdict.
    assert cells_of(line)[1] == "54.1 ± 1.1"
    assert cells_of(line)[2].startswith("+3.1 [+")
    assert "**" not in line
    assert cells_of(line)[-6:] == ["+2.5%", "3/3", "40.0", "-", "-", "-"]
    assert "Training:" not in markdown


def test_markdown_says_the_verdict_of_the_primary_metric_in_its_cell_and_in_a_sentence() -> None:
    text = render_markdown(build_tables(DECIDED, METRICS), INFO)
    (line,) = (line for line in text.splitlines() if line.startswith("| `norm@all`"))
    assert cells_of(line)[2] == cells_of(line)[4] == "+3.1 [+3.0, +3.2] †"
    assert cells_of(line)[6] == "**+3.1 [+3.0, +3.2]**, better"
    assert r"\nmIoU is better with norm@all: +3.1 \[+3.0, +3.2\] (1 arm, 5 seeds).".replace("\\n", "\n") in text


@pytest.mark.parametrize(("gpu", "memory"), [(None, "0.76"), (12.5, "12.50 GPU")])
def test_markdown_row_shows_what_the_training_took(gpu: float | None, memory: str) -> None:
    text = render_markdown(build_tables(with_costs(RECORDS, gpu=gpu), METRICS), INFO)
    lines = {cells_of(line)[0]: cells_of(line)[-3:] for line in text.splitlines() if line.startswith("|")}
    assert lines["arm"] == ["training (s)", "images/s", "peak memory (GiB)"]
    assert lines["`norm@all`"] == ["30.2", "1,234", memory]
    assert lines["`random init` (floor)"] == ["-", "-", "-"]
    assert "- Training: wall time, images per second and most memory of its steps alone" in text


def test_markdown_gives_a_pruned_arm_no_interval(markdown: str) -> None:
    (line,) = (line for line in markdown.splitlines() if "qkv@first-third" in line)
    assert cells_of(line)[2] == "pruned"
    assert cells_of(line)[-5] == "2/3, 1 pruned"


def test_markdown_lists_failures_with_their_error_in_one_line(markdown: str) -> None:
    assert "- `a|b seed 1`: `RuntimeError: [red]x[/red] | 'y' second line`\n" in markdown
    assert "1/3, 2 failed" in markdown


def test_markdown_takes_no_html_links_or_code_from_names_and_questions() -> None:
    info = dataclasses.replace(INFO, name="<b>x", question="Is `a` < [b](http://c) *or* ![d](e)?")
    records = make_records("none", 0.0, role="baseline", group="data.root=<script>`|`")
    lines = render_markdown(build_tables(records, METRICS), info).splitlines()
    assert lines[0] == "# &lt;b&gt;x"
    assert lines[2] == r"Is \`a\` &lt; \[b\](http://c) \*or\* !\[d\](e)?"
    assert r"## data.root=&lt;script&gt;\`|\`" in lines


def test_markdown_table_keeps_its_cells_whatever_an_arm_is_called() -> None:
    arm = "a|`<img src=x>`\x1b[31m\n"
    (line,) = (
        line
        for line in render_markdown(build_tables(make_records(arm, 1.0, role="baseline"), METRICS), INFO).splitlines()
        if "img" in line
    )
    assert cells_of(line)[0] == r"`a\|'<img src=x>'\x1b[31m` (baseline)"


def test_markdown_has_a_section_with_its_notes_for_every_group() -> None:
    records = [*make_records("none", 0.0, role="baseline", group="model.scale=nano")]
    records += make_records("none", 0.0, role="baseline", group="model.scale=micro")
    markdown = render_markdown(build_tables(records, METRICS), INFO)
    assert [line for line in markdown.splitlines() if line.startswith("## ")] == [
        "## model.scale=nano",
        "## model.scale=micro",
    ]
    assert markdown.count("not known to predict") == 2


def test_a_metric_in_metres_has_its_unit_its_arrow_and_a_bold_difference_whichever_way_it_goes() -> None:
    name, records = "depth_rmse", []
    for arm, role, offset in (("none", "baseline", 0.0), ("norm@all", "arm", -0.05), ("qkv@all", "arm", 0.05)):
        for record in make_records(arm, *[0.0] * 5, role=role):
            value = 1.0 + offset + 0.001 * record.trial.seed * (arm != "none")
            records.append(dataclasses.replace(record, metrics={name: value}))
    tables = build_tables(records, [name])
    text = render_markdown(tables, INFO)
    header, _, baseline, better, worse = (cells_of(line) for line in text.splitlines() if line.startswith("|"))
    assert header[1:3] == ["depth RMSE (m) ↓", "difference"]
    assert baseline[1:3] == ["1.000 ± 0.000", ""]
    # Means of -0.050, -0.049, .., -0.046 and of 0.050, .., 0.054.
    for cells, mean, difference, verdict in ((better, 0.952, "-0.048", "better"), (worse, 1.052, "+0.052", "worse")):
        assert cells[1] == f"{mean} ± 0.002"
        assert cells[2].startswith(f"**{difference} [")
        assert cells[2].endswith(f"]**, {verdict}")
    (known,) = json.loads(render_json(tables, INFO))["metrics"]
    assert known == {"name": name, "title": "depth RMSE", "unit": "m", "higher_is_better": False}
