"""From records to tables, curves, figures and exports.

Front door: ``build_tables`` makes the tables, ``apply_view`` picks what of them is shown, ``render_rich``,
``render_markdown``, ``render_latex``, ``render_html``, ``render_csv`` and ``render_json`` show them, ``page`` is the
report, ``write_results`` writes all that a run leaves beside its ledger, ``write_studies`` exports to Optuna.
What must hold: the same records make the same files; nothing is written but by ``write_*``, nothing recorded; a
table counts what failed, was pruned or was left out. Pandas, matplotlib and optuna load only where they serve.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orchestrator.reports.ablation_table import AblationTable, build_tables
    from orchestrator.reports.optuna_export.studies import read_studies, write_studies
    from orchestrator.reports.rendering.html_table import render_html, render_html_page
    from orchestrator.reports.rendering.latex_table import render_latex
    from orchestrator.reports.rendering.markdown_table import render_markdown
    from orchestrator.reports.rendering.table_view import TableView, apply_view
    from orchestrator.reports.rendering.terminal_table import render_rich
    from orchestrator.reports.result_files import render_csv, render_json, write_results

__all__ = [
    "AblationTable",
    "TableView",
    "apply_view",
    "build_tables",
    "read_studies",
    "render_csv",
    "render_html",
    "render_html_page",
    "render_json",
    "render_latex",
    "render_markdown",
    "render_rich",
    "write_results",
    "write_studies",
]

_HOMES = {
    "AblationTable": "ablation_table",
    "TableView": "rendering.table_view",
    "apply_view": "rendering.table_view",
    "build_tables": "ablation_table",
    "read_studies": "optuna_export.studies",
    "render_csv": "result_files",
    "render_html": "rendering.html_table",
    "render_html_page": "rendering.html_table",
    "render_json": "result_files",
    "render_latex": "rendering.latex_table",
    "render_markdown": "rendering.markdown_table",
    "render_rich": "rendering.terminal_table",
    "write_results": "result_files",
    "write_studies": "optuna_export.studies",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
