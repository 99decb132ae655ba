"""From a ledger, or from the files that a run leaves, to a page."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.ledger.ledger import Ledger
from orchestrator.ledger.provenance import collect_provenance
from orchestrator.report import PAGE_NAME, read_report, read_study, render_page, write_report
from orchestrator.reports.per_trial.sweep_data import SweepData
from orchestrator.reports.result_files import write_results
from orchestrator.trials.events import Failed, Finished, Reported
from orchestrator.trials.trial import Trial
from specvit.errors import SpecsweepError


@pytest.fixture
def finished(ledger: Ledger, trials: tuple[Trial, ...], tmp_path: Path) -> Path:
    """Return a folder with the files of a sweep of which one trial failed, made without what attempts took."""
    for number, trial in enumerate(trials[1:]):
        attempt = ledger.begin_attempt(trial.trial_id)
        ledger.record(Reported(trial.trial_id, attempt, 2, {"knn_top1": 12.0, "loss": 9.0}))
        ledger.record(Finished(trial.trial_id, attempt, {"knn_top1": 34.0 + number}, 1.0, 1.0))
    ledger.record(Failed(trials[0].trial_id, ledger.begin_attempt(trials[0].trial_id), "ValueError: no", "Traceback"))
    provenance = ledger.newest_provenance() or collect_provenance()
    write_results(tmp_path / "study", SweepData.of_ledger(ledger), diagnostics={}, provenance=provenance)
    return tmp_path / "study"


def test_the_page_of_a_study_is_that_of_its_ledger(finished: Path, ledger: Ledger) -> None:
    page = (finished / PAGE_NAME).read_text()
    assert "ValueError: no" in page
    assert render_page(read_study(finished)) == page
    write_report(read_report(ledger), finished / "again.html")
    assert (finished / "again.html").read_text() == page


def test_an_environment_that_is_no_object_is_told(finished: Path) -> None:
    for text in ("[1]", "{", "[" * 100_000):
        (finished / "environment.json").write_text(text)
        with pytest.raises(SpecsweepError, match=r"environment.json: must be a JSON object"):
            read_study(finished)
