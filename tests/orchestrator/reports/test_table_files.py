from __future__ import annotations

import csv
import dataclasses
import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from orchestrator.ledger.registration import SweepInfo
from orchestrator.reports.ablation_table import build_tables
from orchestrator.reports.table_files import render_csv, render_json, render_markdown, render_rich, write_tables
from orchestrator.trials.records import State, TrialRecord
from orchestrator.trials.trial import Role, TrialInfo
from specvit.errors import SpecsweepError

METRICS = ("knn_top1", "linear_top1", "miou")
INFO = SweepInfo("components", "Which component gains?", "", METRICS, (0, 1, 2))


def make_records(
    arm: str, *offsets: float | None, role: str = "arm", group: str = "", error: str | None = None
) -> list[TrialRecord]:
    """Make a done trial per offset from (50, 60, 30); None = it failed with ``error``, or was pruned."""
    records = []
    for seed, offset in enumerate(offsets):
        state = State.DONE if offset is not None else State.FAILED if error else State.PRUNED
        base = dict(zip(METRICS, (50.0, 60.0, 30.0), strict=True))
        records.append(
            TrialRecord(
                TrialInfo(
                    trial_id=f"{group}{arm}{seed}",
                    group_id=group,
                    arm_id=f"{group}{arm}",
                    group=group,
                    arm=arm,
                    role=Role(role),
                    label=f"{arm} seed {seed}",
                    seed=seed,
                    num_parameters=1000,
                    extra_parameters_percent=2.5,
                ),
                state=state,
                metrics={} if offset is None else {name: value + offset for name, value in base.items()},
                seconds=None if offset is None else 40.0,
                error=error if state is State.FAILED else None,
            )
        )
    return records


RECORDS = [
    *make_records("none", 0.0, 1.0, 2.0, role="baseline"),
    *make_records("norm@all", 3.0, 4.1, 5.2),
    *make_records("norm@first-third+qkv@first-third+mlp@first-third", 0.0, 2.0, None),
    *make_records("a|b", 0.0, None, None, error="RuntimeError: [red]x[/red] | `y`\nsecond line"),
    *make_records("random init", -9.0, -8.0, -7.0, role="floor"),
]


def to_text(records: list[TrialRecord], width: int = 120) -> str:
    console = Console(width=width, file=io.StringIO(), record=True)
    console.print(render_rich(build_tables(records, METRICS), INFO))
    return console.export_text()


@pytest.fixture
def markdown() -> str:
    return render_markdown(build_tables(RECORDS, METRICS), INFO)


def cells_of(line: str) -> list[str]:
    return [cell.strip().replace("\0", r"\|") for cell in line.replace(r"\|", "\0").strip("|\n ").split("|")]


def test_markdown_has_one_row_per_arm_with_as_many_cells_as_the_header(markdown: str) -> None:
    lines = [cells_of(line) for line in markdown.splitlines() if line.startswith("|")]
    assert {len(cells) for cells in lines} == {10}
    assert [cells[0] for cells in lines[2:]] == [
        "`none` (baseline)",
        "`norm@all`",
        "`norm@first-third+qkv@first-third+mlp@first-third`",
        r"`a\|b`",
        "`random init` (floor)",
    ]


def test_markdown_row_shows_mean_difference_parameters_states_and_seconds(markdown: str) -> None:
    (line,) = (line for line in markdown.splitlines() if line.startswith("| `norm@all`"))
    # Differences 3.0, 3.1, 3.2: mean 3.1, sd 0.1, half width 4.303 * 0.1 / sqrt(3) = 0.248.
    assert cells_of(line)[1:3] == ["54.1 ± 1.1", "**+3.1 [+2.9, +3.3]**"]
    assert cells_of(line)[-3:] == ["+2.5%", "3/3", "40.0"]


def test_markdown_does_not_set_an_interval_with_zero_in_bold(markdown: str) -> None:
    (line,) = (line for line in markdown.splitlines() if "qkv@first-third" in line)
    assert cells_of(line)[2].startswith("+0.5 [")
    assert cells_of(line)[-2] == "2/3, 1 pruned"


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


def test_terminal_table_shows_control_characters_and_markup_as_text() -> None:
    records = make_records("[b]\x1b[2J", 1.0, None, role="baseline", error="no \x1b]0;x\x07 [/b]", group="g\x9b")
    text = to_text(records)
    assert r"[b]\x1b[2J (baseline)" in text
    assert r"failed: [b]\x1b[2J seed 1: no \x1b]0;x\x07 [/b]" in text
    assert r"g\x9b" in text
    assert not set(text) & set("\x1b\x07\x9b")


def test_csv_keeps_texts_as_they_are() -> None:
    records = make_records("=1+1", 1.0, role="baseline")
    rows = list(csv.reader(io.StringIO(render_csv(build_tables(records, METRICS), INFO))))
    assert rows[1][rows[0].index("arm")] == "=1+1"


def test_markdown_has_a_section_with_its_notes_for_every_group() -> None:
    records = [*make_records("none", 0.0, role="baseline", group="model.scale=nano")]
    records += make_records("none", 0.0, role="baseline", group="model.scale=micro")
    markdown = render_markdown(build_tables(records, METRICS), INFO)
    assert [line for line in markdown.splitlines() if line.startswith("## ")] == [
        "## model.scale=nano",
        "## model.scale=micro",
    ]
    assert markdown.count("not known to predict") == 2


@pytest.mark.parametrize("width", [80, 100, 120])
def test_terminal_table_fits_its_width_and_cuts_no_cell(width: int) -> None:
    text = to_text(RECORDS, width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    assert text.count("+3.1 [+2.9, +3.3]") == len(METRICS)


def test_terminal_table_shows_three_metrics_side_by_side_in_120_columns() -> None:
    (header,) = (line for line in to_text(RECORDS).splitlines() if "kNN top-1" in line)
    assert "linear top-1" in header
    assert "mIoU" in header


def test_terminal_table_breaks_long_arms_at_plus_signs() -> None:
    lines = [line.split("  ")[0].strip() for line in to_text(RECORDS).splitlines()]
    start = lines.index("norm@first-third")
    assert lines[start : start + 3] == ["norm@first-third", "+qkv@first-third", "+mlp@first-third"]


def test_terminal_table_takes_text_that_looks_like_markup_for_text() -> None:
    assert "failed: a|b seed 1: RuntimeError: [red]x[/red] | `y` second line" in to_text(RECORDS)


def test_terminal_table_shows_failed_seeds_in_red_and_clear_differences_in_bold() -> None:
    console = Console(width=120, file=io.StringIO(), force_terminal=True, color_system="standard")
    console.print(render_rich(build_tables(RECORDS, METRICS), INFO))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "\x1b[31m2 failed\x1b[0m" in text.replace(" \x1b", "\x1b").replace("\x1b[31m ", "\x1b[31m")
    assert "\x1b[1m+3.1 [+2.9, +3.3]\x1b[0m" in text


def test_terminal_table_of_trials_that_all_wait_has_a_row_per_arm() -> None:
    waiting = [TrialRecord(**{**vars(record), "state": State.WAITING, "metrics": {}}) for record in RECORDS]
    text = to_text(waiting)
    assert text.count("3 to do") == 5
    assert "15 of 15 trials" in text


def test_csv_has_the_group_first_and_numbers_in_full_precision() -> None:
    tables = build_tables(RECORDS, METRICS)
    rows = list(csv.DictReader(io.StringIO(render_csv(tables, INFO))))
    assert list(rows[0])[:3] == ["group", "arm", "role"]
    assert [row["arm"] for row in rows] == tables[""]["arm"].tolist()
    assert float(rows[1]["knn_top1_diff"]) == tables[""]["knn_top1_diff"][1]
    assert (rows[0]["knn_top1_diff"], rows[0]["knn_top1_n"]) == ("", "3")
    assert "group" not in tables[""].columns


def test_csv_quotes_what_needs_it() -> None:
    records = make_records('a,"b"', 1.0, role="baseline", group="x,y")
    (row,) = csv.DictReader(io.StringIO(render_csv(build_tables(records, METRICS), INFO)))
    assert (row["group"], row["arm"]) == ("x,y", 'a,"b"')


def test_json_has_rows_metrics_and_failures_with_null_for_what_is_missing() -> None:
    document = json.loads(render_json(build_tables(RECORDS, METRICS), INFO))
    (table,) = document["tables"]
    assert document["sweep"] == "components"
    assert document["metrics"][0] == {
        "name": "knn_top1",
        "title": "kNN top-1",
        "unit": "%",
        "higher_is_better": True,
    }
    assert table["rows"][0]["knn_top1_diff"] is None
    assert table["rows"][1]["knn_top1_diff"] == pytest.approx(3.1)
    assert [failure["trial"] for failure in table["failures"]] == ["a|b seed 1", "a|b seed 2"]


def test_a_metric_in_metres_has_its_unit_its_arrow_and_a_bold_difference_whichever_way_it_goes() -> None:
    name, records = "depth_rmse", []
    for arm, role, offset in (("none", "baseline", 0.0), ("norm@all", "arm", -0.05), ("qkv@all", "arm", 0.05)):
        for record in make_records(arm, 0.0, 0.0, 0.0, role=role):
            value = 1.0 + offset + 0.001 * record.trial.seed * (arm != "none")
            records.append(dataclasses.replace(record, metrics={name: value}))
    tables = build_tables(records, [name])
    text = render_markdown(tables, INFO)
    header, _, baseline, better, worse = (cells_of(line) for line in text.splitlines() if line.startswith("|"))
    assert header[1:3] == ["depth RMSE (m) ↓", "difference"]
    assert baseline[1:3] == ["1.000 ± 0.000", ""]
    # Mean of -0.050, -0.049, -0.048; its t interval is 4.303 * 0.001 / sqrt(3) = 0.0025 to either side.
    assert better[1:3] == ["0.951 ± 0.001", "**-0.049 [-0.051, -0.047]**"]
    assert worse[1:3] == ["1.051 ± 0.001", "**+0.051 [+0.049, +0.053]**"]
    (known,) = json.loads(render_json(tables, INFO))["metrics"]
    assert known == {"name": name, "title": "depth RMSE", "unit": "m", "higher_is_better": False}


def test_sweep_without_trials_is_rendered_in_every_format() -> None:
    assert render_markdown({}, INFO) == "# components\n\nWhich component gains?\n"
    assert render_csv({}, INFO) == ""
    assert json.loads(render_json({}, INFO))["tables"] == []


def test_tables_are_written_as_markdown_and_csv_and_leave_no_other_file(tmp_path: Path, markdown: str) -> None:
    folder = tmp_path / "results" / "components"
    for _ in range(2):
        paths = write_tables(folder, RECORDS, INFO)
    assert paths == (folder / "table.md", folder / "table.csv")
    assert paths[0].read_text() == markdown
    assert paths[1].read_text() == render_csv(build_tables(RECORDS, METRICS), INFO)
    assert sorted(path.name for path in folder.iterdir()) == ["table.csv", "table.md"]


def test_table_that_cannot_be_replaced_leaves_the_old_one_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tables(tmp_path, RECORDS[:3], INFO)
    old = (tmp_path / "table.md").read_text()

    def refuse(self: Path, target: Path) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(SpecsweepError, match=r"table\.md.*disk full"):
        write_tables(tmp_path, RECORDS, INFO)
    assert (tmp_path / "table.md").read_text() == old
    assert sorted(path.name for path in tmp_path.iterdir()) == ["table.csv", "table.md"]
