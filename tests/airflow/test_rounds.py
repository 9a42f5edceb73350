"""The tasks of a round on a real small run: what they leave, what they trigger, when they wait."""

import asyncio
import json
import time

import pytest

from fedcore import coordinator
from fedcore.errors import BadInput, BudgetSpent, RunBusy, ServiceError, TooFewClients
from fedcore.ledger import PrivacyLedger, entries
from fedcore.privacy.events import event_from_json
from fedcore.store import Store

airflow = pytest.importorskip("airflow")
from airflow.sdk.definitions.retry_policy import RetryAction  # noqa: E402
from airflow.sdk.exceptions import TaskDeferred  # noqa: E402

from fedcore.airflow.retry import task_defaults  # noqa: E402
from fedcore.airflow.rounds import DecideOperator, RoundStepOperator, WaitForQuorumOperator  # noqa: E402
from fedcore.airflow.triggers import QuorumTrigger  # noqa: E402


@pytest.fixture
def run(workdir, settings, connect):
    """A run of three rounds that is open."""
    connect(workdir)
    return coordinator.open_run(settings(), workdir, "small").name


def step(run: str, number: int, *steps: str) -> dict:
    task = RoundStepOperator(task_id="step", steps=steps, fed_run=run, fed_round=str(number))
    return task.execute({})


def decide(run: str, number: int, left) -> tuple[str, str, dict]:
    """What the decide task asks Airflow to trigger."""
    task = DecideOperator(task_id="decide", fed_run=run, fed_round=str(number))
    with pytest.raises(BaseException) as raised:  # noqa: PT011  # Airflow's own, and not public
        task.execute({"ti": left})
    asked = raised.value
    assert type(asked).__name__ == "DagRunTriggerException", asked
    assert asked.skip_when_already_exists
    assert asked.logical_date is None
    return asked.trigger_dag_id, asked.dag_run_id, asked.conf


def test_the_tasks_of_a_round_do_what_the_library_does_in_one_call(run, workdir, new_workdir, settings, left):
    for number in range(3):
        for steps in (["select"], ["ask"], ["admit"], ["combine", "release"], ["judge"]):
            assert step(run, number, *steps)["seconds"] > 0
        decide(run, number, left)
    coordinator.finish(workdir, run)
    elsewhere = new_workdir("elsewhere")
    result = coordinator.simulate(settings(), elsewhere, "small")
    assert result.rounds == 3
    ours, theirs = (place / "runs" / "small" / "records.jsonl" for place in (workdir, elsewhere))
    assert ours.read_bytes() == theirs.read_bytes()


def test_a_step_that_is_taken_twice_is_taken_once(run):
    first = step(run, 0, "select", "ask")
    again = step(run, 0, "select", "ask")
    assert {**first, "seconds": 0} == {**again, "seconds": 0}


def test_a_round_triggers_the_next_under_a_fixed_name_and_the_last_the_promotion(run, left):
    assert decide(run, 0, left) == ("federated_round", "small__r0001", {"run": "small", "round": 1})
    assert left["return_value"]["done"] is False
    decide(run, 1, left)
    assert decide(run, 2, left) == ("federated_promotion", "small__promotion", {"run": "small"})
    assert left["return_value"]["done"] is True


def test_a_round_that_another_run_left_no_budget_for_ends_in_the_promotion(workdir, settings, connect, left):
    connect(workdir)
    private = (
        "privacy.mode=central",
        "privacy.delta=0.01",
        "privacy.noise_multiplier=2",
        "combine.weights=equal",
    )
    run = coordinator.open_run(settings(*private, "privacy.epsilon=6"), workdir, "private").name
    assert decide(run, 0, left)[0] == "federated_round"
    with Store.at(workdir) as store:
        account = entries(store)[0]["account"]
        event = event_from_json(entries(store)[1]["body"]["event"])
        other = PrivacyLedger(store, account, limit=6.0, delta=0.01, identity="other")
        with pytest.raises(BudgetSpent):
            for number in range(100):
                other.reserve("other", number, event)
    assert step(run, 1, "select")["done"]
    assert WaitForQuorumOperator(task_id="wait", fed_run=run, fed_round="1").execute({})["met"]
    assert step(run, 1, "combine", "release")["done"]
    assert decide(run, 1, left) == ("federated_promotion", "private__promotion", {"run": "private"})
    assert "privacy budget spent" in left["return_value"]["stopped"]


def test_deciding_again_asks_for_the_same_round(run, left):
    assert decide(run, 0, left) == decide(run, 0, left)


def test_a_round_that_has_its_quorum_is_not_deferred(run):
    step(run, 0, "ask")
    facts = WaitForQuorumOperator(task_id="wait", fed_run=run, fed_round="0").execute({})
    assert facts["met"]


def test_a_round_without_its_quorum_waits_with_an_absolute_deadline(run, settings):
    before = time.time()
    step(run, 0, "select")
    with pytest.raises(TaskDeferred) as deferred:
        WaitForQuorumOperator(task_id="wait", fed_run=run, fed_round="0").execute({})
    trigger = deferred.value.trigger
    assert deferred.value.method_name == "resume"
    seconds = settings().cohort.deadline_s
    assert before + seconds <= trigger.deadline <= time.time() + seconds


def test_a_missed_deadline_is_too_few_clients():
    task = WaitForQuorumOperator(task_id="wait", fed_run="small", fed_round="4")
    assert task.resume({}, {"met": True, "replied": 3, "needed": 3})["replied"] == 3
    with pytest.raises(
        TooFewClients, match="round 4 of run small at its deadline needs at least 3 clients, got 1"
    ):
        task.resume({}, {"met": False, "replied": 1, "needed": 3})


def first_event(trigger) -> dict:
    async def one():
        return (await anext(trigger.run())).payload

    return asyncio.run(one())


def test_the_quorum_trigger_fires_when_the_quorum_is_met(run, workdir):
    step(run, 0, "ask")
    assert first_event(QuorumTrigger(str(workdir), run, 0, time.time() + 60))["met"]


def test_the_quorum_trigger_fires_at_its_deadline_too(run, workdir):
    step(run, 0, "select")
    assert not first_event(QuorumTrigger(str(workdir), run, 0, time.time() - 1))["met"]


def test_the_quorum_trigger_sees_replies_that_come_while_it_waits(run, workdir):
    step(run, 0, "select")

    async def both():
        trigger = QuorumTrigger(str(workdir), run, 0, time.time() + 60, poll_s=0.01)
        waiting = asyncio.create_task(anext(trigger.run()))
        await asyncio.to_thread(step, run, 0, "ask")
        return (await waiting).payload

    assert asyncio.run(both())["met"]


def test_a_trigger_can_be_made_again_from_what_it_serializes(workdir):
    path, arguments = QuorumTrigger(str(workdir), "small", 2, 12.5, 0.5).serialize()
    assert path == "fedcore.airflow.triggers.QuorumTrigger"
    assert json.loads(json.dumps(arguments)) == arguments
    assert QuorumTrigger(**arguments).serialize() == (path, arguments)


@pytest.mark.parametrize(
    ("error", "action"),
    [
        (BudgetSpent(9.0, 8.0, 3), RetryAction.FAIL),
        (BadInput("no such run"), RetryAction.FAIL),
        (TooFewClients(2, 1, "a round"), RetryAction.FAIL),
        (RunBusy("somebody works on it"), RetryAction.RETRY),
        (ServiceError("MLflow does not answer"), RetryAction.DEFAULT),
        (OSError("disk"), RetryAction.DEFAULT),
    ],
)
def test_only_what_can_change_by_itself_is_tried_again(error, action):
    defaults = task_defaults()
    assert defaults["retries"] == 3
    assert defaults["retry_policy"].evaluate(error, 1, 3).action is action
