"""Look after the champion: has its world drifted, is it worse on newer data? Then train again.

Trigger it with ``newer``, a folder of sites whose data came after the training's.
"""

from airflow.sdk import DAG, Param

from fedcore.airflow.monitoring import LookOperator, RetrainOperator
from fedcore.airflow.retry import task_defaults

with DAG(
    "monitoring",
    schedule=None,
    default_args=task_defaults(),
    params={
        "newer": Param("", type="string", title="Folder of newer data", description="One folder a site.")
    },
    max_active_runs=1,
    tags=["fedcore"],
    doc_md=__doc__,
):
    look = LookOperator(task_id="look")
    retrain = RetrainOperator(task_id="retrain", verdict="{{ ti.xcom_pull(task_ids='look') | tojson }}")
    look >> retrain
