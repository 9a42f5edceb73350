"""Airflow in a home of its own."""

import atexit
import os
import shutil
import tempfile

if "AIRFLOW_HOME" not in os.environ:  # before the first import of Airflow, which reads it then
    os.environ["AIRFLOW_HOME"] = tempfile.mkdtemp(prefix="fedcore-tests-airflow-")
    atexit.register(shutil.rmtree, os.environ["AIRFLOW_HOME"], ignore_errors=True)
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"
os.environ["AIRFLOW__LOGGING__LOGGING_LEVEL"] = "ERROR"
