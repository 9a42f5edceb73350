"""After the last round: finish the run, register its model as candidate, promote it to champion.

A person is asked in between where ``promotion.approval`` says so. Gates that refuse fail the
task ``promote`` with one sentence; no alias has moved then.
"""

from airflow.sdk import DAG, Param, chain

from fedcore.airflow.promotion import ApproveOperator, FinishOperator, PromoteOperator, RegisterOperator
from fedcore.airflow.retry import task_defaults

with DAG(
    "federated_promotion",
    schedule=None,
    default_args=task_defaults(),
    params={"run": Param("", type="string")},
    tags=["fedcore"],
    doc_md=__doc__,
):
    chain(
        FinishOperator(task_id="finish"),
        RegisterOperator(task_id="register"),
        ApproveOperator(task_id="approve"),
        PromoteOperator(task_id="promote", version="{{ ti.xcom_pull(task_ids='register')['version'] }}"),
    )
