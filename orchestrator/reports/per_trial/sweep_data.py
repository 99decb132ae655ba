"""All that tables, curves and data frames are made of: from a ledger, or from the files that a run leaves beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.ledger.ledger import Ledger
from orchestrator.ledger.registration import SweepInfo
from orchestrator.reports.per_trial import curves_csv, sweep_json, trials_csv
from orchestrator.reports.per_trial.csv_rows import MAX_BYTES
from orchestrator.trials.records import TrialRecord
from specvit.errors import SpecsweepError
from specvit.files.regular import read_regular

SWEEP_COPY_NAME = "sweep.yaml"


@dataclass(frozen=True)
class SweepData:
    """A sweep and its trials.

    Attributes:
        info: The sweep.
        records: All its trials, in its order.
        training_ids: Trial id to what decides its backbone, as far as it is known.
    """

    info: SweepInfo
    records: tuple[TrialRecord, ...]
    training_ids: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of_ledger(cls, ledger: Ledger, *, with_training_ids: bool = False) -> SweepData:
        """Read a ledger, also while the sweep runs.

        Args:
            ledger: Open for reading.
            with_training_ids: Whether these are wanted, which take half a millisecond a trial; tables do without.

        Raises:
            LedgerError: If it cannot be used.
        """
        return cls(ledger.sweep(), ledger.records(), ledger.training_ids() if with_training_ids else {})

    @classmethod
    def of_files(cls, files: Mapping[str, bytes], place: str = "") -> SweepData:
        """Read what a sweep's files hold.

        Args:
            files: Content by name: ``trials.csv`` and ``sweep.json``; ``curves.csv``, without which there are no rungs,
                and ``sweep.yaml``, without which the text of the sweep is empty. Others are not looked at.
            place: What messages put before a name: ``results/x/``.

        Raises:
            SpecsweepError: If one is missing, or holds something else; the text names file, line and column.
        """
        for name in (trials_csv.CSV_NAME, sweep_json.JSON_NAME):
            if name not in files:
                raise SpecsweepError(f"{place}{name}: is missing; without a ledger, tables are made of it")
        try:
            text = files.get(SWEEP_COPY_NAME, b"").decode()
        except UnicodeDecodeError:
            raise SpecsweepError(f"{place}{SWEEP_COPY_NAME}: must be UTF-8") from None
        info = sweep_json.read_sweep(files[sweep_json.JSON_NAME], text, f"{place}{sweep_json.JSON_NAME}")
        records, training_ids = trials_csv.read_trials(
            files[trials_csv.CSV_NAME], f"{place}{trials_csv.CSV_NAME}"
        )
        if curves_csv.CSV_NAME in files:
            name = f"{place}{curves_csv.CSV_NAME}"
            records = curves_csv.add_reports(records, files[curves_csv.CSV_NAME], name)
        return cls(info, records, training_ids)

    @classmethod
    def of_folder(cls, folder: Path) -> SweepData:
        """Read the files in a folder, such as that of a published study; its ledger, if it has one, is not looked at.

        Raises:
            SpecsweepError: As ``of_files`` does, or if a file cannot be read, is no file, or too large.
        """
        names = (trials_csv.CSV_NAME, sweep_json.JSON_NAME, SWEEP_COPY_NAME, curves_csv.CSV_NAME)
        return cls.of_files(read_files(folder, names), f"{folder}/")


def read_files(folder: Path, names: tuple[str, ...]) -> dict[str, bytes]:
    """Return the content of those files that a folder has.

    Raises:
        SpecsweepError: If one cannot be read, is no file, or too large; the text names it.
    """
    found = {}
    for name in names:
        try:
            found[name] = read_regular(folder / name, most_bytes=MAX_BYTES)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise SpecsweepError(f"{folder / name}: cannot be read ({error.strerror})") from error
    return found
