"""MLflow: a tracking server, or an SQLite file on this machine."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator

from orchestrator.secrets import without_password
from orchestrator.trackers.base import NOT_STARTED, TrackedRun, Tracker, TrackerClient
from specvit.errors import ConfigError
from specvit.settings import settings

_URI_VARIABLE = "MLFLOW_TRACKING_URI"
_KEY_TAG, _STEP_TAG = "specsweep.run", "specsweep.step"
_STATUS = {"done": "FINISHED", "failed": "FAILED", "pruned": "KILLED", "interrupted": "KILLED"}
_LONGEST_PARAMETER = 500
_OTHER = re.compile(r"[^A-Za-z0-9_. :/-]")
"""What MLflow takes in no name of a metric."""


def _check_uri(uri: str) -> str:
    if "@" in urlsplit(uri).netloc:
        raise ConfigError(
            f"must hold no user or password; give them by {_URI_VARIABLE}, or by MLFLOW_TRACKING_USERNAME and "
            "MLFLOW_TRACKING_PASSWORD"
        )
    return uri


@settings
class MLflow(Tracker):
    """Write runs to an MLflow tracking server, or to an SQLite file; the sweep is an experiment."""

    name: ClassVar[str] = "mlflow"
    package: ClassVar[str] = "mlflow"
    tracker: Literal["mlflow"] = "mlflow"

    uri: Annotated[str, AfterValidator(_check_uri)] | None = None
    """Tracking server or database, ``https://mlflow.example.org``; none given = the environment variable
    MLFLOW_TRACKING_URI, else ``mlflow.db`` in ``folder``. Passwords and tokens come from the environment alone."""
    experiment: str | None = None
    """Name of the experiment; none given = the name of the sweep."""

    def uri_for(self, folder: Path) -> str:
        """Return the tracking URI."""
        return self.uri or os.environ.get(_URI_VARIABLE) or f"sqlite:///{folder.absolute() / 'mlflow.db'}"

    def connect(self, folder: Path, *, sweep: str) -> TrackerClient:
        """Open the store, and make the experiment if it is not there."""
        os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
        from mlflow.tracking import MlflowClient

        uri = self.uri_for(folder)
        client = MlflowClient(uri)
        name = self.experiment or sweep
        found = client.get_experiment_by_name(name)
        if found is not None:
            return _Experiment(client, found.experiment_id)
        artifacts = (folder / "artifacts").absolute().as_uri() if uri.startswith("sqlite:") else None
        return _Experiment(client, client.create_experiment(name, artifact_location=artifacts))

    def destination(self, folder: Path, *, sweep: str) -> str:  # noqa: ARG002
        """Return the address of the server, or the command that shows the file."""
        uri = without_password(self.uri_for(folder))
        return uri if uri.startswith("http") else f"mlflow server --backend-store-uri {shlex.quote(uri)}"


class _Experiment(TrackerClient):
    """The runs of an experiment; ours are found by a tag that holds their keys."""

    def __init__(self, client: Any, experiment_id: str) -> None:
        self._client = client
        self._experiment_id = experiment_id
        self._ids: dict[str, str] = {}

    def begin(self, run: TrackedRun, *, at: float) -> int:
        """Find the run, or make it; its last step is a tag, written together with the points."""
        where = f"tags.`{_KEY_TAG}` = '{run.key}'"
        found = self._client.search_runs([self._experiment_id], filter_string=where, max_results=1)
        if found:
            self._ids[run.key] = found[0].info.run_id
            self._client.update_run(found[0].info.run_id, status="RUNNING")
            return int(found[0].data.tags.get(_STEP_TAG, NOT_STARTED))
        from mlflow.entities import Param

        tags = {_KEY_TAG: run.key, "specsweep.sweep": run.sweep}
        made = self._client.create_run(
            self._experiment_id, run_name=run.name, tags=tags, start_time=int(at * 1000)
        )
        self._ids[run.key] = made.info.run_id
        parameters = {name: str(value)[:_LONGEST_PARAMETER] for name, value in run.parameters.items()}
        params = [Param(name, value) for name, value in parameters.items()]
        self._client.log_batch(made.info.run_id, params=params)
        return NOT_STARTED

    def log(self, run: TrackedRun, metrics: Mapping[str, float], *, step: int, at: float) -> None:
        """Add metrics."""
        from mlflow.entities import Metric, RunTag

        points = [Metric(_OTHER.sub("_", name), value, int(at * 1000), step) for name, value in metrics.items()]
        self._client.log_batch(self._ids[run.key], metrics=points, tags=[RunTag(_STEP_TAG, str(step))])

    def end(self, run: TrackedRun, state: str, *, at: float) -> None:
        """Set the status, and what became of the trial as a tag."""
        run_id = self._ids.pop(run.key)
        self._client.set_tag(run_id, "specsweep.state", state)
        self._client.set_terminated(run_id, _STATUS[state], end_time=int(at * 1000))
