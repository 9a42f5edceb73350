"""The button beside a task that opens the run in MLflow."""

import json
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

from airflow.sdk import BaseOperator, BaseOperatorLink

from fedcore.tracking.pages import run_page


class MlflowRunLink(BaseOperatorLink):
    """Opens the MLflow run that the task wrote to."""

    name = "MLflow run"

    def get_link(self, operator: BaseOperator, *, ti_key: Any) -> str:
        """The address that the operator left in `mlflow_url`, empty when there is no server."""
        return str(getattr(operator, "mlflow_url", "") or "")


def mlflow_run_url(tracking_uri: str | None, run_id: str | None) -> str:
    """The page of an MLflow run, empty without a server, without a run, or when the server does not know it.

    A link is a convenience: nothing fails for want of one.
    """
    if not run_id or not tracking_uri or not tracking_uri.startswith("http"):
        return ""
    server = tracking_uri.rstrip("/")
    try:
        with urlopen(
            f"{server}/api/2.0/mlflow/runs/get?{urlencode({'run_id': run_id})}", timeout=5
        ) as answer:
            experiment = json.load(answer)["run"]["info"]["experiment_id"]
    except (OSError, ValueError, KeyError):
        return ""
    return f"{server}/{run_page(experiment, run_id)}"
