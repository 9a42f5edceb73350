"""Names that DAG files, tasks and whoever watches them must agree on. Imports no Airflow."""

TRAINING_DAG = "federated_training"
ROUND_DAG = "federated_round"
PROMOTION_DAG = "federated_promotion"
ROLLOUT_DAG = "edge_rollout"


def round_run_id(run: str, round_number: int) -> str:
    """The id of the DagRun of a round, the same however often it is triggered.

    >>> round_run_id("jan", 3)
    'jan__r0003'
    """
    return f"{run}__r{round_number:04d}"


def promotion_run_id(run: str) -> str:
    """The id of the DagRun that finishes and promotes what a run trained."""
    return f"{run}__promotion"
