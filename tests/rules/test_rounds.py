"""Rules in whole rounds: their state is the round's state, and who was left out is in the journal."""

import numpy as np
import pytest

from fedcore.coordinator import STEPS, advance, finish, open_run, simulate
from fedcore.store import Store

STATEFUL = (
    "combine.rule=centered_clipping",
    "combine.options={radius: 0.5}",
    "server.optimizer=adam",
    "server.lr=0.01",
    "server.schedule=cosine",
)


def released(workdir, run, number):
    with Store.at(workdir) as store:
        return store.journal(run, number).kept("release").arrays


def test_state_of_rule_and_optimizer_survives_between_processes_and_steps(new_workdir, settings):
    whole, stepped = new_workdir("whole"), new_workdir("stepped")
    result = simulate(settings(*STATEFUL), whole, "a")
    open_run(settings(*STATEFUL), stepped, "a")
    for number in range(3):
        for step in STEPS:  # each opens the run anew, as another process would
            advance(stepped, "a", number, step)
    finish(stepped, "a")
    last = [released(place, "a", 2) for place in (whole, stepped)]
    assert set(last[0]) == {"model", "optimizer/first", "optimizer/second", "optimizer/steps", "rule/start"}
    for name, array in last[0].items():
        assert array.tobytes() == last[1][name].tobytes()
    assert np.abs(last[0]["rule/start"]).max() > 0
    assert int(last[0]["optimizer/steps"][0]) == 3
    assert result.rounds == 3


@pytest.mark.parametrize("mixers", ["[]", "[nnm]"])
def test_the_journal_says_who_weighs_less(workdir, settings, mixers):
    chosen = settings(
        "combine.rule=krum", "combine.options={neighbours: 1}", "combine.f=1", f"combine.mixers={mixers}"
    )
    simulate(chosen, workdir, "a")
    with Store.at(workdir) as store:
        facts = store.journal("a", 0).kept("combine").facts
    assert facts["clients"] == 4
    assert len(facts["reduced"]) == (3 if mixers == "[]" else 1)
    assert set(facts["reduced"].values()) == {0.0}
