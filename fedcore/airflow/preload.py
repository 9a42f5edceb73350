"""Everything that tasks import, imported once: workers are forked from a process that has read this."""

import fedcore.adapters.pytorch
import fedcore.airflow.monitoring
import fedcore.airflow.promotion
import fedcore.airflow.rollout
import fedcore.airflow.rounds
import fedcore.airflow.training
import fedcore.coordinator
import fedcore.edge.export
import fedcore.tracking.mlflow
import fedcore.tracking.plots  # noqa: F401
