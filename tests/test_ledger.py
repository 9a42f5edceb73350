"""A round is charged once, before it releases anything, and the chain shows any change."""

import pytest

from fedcore import ledger as ledgers
from fedcore.errors import BadConfig, BudgetSpent, CorruptState
from fedcore.ledger import PrivacyLedger, entries
from fedcore.privacy.accountant import epsilon
from fedcore.privacy.events import GaussianSum, event_from_json, event_tree
from fedcore.store import Store

EVENT = GaussianSum(noise_multiplier=2.0, sampling_rate=None)


@pytest.fixture
def store(tmp_path):
    with Store.at(tmp_path) as opened:
        yield opened


def account(store: Store, limit: float = 3.0, name: str = "airlines@v1") -> PrivacyLedger:
    return PrivacyLedger(store, name, limit=limit, delta=1e-5)


@pytest.mark.parametrize(
    ("rate", "sigma", "rounds", "delta", "pld"),
    [
        (0.01, 1.0, 1, 1e-5, 0.1995),
        (0.01, 0.8, 1000, 1e-5, 3.1410),
        (0.1, 1.0, 100, 1e-5, 7.0466),
        (0.25, 8.0, 100, 1e-3, 0.7840),
        (None, 1.0, 1, 1e-5, 4.37718),
        (None, 100, 1000, 1e-5, 1.19937),
    ],
)
def test_epsilon_equals_the_reference_values(rate, sigma, rounds, delta, pld):
    assert epsilon([GaussianSum(sigma, rate)] * rounds, delta) == pytest.approx(pld, rel=5e-3)


def test_nothing_released_costs_nothing_and_delta_must_make_sense():
    assert epsilon([], 1e-5) == 0
    with pytest.raises(BadConfig, match="delta"):
        epsilon([EVENT], 0)


def test_a_retried_round_is_charged_once(store):
    first = account(store).reserve("a", 0, EVENT)
    assert account(store).reserve("a", 0, EVENT) == first
    for _ in range(2):
        account(store).settle("a", 0, EVENT)
    assert [entry["kind"] for entry in entries(store)] == ["reserve", "settle"]
    assert account(store).spent() == first == pytest.approx(epsilon([EVENT], 1e-5))


def test_a_retried_round_is_told_what_it_was_told_before(store):
    first = account(store).reserve("a", 0, EVENT)
    second = account(store).reserve("a", 1, EVENT)
    assert account(store).reserve("a", 0, EVENT) == first < second


def test_two_runs_on_one_population_draw_on_one_account(store):
    spent = [account(store).reserve(run, 0, EVENT) for run in ("a", "b")]
    assert spent[1] == pytest.approx(epsilon([EVENT, EVENT], 1e-5))
    assert spent[1] > spent[0]
    assert account(store, name="others@v1").reserve("c", 0, EVENT) == spent[0]


def test_the_round_that_would_exceed_the_budget_is_refused_and_not_charged(store):
    limit = epsilon([EVENT, EVENT], 1e-5) * 1.001
    ledger = account(store, limit)
    ledger.reserve("a", 0, EVENT)
    assert ledger.affords(EVENT)
    ledger.reserve("a", 1, EVENT)
    assert not ledger.affords(EVENT)
    with pytest.raises(BudgetSpent, match=r"ε would be .* after round 2, limit .*stop at round 1"):
        ledger.reserve("a", 2, EVENT)
    assert len(entries(store)) == 2


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE ledger SET body = replace(body, '2.0', '9.0') WHERE sequence = 0",
        "UPDATE ledger SET body = 'no json' WHERE sequence = 1",
        "DELETE FROM ledger WHERE sequence = 1",
        "UPDATE ledger SET account = 'others' WHERE sequence = 2",
    ],
)
def test_a_changed_or_missing_entry_breaks_the_chain(store, statement):
    for number in range(3):
        account(store, 100).reserve("a", number, EVENT)
    with store.engine.begin() as connection:
        connection.exec_driver_sql(statement)
    with pytest.raises(CorruptState, match="the chain breaks at entry"):
        account(store).reserve("a", 9, EVENT)


def test_an_unknown_event_is_never_skipped():
    with pytest.raises(CorruptState, match="unknown kind 'laplace'"):
        event_from_json({"kind": "laplace"})
    assert event_from_json(event_tree(EVENT)) == EVENT


def test_the_genesis_is_the_only_start(store):
    account(store).reserve("a", 0, EVENT)
    assert entries(store)[0]["previous"] == ledgers.GENESIS
