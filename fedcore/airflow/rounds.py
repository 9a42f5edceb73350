"""The tasks of one round: each advances the round by its step, which the journal makes idempotent."""

import time
from collections.abc import Sequence
from typing import Any

from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import BaseOperator, Context

from fedcore.airflow.hook import DEFAULT_CONNECTION, FedcoreHook
from fedcore.airflow.links import MlflowRunLink
from fedcore.airflow.names import PROMOTION_DAG, ROUND_DAG, promotion_run_id, round_run_id
from fedcore.airflow.triggers import QuorumTrigger
from fedcore.errors import TooFewClients

Facts = dict[str, Any]
FED_RUN, FED_ROUND = "{{ params.run }}", "{{ params.round }}"


class RoundStepOperator(BaseOperator):
    """Advances a round through `steps`; leaves their facts."""

    template_fields: Sequence[str] = ("fed_run", "fed_round")

    def __init__(
        self,
        *,
        steps: Sequence[str],
        fed_run: str = FED_RUN,
        fed_round: str = FED_ROUND,
        fedcore_conn_id: str = DEFAULT_CONNECTION,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.steps, self.fed_run, self.fed_round = steps, fed_run, fed_round
        self.fedcore_conn_id = fedcore_conn_id

    def execute(self, context: Context) -> Facts:
        """Facts of all steps, seconds added up."""
        facts: Facts = {"seconds": 0.0}
        for step in self.steps:
            more = advance(self.fedcore_conn_id, self.fed_run, self.fed_round, step)
            facts = {**facts, **more, "seconds": facts["seconds"] + more["seconds"]}
        return facts


class WaitForQuorumOperator(BaseOperator):
    """Waits, without holding a worker, until enough of the cohort answered or the deadline is over.

    Leaves ``{"replied", "needed", "met"}``. A round that has its quorum already is not deferred.
    Raises `TooFewClients` at the deadline.
    """

    template_fields: Sequence[str] = ("fed_run", "fed_round")

    def __init__(
        self,
        *,
        fed_run: str = FED_RUN,
        fed_round: str = FED_ROUND,
        poll_s: float = 1.0,
        fedcore_conn_id: str = DEFAULT_CONNECTION,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.fed_run, self.fed_round, self.poll_s = fed_run, fed_round, poll_s
        self.fedcore_conn_id = fedcore_conn_id

    def execute(self, context: Context) -> Facts:
        """Who answered, at once when they are enough."""
        from fedcore import coordinator

        hook, number = FedcoreHook(self.fedcore_conn_id), int(self.fed_round)
        facts = coordinator.quorum(hook.place.workdir, self.fed_run, number)
        if facts["met"]:
            return facts
        deadline = hook.deadline(self.fed_run, number)
        trigger = QuorumTrigger(str(hook.place.workdir), self.fed_run, number, deadline, self.poll_s)
        self.defer(trigger=trigger, method_name="resume")
        raise AssertionError("unreachable: defer raises")

    def resume(self, context: Context, event: Facts) -> Facts:
        """Who answered, when the trigger saw the quorum or the deadline."""
        if not event["met"]:
            needed = event["needed"] or event["replied"] + 1
            raise TooFewClients(
                needed, event["replied"], f"round {self.fed_round} of run {self.fed_run} at its deadline"
            )
        return event


class DecideOperator(TriggerDagRunOperator):
    """Records the round and triggers what follows under a fixed run id: the next round or promotion.

    A run of that id is never made twice, so a cleared task does not fork the loop.
    """

    template_fields: Sequence[str] = ("fed_run", "fed_round")
    operator_extra_links = [*TriggerDagRunOperator.operator_extra_links, MlflowRunLink()]

    def __init__(
        self,
        *,
        fed_run: str = FED_RUN,
        fed_round: str = FED_ROUND,
        fedcore_conn_id: str = DEFAULT_CONNECTION,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            trigger_dag_id=ROUND_DAG,
            logical_date=None,
            skip_when_already_exists=True,
            openlineage_inject_parent_info=False,
            **kwargs,
        )
        self.fed_run, self.fed_round = fed_run, fed_round
        self.fedcore_conn_id = fedcore_conn_id

    def execute(self, context: Context) -> None:
        """Never returns: Airflow triggers a run by an exception, after the round's facts are left."""
        number = int(self.fed_round)
        facts = advance(self.fedcore_conn_id, self.fed_run, number, "record")
        self.mlflow_url = FedcoreHook(self.fedcore_conn_id).mlflow_url(self.fed_run)
        context["ti"].xcom_push(key="return_value", value=facts)
        if facts["done"]:
            self.trigger_dag_id, self.trigger_run_id = PROMOTION_DAG, promotion_run_id(self.fed_run)
            self.conf = {"run": self.fed_run}
        else:
            self.trigger_run_id = round_run_id(self.fed_run, number + 1)
            self.conf = {"run": self.fed_run, "round": number + 1}
        super().execute(context)


def advance(connection: str, run: str, round_number: str | int, step: str) -> Facts:
    """Facts of `step` of the round, taken now unless the journal holds them, and the library's own `seconds`."""
    from fedcore import coordinator

    workdir, begin = FedcoreHook(connection).place.workdir, time.monotonic()
    facts: Facts = coordinator.advance(workdir, run, int(round_number), step)
    return {**facts, "seconds": round(time.monotonic() - begin, 4)}
