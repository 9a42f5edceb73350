"""Where MLflow shows a run. Standard library alone: Airflow's web server imports this."""


def run_page(experiment: str, run: str) -> str:
    """The run's page below a server's address, among trainings: without being told, MLflow opens on language models."""
    return f"#/experiments/{experiment}/runs/{run}?workflowType=machine_learning"
