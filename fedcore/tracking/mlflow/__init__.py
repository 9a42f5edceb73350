"""MLflow: the only folder that imports it. Its registry's rules are in `fedcore.registry`.

`connect` opens a server or a database, `run` is the sink that writes a run, `model` puts a
trained model beside it, `serving` loads that again.
"""

import os
import warnings

# Before the first `import mlflow`: no telemetry, nothing on standard output, no guessing of
# environments, and a dead server is an error after seconds, not after MLflow's four minutes.
_QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_UV_AUTO_DETECT": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
}
for _name, _value in _QUIET.items():
    os.environ.setdefault(_name, _value)

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # MLflow warns about its own type hints while it is imported
    import mlflow.pyfunc  # noqa: F401

# pylint: disable=wrong-import-position
from fedcore.tracking.mlflow.connect import address, answers, connect  # noqa: E402
from fedcore.tracking.mlflow.run import MlflowRun, open_tracking, pick  # noqa: E402

__all__ = ["MlflowRun", "address", "answers", "connect", "open_tracking", "pick"]
