"""One round of federated learning as one DagRun, ``RUN__r0007``: a column of the grid.

The last task triggers the next round under its own fixed id, or, when the training is done, the
promotion. A killed or cleared task takes its step again, and the journal answers what was done.
"""

from airflow.sdk import DAG, Param, chain

from fedcore.airflow.retry import task_defaults
from fedcore.airflow.rounds import DecideOperator, RoundStepOperator, WaitForQuorumOperator

with DAG(
    "federated_round",
    schedule=None,
    default_args=task_defaults(),
    params={"run": Param("", type="string"), "round": Param(0, type="integer", minimum=0)},
    max_active_runs=8,
    tags=["fedcore"],
    doc_md=__doc__,
):
    chain(
        RoundStepOperator(task_id="select", steps=["select"]),
        RoundStepOperator(task_id="dispatch", steps=["ask"]),
        WaitForQuorumOperator(task_id="wait_for_quorum"),
        RoundStepOperator(task_id="admit", steps=["admit"]),
        RoundStepOperator(task_id="aggregate", steps=["combine", "release"]),
        RoundStepOperator(task_id="evaluate", steps=["judge"]),
        DecideOperator(task_id="decide"),
    )
