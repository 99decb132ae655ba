from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from orchestrator.cli.run import _detectable, make_callbacks
from orchestrator.execution.local import LocalExecutor
from orchestrator.ledger.ledger import Ledger
from orchestrator.ledger.provenance import collect_provenance
from orchestrator.monitoring.forming_verdicts import FormingVerdicts
from orchestrator.monitoring.live_view import LiveView
from orchestrator.monitoring.sweep_progress import SweepProgress
from orchestrator.run import LEDGER_NAME, describe, prepare_run
from orchestrator.statistics import Design
from orchestrator.sweep.resolved import Sweep
from orchestrator.trials.events import Finished
from orchestrator.trials.trial import Role
from specvit.arithmetic import rough_seconds


def test_a_run_begins_with_a_guess_at_its_time_by_arithmetic(sweep: Sweep, tmp_path: Path) -> None:
    with (
        prepare_run(sweep, tmp_path / "results" / "tiny") as prepared,
        closing(LocalExecutor(prepared.datasets)) as executor,
    ):
        progress, verdicts, view = make_callbacks(Console(file=StringIO()), prepared, executor)
        assert isinstance(progress, SweepProgress)
        assert isinstance(verdicts, FormingVerdicts)
        assert isinstance(view, LiveView)
        guesses = [rough_seconds(trial.config) for trial in prepared.trials]
        left = progress.time_left()
        assert left is not None
        assert left.is_guess
        assert left.seconds == pytest.approx(sum(guess for guess in guesses if guess is not None), rel=0.1)


def test_what_a_run_could_show_is_known_from_a_sweep_of_the_same_group(
    make_sweep: Callable[..., Sweep], tmp_path: Path
) -> None:
    results = tmp_path / "results"
    sweep = make_sweep(seeds=5)
    with prepare_run(sweep, results / "tiny") as prepared:
        assert _detectable(prepared, str(results), "") is None
        with Ledger.open(results / "other" / LEDGER_NAME) as ledger:
            ledger.register(describe(sweep, prepared.trials, {}), prepared.trials, collect_provenance())
            for trial in prepared.trials:
                # Arm less baseline: 0, 1, 0, 1, 0, of which the variance is 0.3, twice the residual one.
                value = 50.0 + trial.seed + trial.seed % 2 * (trial.role is Role.ARM)
                key = (trial.trial_id, ledger.begin_attempt(trial.trial_id))
                ledger.record(Finished(*key, {"knn_top1": value}, 1.0, 1.0))
        assert _detectable(prepared, str(results), "") == pytest.approx(Design(1, 5, 0.15**0.5).detectable())
        assert _detectable(prepared, str(results), "another group") is None
        assert _detectable(prepared, "s3://bucket/results", "") is None
