"""What ``load`` gives to a notebook: a sweep's trials, metrics, curves, tables and verdicts as data frames.

Pandas is imported where a frame is made, and nowhere below this file's floor for its sake.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.ledger.ledger import LEDGER_NAME, Ledger
from orchestrator.ledger.registration import SweepInfo
from orchestrator.reports.ablation_table import AblationTable, tables_of
from orchestrator.reports.curves import build_curves
from orchestrator.reports.per_trial import metrics_csv, trials_csv
from orchestrator.reports.per_trial.sweep_data import SweepData
from orchestrator.reports.rendering.html_table import render_html
from orchestrator.reports.rendering.verdict_text import sentences_of
from orchestrator.reports.result_files import table_rows
from orchestrator.storage.remote_folder import is_url
from orchestrator.storage.results_folder import has_mirror
from orchestrator.storage.views import local_view
from specvit.errors import SpecsweepError
from specvit.messages import one_line

if TYPE_CHECKING:
    import pandas as pd

VERDICT_COLUMNS = (
    *("group", "arm", "role", "metric", "is_primary", "n", "difference", "low", "high", "p", "q", "verdict"),
    "more_seeds",
)
"""Columns of ``SweepResults.verdicts``."""

_TEXT_ENDINGS = ("group", "arm", "role", "_verdict", "_note", "mixed", "is_no_op")
"""Of columns of ``SweepResults.tables`` that hold no numbers."""


class SweepResults:
    """A sweep as it stood when it was loaded; every frame is made when it is first asked for, and kept.

    In a notebook it shows its question, its verdicts and its tables.
    """

    def __init__(self, data: SweepData) -> None:
        """Take a sweep.

        Args:
            data: The sweep and its trials.
        """
        self._data = data

    @property
    def sweep(self) -> SweepInfo:
        """Return the sweep: its name, question, text, metrics, seeds and what it claims."""
        return self._data.info

    @property
    def question(self) -> str:
        """Return what the sweep asks."""
        return self._data.info.question

    @cached_property
    def trials(self) -> pd.DataFrame:
        """Return a row a trial, in the order of the sweep, with the columns of ``trials.csv``.

        ``seed``, ``attempts``, ``step`` and ``num_parameters`` are int64, ``steps`` is Int64; metrics, seconds, GiB and
        percents are float64, NaN where there is none. ``versions`` and ``code`` are JSON objects as text.
        """
        import pandas as pd

        info, texts = self._data.info, trials_csv.TEXT_COLUMNS
        header, rows = trials_csv.trial_rows(self._data.records, info.metrics, self._data.training_ids)
        frame = pd.DataFrame(rows, columns=header)
        whole = trials_csv.INTEGER_COLUMNS
        types = {name: "float64" for name in header if name not in (*texts, *whole)}
        types |= {name: "Int64" if name == "steps" else "int64" for name in whole}
        return frame.astype(types)

    @cached_property
    def metrics(self) -> pd.DataFrame:
        """Return what trials ended with in long form: a row a trial and metric, with the columns of ``metrics.csv``.

        Those of the table first, then the loss, its terms and the like. Only trials that are done have some.
        """
        import pandas as pd

        rows = list(metrics_csv.metric_rows(self._data.records, self._data.info.metrics))
        return pd.DataFrame(rows, columns=list(metrics_csv.COLUMNS)).astype({"seed": "int64", "value": "float64"})

    @cached_property
    def curves(self) -> pd.DataFrame:
        """Return what trials reported at their rungs, with the columns of ``curves.csv``.

        A row a trial, step and metric. Rungs score a held-out part of the training images: their values are not
        comparable with ``metrics``.
        """
        return build_curves(self._data.records).astype({"seed": "int64", "step": "int64", "value": "float64"})

    @cached_property
    def tables(self) -> pd.DataFrame:
        """Return a row a group and arm, with the columns of ``table.csv``.

        Of each metric M there are ``M_mean``, ``M_sd``, ``M_n``, the difference to the baseline ``M_diff`` with its
        simultaneous 95% interval ``M_diff_low``, ``M_diff_high``, and so on. Numbers are int64 where every row has one,
        else float64, NaN where there is none; ``is_no_op`` is bool.
        """
        import pandas as pd

        frame = pd.DataFrame(table_rows(self._tables))
        # Of a column without any value pandas cannot tell what it is for.
        numbers = [name for name in frame if frame[name].isna().all() and not str(name).endswith(_TEXT_ENDINGS)]
        frame = frame.astype(dict.fromkeys(numbers, "float64"))
        return frame.assign(is_no_op=frame["is_no_op"].eq(True)) if "is_no_op" in frame else frame

    @cached_property
    def verdicts(self) -> pd.DataFrame:
        """Return the differences to the baseline in long form: a row a group, arm and metric (``VERDICT_COLUMNS``).

        ``low`` and ``high`` are the ends of the 95% interval, simultaneous over the arms of the group, ``p`` is
        adjusted likewise. ``verdict`` (better, worse, equivalent, undecided) is of the primary metric alone, ``q``
        (Benjamini and Hochberg over all exploratory cells) of the others. Floors have a difference and no interval.
        """
        import pandas as pd

        rows = [
            (
                *(group, row.arm, str(row.role), name, name == table.primary),
                *(found.n, found.mean, found.low, found.high, found.p_value, found.q_value),
                *(None if found.verdict is None else str(found.verdict), found.more_seeds),
            )
            for group, table in self._tables.items()
            for row in table.rows
            for name in table.metrics
            if (found := row.metrics[name].difference) is not None
        ]
        types = dict.fromkeys(("difference", "low", "high", "p", "q"), "float64")
        types |= {"is_primary": "bool", "n": "int64", "more_seeds": "Int64"}
        return pd.DataFrame(rows, columns=list(VERDICT_COLUMNS)).astype(types)

    @cached_property
    def _tables(self) -> Mapping[str, AblationTable]:
        return tables_of(self._data.records, self._data.info)

    def __repr__(self) -> str:
        return f"<SweepResults {one_line(self.sweep.name)}: {self._states()}>"

    def _states(self) -> str:
        """Return how many trials there are, by state."""
        counts = Counter(str(record.state) for record in self._data.records)
        texts = ", ".join(f"{count} {state}" for state, count in counts.items())
        num_trials = len(self._data.records)
        return f"{num_trials} trial{'s' * (num_trials != 1)}" + (f" ({texts})" if texts else "")

    def _repr_html_(self) -> str:
        """Return the question, the verdicts and the tables for a notebook; texts of the sweep are escaped."""
        parts = [f"<h3>{_html(self.sweep.name)}</h3>", f"<p>{_html(self.question)}</p>", f"<p>{self._states()}</p>"]
        for group, table in self._tables.items():
            parts.append(f"<h4>{_html(group)}</h4>" if group else "")
            parts += [f"<p>{_html(sentence)}</p>" for sentence in sentences_of(table)]
            parts.append(render_html(table))
        return "\n".join(part for part in parts if part)


def load(target: str | Path) -> SweepResults:
    """Load a sweep, also while it runs; nothing is written.

    Args:
        target: The folder of its results, here or at a URL, whose ledger is read; or one that has none, such as that of
            a published study, whose ``trials.csv`` is; or such a file itself.

    Raises:
        SpecsweepError: If there is nothing of the kind, or it cannot be read.
    """
    if (folder := find_study(target)) is not None:
        return SweepResults(SweepData.of_folder(folder))
    path = Path(target)
    if is_url(str(target)) or path.is_dir():
        path = local_view(target) / LEDGER_NAME
    if path.name != LEDGER_NAME or not path.exists():
        raise SpecsweepError(
            f"{target}: has neither a ledger nor {trials_csv.CSV_NAME}; give the folder of a sweep's results, such as "
            "results/components"
        )
    with Ledger.read(path) as ledger:
        return SweepResults(SweepData.of_ledger(ledger, with_training_ids=True))


def find_study(target: str | Path, results: str = "") -> Path | None:
    """Return the folder of a sweep that is to be read from its files; None if its ledger is, or if there is none.

    Args:
        target: A folder, its name in ``results``, or a ``trials.csv``, which counts also where a ledger lies beside it.
        results: Folder that holds one folder per sweep; empty = the target is no name.
    """
    if is_url(str(target)):
        return None
    path = Path(target)
    if path.name == trials_csv.CSV_NAME and path.is_file():
        return path.parent
    folder = path if path.exists() or is_url(results) else Path(results) / target
    ledger = folder / LEDGER_NAME
    has_ledger = ledger.exists() or ledger.is_symlink() or has_mirror(folder)
    return folder if (folder / trials_csv.CSV_NAME).is_file() and not has_ledger else None


def _html(text: str) -> str:
    return escape(one_line(text))
