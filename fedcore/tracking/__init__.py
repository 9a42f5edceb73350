"""Where a run's records go so that people see them: memory, MLflow, pictures.

A sink is a callable that takes a `RoundRecord`; the round knows none of them. `points` says
what the numbers are called, once, for MLflow and for `fedcore compare`.
"""
