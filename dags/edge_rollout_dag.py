"""Whenever a version becomes champion: export it, publish it signed, wait until the device serves it.

The registry's alias is the truth: a trigger watches it and remembers what it has announced.
"""

from airflow.sdk import DAG, Asset, AssetWatcher, chain

from fedcore.airflow.retry import task_defaults
from fedcore.airflow.rollout import ExportOperator, PublishOperator, WaitForDeviceOperator
from fedcore.airflow.triggers import AliasTrigger

PROMOTED = Asset("promoted_model", watchers=[AssetWatcher(name="champion_alias", trigger=AliasTrigger())])
VERSION = "{{ ti.xcom_pull(task_ids='export')['version'] }}"

with DAG(
    "edge_rollout",
    schedule=[PROMOTED],
    default_args=task_defaults(),
    max_active_runs=1,
    tags=["fedcore"],
    doc_md=__doc__,
):
    chain(
        ExportOperator(task_id="export"),
        PublishOperator(
            task_id="publish", bundle="{{ ti.xcom_pull(task_ids='export')['folder'] }}", version=VERSION
        ),
        WaitForDeviceOperator(task_id="wait_for_device", version=VERSION),
    )
