"""Tags for runs that someone starts with MLflow's own API: entry point ``mlflow.run_context_provider``.

Outside `fedcore.tracking.mlflow`, because MLflow loads this while it is itself half loaded.
"""

from mlflow.tracking.context.abstract_context import RunContextProvider

from fedcore.tracking.context import surroundings


class FedcoreContext(RunContextProvider):  # type: ignore[misc,unused-ignore]
    """Git, DVC and Airflow ids and fedcore's version on every new run."""

    def in_context(self) -> bool:
        """Always: where nothing is around, only the version is known."""
        return True

    def tags(self) -> dict[str, str]:
        """The tags of the current folder."""
        return surroundings()
