"""The Airflow provider of fedcore: hook, operators, triggers, and a small client of Airflow's REST API.

Only `info` is read when Airflow starts; nothing here imports torch or mlflow at module level.
"""
