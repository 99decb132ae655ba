from __future__ import annotations

import dataclasses
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from orchestrator.ledger.registration import SweepInfo
from orchestrator.reports.ablation_table import build_tables
from orchestrator.reports.comparisons import Claims
from orchestrator.reports.rendering.html_table import render_html_page
from orchestrator.reports.rendering.latex_table import render_latex
from orchestrator.reports.rendering.latex_text import escape_latex
from orchestrator.reports.rendering.table_view import TableView, apply_view
from orchestrator.trials.records import TrialRecord

from ..table_records import DECIDED, INFO, METRICS, RECORDS, make_records

HOSTILE = "a_b@50%\\input{x}#&$^~<>|\"`'{[é↑±→⅓]中\x1b\n-- %"


def latex(records: list[TrialRecord], info: SweepInfo = INFO, claims: Claims | None = None) -> str:
    return render_latex(build_tables(records, METRICS, claims), info)


def hostile() -> str:
    info = dataclasses.replace(INFO, name=HOSTILE, question=HOSTILE)
    groups = (f"data.root={HOSTILE}", "data.root=b")
    records = [
        record
        for group in groups
        for record in (
            *make_records(HOSTILE, 0.0, 1.0, 2.0, role="baseline", group=group),
            *make_records(f"[{HOSTILE}", 0.0, None, None, error=HOSTILE, group=group),
            *make_records("norm@all", 0.0, None, 1.0, group=group),
        )
    ]
    return latex(records, info)


def cells_of(text: str) -> list[list[str]]:
    """Return the cells of every line of a table, those that span columns as often."""
    found = []
    for line in text.splitlines():
        if line.endswith(r"\\"):
            cells = re.split(r"(?<!\\)&", line.strip().removesuffix(r"\\"))
            found.append([cell.strip() for cell in cells for _ in range(_width(cell))])
    return found


def _width(cell: str) -> int:
    match = re.match(r" *\\multicolumn\{(\d+)\}", cell)
    return int(match[1]) if match else 1


def num_columns(text: str) -> int:
    (columns,) = re.findall(r"\\begin\{tabular\}\{(.*)\}$", text, re.MULTILINE)
    return len(re.findall(r"[lrS](?:\[[^]]*\])?(?= |$)", columns))


@pytest.mark.parametrize("text", [latex(RECORDS), latex(DECIDED), hostile()], ids=["all-rows", "decided", "hostile"])
def test_latex_is_well_formed_whatever_it_holds(text: str) -> None:
    code = "".join(line for line in text.splitlines(keepends=True) if not line.startswith("%"))
    bare = re.sub(r"\\[\\{}%&#$_]", "", code)
    depth = 0
    for character in bare:
        depth += {"{": 1, "}": -1}.get(character, 0)
        assert depth >= 0
    assert depth == 0
    assert bare.count("$") % 2 == 0
    assert "%" not in bare
    assert "#" not in bare
    opened: list[str] = []
    for what, name in re.findall(r"\\(begin|end)\{(\w+)\}", code):
        opened.append(name) if what == "begin" else None
        assert what == "begin" or opened.pop() == name
    assert opened == []
    for table in re.findall(r"\\begin\{table\}.*?\\end\{table\}", code, re.DOTALL):
        assert {len(cells) for cells in cells_of(table)} == {num_columns(table)}
        rows = cells_of(table.partition(r"\midrule")[2])
        assert [cells[0][:8] for cells in rows] == [r"\texttt{"] * len(rows)


def test_latex_rows_hold_numbers_as_siunitx_reads_them() -> None:
    text = latex(RECORDS)
    (row,) = (cells for cells in cells_of(text) if "norm@all" in cells[0])
    # 53.0, 55.1, 57.2 less 50, 51, 52.
    assert row[1:4] == ["54.1", r"{$\pm$\,} 1.1", "+3.1"]
    assert re.fullmatch(r"\[\$\+2\.\d\$, \$\+3\.\d\$\] \$\\dagger\$", row[4])
    assert r"S[table-format=2.1] @{}S[table-format=1.1, table-space-text-pre={$\pm$\,}]" in text
    assert r"S[table-format=+1.1, retain-explicit-plus, detect-weight]" in text
    assert row[-2:] == [r"+2.5\%", "3/3"]
    assert r"\multicolumn{4}{c}{kNN top-1 (\%) $\uparrow$}" in text


def test_latex_marks_what_was_pruned_or_failed() -> None:
    rows = {cells[0]: cells for cells in cells_of(latex(RECORDS))}
    pruned = rows[r"\texttt{norm+qkv+mlp@first-third}"]
    assert pruned[3:5] == ["{pruned}", ""]
    assert pruned[-1] == "2/3, 1 pruned"
    assert rows[r"\texttt{a\textbar{}b}"][-1] == "1/3, 2 failed"
    assert "Of 15 trials 1 pruned, 2 failed; pruned arms have no interval" in latex(RECORDS)
    assert "% failed: a|b seed 1: RuntimeError" in latex(RECORDS)


def test_latex_sets_what_is_better_or_worse_in_the_primary_metric_in_bold() -> None:
    (row,) = (cells for cells in cells_of(latex(DECIDED)) if "norm@all" in cells[0])
    assert row[3] == "+3.1"  # kNN: exploratory
    assert row[4] == r"[$+3.0$, $+3.2$] $\dagger$"
    assert row[-5:-2] == [r"\bfseries +3.1", r"\bfseries\boldmath [$+3.0$, $+3.2$]", r"\textbf{better}"]


def test_the_caption_states_seeds_method_primary_metric_and_smallest_effect() -> None:
    text = latex(DECIDED, claims=Claims(smallest_effects={"miou": 0.5}))
    (caption,) = re.findall(r"\\caption\{(.*)\}$", text, re.MULTILINE)
    assert caption.startswith(r"Which component gains? Mean $\pm$ sample standard deviation over 5 seeds; difference")
    assert "95\\% interval, simultaneous over 1 arm (Dunnett; seeds are blocks, one residual variance pooled" in caption
    assert "mIoU is primary (bold: better or worse); differences under 0.5 are equivalent; differences under" in caption
    assert r"\label{tab:components}" in text


def test_groups_are_tables_with_labels_of_their_own_and_a_view_is_told() -> None:
    records = [
        record
        for group in ("model.scale=nano", "model.scale=micro")
        for arm, role, by in (("none", "baseline", 0.0), ("a", "arm", 1.0), ("b", "arm", 2.0))
        for record in make_records(arm, by, by + 1.1, role=role, group=group)
    ]
    text = render_latex(apply_view(build_tables(records, METRICS), TableView(arms="b")), INFO)
    assert re.findall(r"\\label\{(.*)\}", text) == [
        "tab:components:model-scale-nano",
        "tab:components:model-scale-micro",
        "tab:components:across",
    ]
    assert text.count("Group: model.scale=nano.") == 1
    assert text.count(r"\texttt{a}") == 0  # nor below the tables
    assert text.count("2 arms compared, 1 shown: intervals and verdicts are those of all 2.") == 2


def test_effects_and_what_differs_across_groups_are_tables_of_their_own() -> None:
    by = {"none": 0.0, "norm@all": 3.0, "qkv@all": 0.1, "norm@all+qkv@all": 3.05}
    noise = (0.0, 0.12, -0.07, 0.04, 0.1)
    records = [
        record
        for group in ("g=1", "g=2")
        for place, (arm, offset) in enumerate(by.items())
        for record in make_records(
            arm, *(seed + offset + noise[(seed + place) % 5] for seed in range(5)),
            role="baseline" if arm == "none" else "arm", group=group,
        )
    ]
    text = latex(records)
    labels = re.findall(r"\\label\{tab:components:(.*)\}", text)
    assert labels == ["g-1", "g-1:effects-1", "g-2", "g-2:effects-1", "across"]
    effects = re.findall(r"\\begin\{table\}.*?\\end\{table\}", text, re.DOTALL)[1]
    rows = {cells[0]: cells[3] for cells in cells_of(effects)}
    norm, qkv = r"\texttt{norm@all}", r"\texttt{qkv@all}"
    assert set(rows) == {"effect", norm, qkv, rf"{norm} $\times$ {qkv}"}
    assert re.fullmatch(r"\{\\bfseries\\boldmath \$\+3\.0\$ \[\$\+2\.\d\$, \$\+3\.\d\$\]\}, better", rows[norm])
    page = render_html_page(build_tables(records, METRICS), INFO)
    assert page.count('<table class="effects">') == 2
    assert page.count('<table class="across">') == 1
    assert page.count('<th scope="row"><code>norm@all x qkv@all</code></th>') == 2


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        (r"a_b@50% #1 & \x{y} $^~", r"a\_b@50\% \#1 \& \textbackslash{}x\{y\} \$\textasciicircum{}\textasciitilde{}"),
        ("x ↑ ↓ ± ⅓ λΩ", r"x $\uparrow$ $\downarrow$ $\pm$ $\frac{1}{3}$ $\lambda$$\Omega$"),
        ("<a|b>--c---", r"\textless{}a\textbar{}b\textgreater{}-{}-c-{}-{}-"),
        ("é ü ł ß ę 中 😀", "é ü ł ß [U+0119] [U+4E2D] [U+1F600]"),
        ("a\n\tb\x1b[1m", r"a b\textbackslash{}x1b[1m"),
    ],
)
def test_text_is_set_as_it_is(text: str, escaped: str) -> None:
    assert escape_latex(text) == escaped


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex")
def test_latex_compiles_whatever_it_holds(tmp_path: Path) -> None:
    text = latex(RECORDS) + latex(DECIDED) + hostile()
    packages = r"\documentclass{article}\usepackage{booktabs}\usepackage{siunitx}"
    (tmp_path / "a.tex").write_text(f"{packages}\\begin{{document}}\n{text}\\end{{document}}\n")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "a.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace", check=False)
    if "not found" in done.stdout:
        pytest.skip("pdflatex lacks siunitx or booktabs")
    assert done.returncode == 0, done.stdout
    assert (tmp_path / "a.pdf").is_file()
