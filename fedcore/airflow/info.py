"""What Airflow's entry point ``apache_airflow_provider`` is told about this provider."""

from typing import Any


def get_provider_info() -> dict[str, Any]:
    """The provider's description in Airflow's schema."""
    name = "fedcore"
    return {
        "package-name": "fedcore-mlops",
        "name": name,
        "description": "Federated training rounds as DagRuns, promotion gates, and signed rollout to the edge.",
        "integrations": [{"integration-name": name, "tags": ["software"]}],
        "connection-types": [
            {
                "connection-type": "fedcore",
                "hook-class-name": "fedcore.airflow.hook.FedcoreHook",
                "hook-name": "fedcore",
            }
        ],
        "hooks": [{"integration-name": name, "python-modules": ["fedcore.airflow.hook"]}],
        "operators": [
            {
                "integration-name": name,
                "python-modules": [
                    "fedcore.airflow.training",
                    "fedcore.airflow.audit",
                    "fedcore.airflow.rounds",
                    "fedcore.airflow.promotion",
                    "fedcore.airflow.rollout",
                    "fedcore.airflow.monitoring",
                ],
            }
        ],
        "triggers": [{"integration-name": name, "python-modules": ["fedcore.airflow.triggers"]}],
        "extra-links": ["fedcore.airflow.links.MlflowRunLink"],
    }
