"""MLflow: the server of MLFLOW_TRACKING_URI, or without one the database `logs/mlflow.db`."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from trainlab.trackers import Point, Subject, Tracker

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlflow import MlflowClient

FILE = "mlflow.db"  # in logs/; MLflow advises against its older store of files
STATUS = {"finished": "FINISHED", "failed": "FAILED", "interrupted": "KILLED"}
MOST = 1000  # metrics, and
MOST_PARAMETERS = 100  # parameters of one request: MLflow's REST interface, "Log Batch"
LONGEST = 6000  # characters of a parameter's value, there
# no use statistics, no chatter; and a server that is gone must not be asked for minutes
_SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
}


class Store(Tracker):
    """Writes through MLflow's client, which has no state that a user's own MLflow code could trip over."""

    def start(self, subject: Subject) -> str:
        """Make a run in the experiment of the same name, or go on with the known one; return its id."""
        for name, value in _SETTINGS.items():
            os.environ.setdefault(name, value)
        from mlflow import MlflowClient
        from mlflow.entities import Param

        own = f"sqlite:///{subject.logs.absolute() / FILE}"
        self._client = MlflowClient(tracking_uri=os.environ.get("MLFLOW_TRACKING_URI") or own)
        if subject.known:
            self._client.update_run(subject.known, status="RUNNING")
            self._run = subject.known
            return self._run
        experiment = _experiment(self._client, subject.experiment)
        self._run = self._client.create_run(experiment, run_name=subject.name).info.run_id
        found = [Param(allowed(key), str(value)[:LONGEST]) for key, value in subject.config.items()]
        for start in range(0, len(found), MOST_PARAMETERS):
            self._client.log_batch(self._run, params=found[start : start + MOST_PARAMETERS])
        return self._run

    def log(self, points: Sequence[Point]) -> None:
        """Send the points, many in a request."""
        from mlflow.entities import Metric

        metrics = [Metric(allowed(tag), value, round(1000 * time), step) for step, time, tag, value in points]
        for start in range(0, len(metrics), MOST):
            self._client.log_batch(self._run, metrics=metrics[start : start + MOST])

    def finish(self, status: str, reason: str | None) -> None:
        """End the run there, and say why where it did not finish."""
        if reason:
            self._client.set_tag(self._run, "reason", reason)
        self._client.set_terminated(self._run, STATUS[status])


def allowed(name: str) -> str:
    """Return a name that MLflow takes: 'val/precision@10' becomes 'val/precision_at_10'."""
    return re.sub(r"[^\w\-./: ]", "_", name.replace("@", "_at_"))


def _experiment(client: MlflowClient, name: str) -> str:
    """Return the id of the experiment of this name, which two processes may want to make at once."""
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            made: str = client.create_experiment(name)
            return made
        except MlflowException:
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    return found.experiment_id


TRACKER = Store
