"""Publishing a study: from a finished sweep of one code alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.ledger.ledger import Ledger
from orchestrator.ledger.provenance import Provenance, collect_provenance
from orchestrator.publish import publish
from orchestrator.run import describe
from orchestrator.sweep.resolved import Sweep
from orchestrator.trials.events import Failed, Finished, Pruned
from orchestrator.trials.trial import Trial
from specvit.errors import SpecsweepError
from specvit.kept_weights import WeightsFile

Finish = Callable[[Trial], None]


@pytest.fixture
def finish(ledger: Ledger) -> Finish:
    def run(trial: Trial) -> None:
        attempt = ledger.begin_attempt(trial.trial_id)
        ledger.record(Finished(trial.trial_id, attempt, {"knn_top1": 50.0 + trial.seed}, 1.0, 1.0))

    return run


def test_a_finished_sweep_is_written_to_the_folder(
    ledger: Ledger, trials: tuple[Trial, ...], finish: Finish, tmp_path: Path
) -> None:
    for trial in trials[:-1]:
        finish(trial)
    last = trials[-1].trial_id
    ledger.record(Pruned(last, ledger.begin_attempt(last), step=1, seconds=1.0))
    folder = tmp_path / "studies" / "tiny"
    written = publish(ledger, folder)
    assert [path.name for path in written] == [
        *("environment.json", "metrics.csv", "report.html", "sweep.json", "sweep.yaml"),
        *("table.csv", "table.md", "trials.csv"),
    ]
    assert (folder / "sweep.yaml").read_text() == ledger.sweep().text
    assert publish(ledger, folder) == written


def test_kept_weights_stay_where_they_are_and_are_not_listed(
    ledger: Ledger, trials: tuple[Trial, ...], tmp_path: Path
) -> None:
    for trial in trials:
        attempt = ledger.begin_attempt(trial.trial_id)
        kept = WeightsFile(f"{trial.trial_id}/last.safetensors", "0" * 64, is_probed=True)
        ledger.record(Finished(trial.trial_id, attempt, {"knn_top1": 50.0}, 1.0, 1.0, weights=(kept,)))
    assert all(record.weights for record in ledger.records())
    publish(ledger, tmp_path / "tiny")
    assert not list((tmp_path / "tiny").glob("weights"))


def test_an_unfinished_sweep_is_refused_and_nothing_is_written(
    ledger: Ledger, trials: tuple[Trial, ...], finish: Finish, tmp_path: Path
) -> None:
    for trial in trials[:5]:
        finish(trial)
    failed = trials[5].trial_id
    ledger.record(Failed(failed, ledger.begin_attempt(failed), "ValueError: no", "Traceback"))
    with pytest.raises(SpecsweepError, match=r"not published: 1 failed, 2 waiting of 8 trials; run the sweep"):
        publish(ledger, tmp_path / "studies")
    assert not (tmp_path / "studies").exists()


def other_code(provenance: Provenance) -> Provenance:
    return replace(provenance, code={"specvit": "1" * 64})


def other_versions(provenance: Provenance) -> Provenance:
    return replace(provenance, versions={**provenance.versions, "torch": "1.0"})


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (other_code, r"code \(specvit\)"),
        (other_versions, r"versions \(torch [0-9.]+ and 1\.0\)"),
        (lambda provenance: replace(provenance, git_sha="1" * 40), ""),  # other files have changed
    ],
)
def test_results_of_mixed_origin_are_refused(
    ledger: Ledger,
    sweep: Sweep,
    trials: tuple[Trial, ...],
    finish: Finish,
    tmp_path: Path,
    change: Callable[[Provenance], Provenance],
    what: str,
) -> None:
    for trial in trials[:4]:
        finish(trial)
    info = describe(sweep, trials, {})
    ledger.register(info, trials, collect_provenance())  # the same code goes on
    for trial in trials[4:6]:
        finish(trial)
    ledger.register(info, trials, change(collect_provenance()))
    for trial in trials[6:]:
        finish(trial)
    if not what:
        assert publish(ledger, tmp_path / "studies")
        return
    with pytest.raises(SpecsweepError, match=rf"computed with different {what}; 'specsweep redo'"):
        publish(ledger, tmp_path / "studies")
    publish(ledger, tmp_path / "studies", accept_mixed=True)
    assert "‡" in (tmp_path / "studies" / "table.md").read_text()
    # A run that began nothing of the sweep's end does not count.
    kept = trials[:6]
    ledger.register(describe(sweep, kept, {}), kept, change(collect_provenance()))
    assert publish(ledger, tmp_path / "studies")
