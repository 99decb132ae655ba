"""The files that a run leaves beside its ledger: tables, curves, diagnostics, and where they came from.

What identifies a person's machine (host, user, paths) stays in the ledger; these files can be shared.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from orchestrator.ledger.provenance import Provenance
from orchestrator.ledger.registration import SweepInfo
from orchestrator.reports.ablation_table import AblationTable, ArmRow, MetricCell, tables_of
from orchestrator.reports.curves import write_curves
from orchestrator.reports.diagnostics.csv_file import write_diagnostics
from orchestrator.reports.environment import ENVIRONMENT_NAME, environment_of
from orchestrator.reports.interactions import compare_groups
from orchestrator.reports.page.page import PAGE_NAME, render_page
from orchestrator.reports.page.report import SweepReport
from orchestrator.reports.per_trial import metrics_csv, sweep_json, trials_csv
from orchestrator.reports.per_trial.sweep_data import SWEEP_COPY_NAME, SweepData
from orchestrator.reports.rendering import interaction_text
from orchestrator.reports.rendering.cell_text import external_note, failures_of
from orchestrator.reports.rendering.formatting import describe
from orchestrator.reports.rendering.markdown_table import render_markdown
from orchestrator.reports.rendering.table_view import view_notes
from orchestrator.reports.rendering.verdict_text import sentences_of
from orchestrator.reports.unlearnt import learning_note
from orchestrator.trials.computation import differences_text
from orchestrator.trials.records import TrialUsage
from specvit.diagnostics.measurement import Measurement
from specvit.files.atomic import write_atomically


def write_results(
    folder: Path,
    data: SweepData,
    *,
    diagnostics: Mapping[str, tuple[Measurement, ...]],
    provenance: Provenance,
    usage: Mapping[str, TrialUsage] | None = None,
) -> tuple[Path, ...]:
    """Write everything that follows from a sweep's trials, for a run beside its ledger or for a study.

    Args:
        folder: The folder of the sweep's results.
        data: The sweep and its trials.
        diagnostics: Trial id to its measurements, from ``Ledger.diagnostics``.
        provenance: Of the run that computed the newest trials.
        usage: Trial id to what all attempts at it took, from ``Ledger.usage``; None = not known.

    Returns:
        The paths of what was found across groups, curves, diagnostics, the trials and the report, as far as there is
        any.

    Raises:
        SpecsweepError: If a file cannot be written; the text names it.
    """
    report = SweepReport(data.info, data.records, environment_of(provenance), usage or {})
    _, _, *across = write_tables(folder, data, report.tables)
    write_atomically(folder / PAGE_NAME, render_page(report))
    written = (
        *across,
        *write_curves(folder, data.records),
        *write_diagnostics(folder, data.records, diagnostics),
        folder / trials_csv.CSV_NAME,
        folder / metrics_csv.CSV_NAME,
        folder / PAGE_NAME,
    )
    write_provenance(folder, data.info, provenance)
    return written


def write_tables(
    folder: Path, data: SweepData, known: Mapping[str, AblationTable] | None = None
) -> tuple[Path, ...]:
    """Write the tables and what they are made of (``table_texts``); a reader finds the old file or the new one.

    Args:
        folder: Where to write; made if it does not exist.
        data: The sweep and its trials.
        known: Its tables, if they are made already.

    Returns:
        The paths of the tables.

    Raises:
        SpecsweepError: If a file cannot be written; the text names it.
    """
    tables, texts = table_texts(data, known), trial_texts(data)
    if interaction_text.CSV_NAME not in tables:
        (folder / interaction_text.CSV_NAME).unlink(missing_ok=True)
    for name, text in (tables | texts).items():
        write_atomically(folder / name, text)
    return tuple(folder / name for name in tables)


def table_texts(data: SweepData, known: Mapping[str, AblationTable] | None = None) -> dict[str, str]:
    """Return the tables by the names of their files; of several groups, also what is found across them."""
    tables = tables_of(data.records, data.info) if known is None else known
    texts = {"table.md": render_markdown(tables, data.info), "table.csv": render_csv(tables, data.info)}
    if (across := compare_groups(tables)) is not None:
        texts[interaction_text.CSV_NAME] = interaction_text.render_interactions_csv(across)
    return texts


def trial_texts(data: SweepData) -> dict[str, str]:
    """Return what the tables are made of, by the names of the files, and its metrics in long form.

    See ``orchestrator.reports.per_trial``.
    """
    return {
        trials_csv.CSV_NAME: trials_csv.render_trials(data.records, data.info.metrics, data.training_ids),
        metrics_csv.CSV_NAME: metrics_csv.render_metrics(data.records, data.info.metrics),
        sweep_json.JSON_NAME: sweep_json.render_sweep(data.info),
    }


def render_csv(tables: Mapping[str, AblationTable], info: SweepInfo) -> str:  # noqa: ARG001
    """Return the numbers of all tables as one CSV, in full precision, with the group in the first column.

    Texts are data, and stay as they are: a spreadsheet that takes text beginning with ``=`` for a formula must be
    told to import them as text. Where a trial has recorded what it has learnt, the last columns are ``not_learnt``, the
    number of the arm's trials that have not, and ``not_learnt_note``, the table's sentence about them. Where an arm was
    computed otherwise than its baseline, the column ``mixed`` says in what.
    """
    rows = table_rows(tables)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else (), lineterminator="\n")
    if rows:
        writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def table_rows(tables: Mapping[str, AblationTable]) -> list[dict[str, object]]:
    """Return the rows of the CSV by column; None where a cell is empty."""
    judged, mixed = _are_judged(tables), _are_mixed(tables)
    rows = []
    for group, table in tables.items():
        note = {"not_learnt_note": learning_note(table.unlearnt)} if judged else {}
        for row in table.rows:
            of_row = note if row.not_learnt else dict.fromkeys(note)
            rows.append({"group": group, **_columns(row, table.metrics, judged=judged, mixed=mixed), **of_row})
    return rows


def render_json(tables: Mapping[str, AblationTable], info: SweepInfo) -> str:
    """Return the numbers of all tables as JSON; what is missing or not finite is null.

    Where a trial has recorded what it has learnt, rows have ``not_learnt``, the number of the arm's trials that have
    not, and tables ``not_learnt_note``, the sentence about them. ``mixed`` is as in the CSV. ``added_later`` names the
    metrics that were measured later, on kept weights; it is there where there are some. So are ``external_note`` of a
    table, the sentence about backbones from elsewhere, ``view``, what it shows where that is not all, and
    ``interactions``: what is found across groups. ``factorial`` of a table has the effects of components, where its
    arms are all combinations of some; ``comparison`` by which model and variance arms are compared, if not by the
    default.
    """
    across = compare_groups(tables)
    judged, mixed = _are_judged(tables), _are_mixed(tables)
    names = dict.fromkeys(name for table in tables.values() for name in table.metrics)
    added = list(dict.fromkeys(name for table in tables.values() for name in table.added_later))
    document = {
        "sweep": info.name,
        "question": info.question,
        "metrics": [vars(describe(name)) for name in names],
        **({"added_later": added} if added else {}),
        "tables": [
            {
                "group": group,
                "primary": table.primary or None,
                "smallest_effect": table.smallest_effect,
                **({} if table.declared.is_default else {"comparison": asdict(table.declared)}),
                "says": sentences_of(table),
                "could_have_seen": {name: each.detectable for name, each in table.comparisons.items()},
                "pairing": {
                    name: None if each.pairing is None else vars(each.pairing)
                    for name, each in table.comparisons.items()
                },
                "rows": [
                    {name: None if value in (math.inf, -math.inf) else value for name, value in cells.items()}
                    for cells in (_columns(row, table.metrics, judged=judged, mixed=mixed) for row in table.rows)
                ],
                "factorial": [asdict(reading) for reading in table.factorials],
                **({"view": notes} if (notes := view_notes(table)) else {}),
                **({"not_learnt_note": learning_note(table.unlearnt)} if judged else {}),
                **({"external_note": note} if (note := external_note(table)) is not None else {}),
                "failures": [{"trial": label, "error": error} for label, error in failures_of(table)],
            }
            for group, table in tables.items()
        ],
        **({} if across is None else {"interactions": interaction_text.to_json(across)}),
    }
    return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _are_judged(tables: Mapping[str, AblationTable]) -> bool:
    """Return whether some trial has recorded what it has learnt: older ones have not."""
    return any(row.not_learnt is not None for table in tables.values() for row in table.rows)


def _are_mixed(tables: Mapping[str, AblationTable]) -> bool:
    """Return whether some arm was computed otherwise than its baseline."""
    return any(row.mixed for table in tables.values() for row in table.rows)


def _columns(row: ArmRow, metrics: Sequence[str], *, judged: bool, mixed: bool) -> dict[str, object]:
    """Return the cells of a row by column; None where a cell is empty.

    Of each metric M there are ``M_mean``, ``M_sd``, ``M_n``; and against the baseline ``M_diff``, ``M_diff_low``,
    ``M_diff_high`` (95%, simultaneous over the arms), ``M_diff_n``, ``M_diff_p`` (adjusted for the arms); of
    exploratory metrics ``M_diff_q`` (Benjamini and Hochberg over all their cells), of the primary one ``M_verdict`` and
    ``M_more_seeds``, how many more seeds would decide an undecided arm.
    """
    fields = dict(vars(row))
    if not judged:
        del fields["not_learnt"]
    mixture = fields.pop("mixed")
    if mixed:
        fields["mixed"] = differences_text(mixture) or None
    cells: dict[str, object] = {"arm": fields.pop("arm"), "role": fields.pop("role")}
    del fields["metrics"]
    for name in metrics:
        cells |= {f"{name}_{part}": value for part, value in _parts(row.metrics[name]).items()}
    cells |= fields
    cells["is_no_op"] = bool(cells["is_no_op"]) or None
    return {name: None if value != value else value for name, value in cells.items()}


def _parts(cell: MetricCell) -> dict[str, object]:
    parts: dict[str, object] = {"mean": cell.mean, "sd": cell.sd, "n": cell.n}
    difference = cell.difference
    names = {"diff": "mean", "diff_low": "low", "diff_high": "high", "diff_n": "n", "diff_p": "p_value"}
    names |= {"diff_q": "q_value", "verdict": "verdict", "more_seeds": "more_seeds"}
    return parts | {
        column: None if difference is None else getattr(difference, name) for column, name in names.items()
    }


def write_provenance(folder: Path, info: SweepInfo, provenance: Provenance) -> None:
    """Write the sweep file's text and the environment of a run.

    Args:
        folder: The folder of the sweep's results.
        info: The sweep.
        provenance: Of the run that computed the newest trials.
    """
    write_atomically(folder / SWEEP_COPY_NAME, info.text)
    write_atomically(folder / ENVIRONMENT_NAME, render_environment(provenance))


def render_environment(provenance: Provenance) -> str:
    """Return the environment of a run as JSON, with the digests of the code that computes trials."""
    return json.dumps(environment_of(provenance), indent=2) + "\n"
