"""All rounds of a federated training in one task: the cheapest way for experiments and benchmarks.

The journal holds every step, so a task that is killed and tried again goes on where it was.
"""

from airflow.sdk import DAG, Param

from fedcore.airflow.retry import task_defaults
from fedcore.airflow.training import SimulateOperator

with DAG(
    "federated_simulation",
    schedule=None,
    default_args=task_defaults(),
    params={
        "run": Param(
            None, type=["null", "string"], title="Name of the run", description="Empty: Airflow's run id."
        ),
        "preset": Param(None, type=["null", "string"], title="Preset"),
        "set": Param(
            [], type="array", items={"type": "string"}, title="Settings", description="KEY=VALUE, one a line."
        ),
        "sites": Param(None, type=["null", "string"], title="Folder of sites"),
        "checks": Param(None, type=["null", "string"], title="Summary of checks"),
    },
    tags=["fedcore"],
    doc_md=__doc__,
):
    SimulateOperator(task_id="simulate")
