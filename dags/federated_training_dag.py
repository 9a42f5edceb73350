"""Start a federated training: check each site's data, open the run, audit it if asked, trigger its first round.

Fill in the form, or send the same keys as ``conf`` over the REST API. A run that exists already
under that name goes on where it was; other settings under the same name are refused. An audit trains
the same settings with canaries first; one that fails ends the DAG run, and no round begins.
"""

from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import DAG, Param, TriggerRule

from fedcore.airflow.audit import AuditOperator
from fedcore.airflow.names import ROUND_DAG, round_run_id
from fedcore.airflow.retry import task_defaults
from fedcore.airflow.training import CheckSitesOperator, OpenRunOperator

PARAMS = {
    "run": Param(
        None, type=["null", "string"], title="Name of the run", description="Empty: Airflow's run id."
    ),
    "preset": Param(
        None, type=["null", "string"], title="Preset", description="A file of params/, without .yaml."
    ),
    "set": Param(
        [],
        type="array",
        items={"type": "string"},
        title="Settings",
        description="KEY=VALUE over params.yaml, one a line.",
    ),
    "sites": Param(
        None, type=["null", "string"], title="Folder of sites", description="Empty: the connection's."
    ),
    "checks": Param(
        None,
        type=["null", "string"],
        title="Summary of checks",
        description="Empty: the data are checked now.",
    ),
    "audit": Param(
        0,
        type="integer",
        minimum=0,
        title="Canaries of a privacy audit",
        description="0: none. An audit costs the population's account what the training does.",
    ),
}

with DAG(
    "federated_training",
    schedule=None,
    default_args=task_defaults(),
    params=PARAMS,
    tags=["fedcore"],
    doc_md=__doc__,
):
    checked = CheckSitesOperator(task_id="check_sites")
    opened = OpenRunOperator(
        task_id="open_run",
        sites="{{ ti.xcom_pull(task_ids='check_sites')['sites'] }}",
        checks="{{ ti.xcom_pull(task_ids='check_sites')['checks'] }}",
    )
    audited = AuditOperator(
        task_id="audit",
        sites="{{ ti.xcom_pull(task_ids='check_sites')['sites'] }}",
        checks="{{ ti.xcom_pull(task_ids='check_sites')['checks'] }}",
    )
    run = "{{ ti.xcom_pull(task_ids='open_run')['run'] }}"
    first_round = TriggerDagRunOperator(
        task_id="first_round",
        trigger_dag_id=ROUND_DAG,
        trigger_run_id=round_run_id(run, 0),
        conf={"run": run, "round": 0},
        logical_date=None,
        skip_when_already_exists=True,
        trigger_rule=TriggerRule.NONE_FAILED,  # an audit that was not asked for is skipped
    )
    checked >> opened >> audited >> first_round
