"""A round is charged once, before it releases anything, and the chain shows any change."""

import sqlite3
import time
from contextlib import closing

import pytest
import sqlalchemy as sa

from fedcore.errors import (
    BadConfig,
    BadInput,
    BudgetSpent,
    CorruptState,
    PlanRefused,
    StorageError,
    UnknownName,
)
from fedcore.ledger import GENESIS, Entry, PrivacyLedger, entries, raise_limit, spending, verified
from fedcore.ledger.account import Account
from fedcore.ledger.chain import Mark, append
from fedcore.privacy.accountant import epsilon
from fedcore.privacy.events import (
    Covered,
    GaussianSum,
    LocalRelease,
    MatrixSums,
    RecordSgd,
    event_from_json,
    event_tree,
)
from fedcore.store import Store

EVENT = GaussianSum(noise_multiplier=2.0, sampling_rate=None)


@pytest.fixture
def store(tmp_path):
    with Store.at(tmp_path) as opened:
        yield opened


def tampered(store: Store, statement: str) -> None:
    """What somebody with every right on the database does: drop the triggers first."""
    with store.engine.begin() as connection:
        for act in ("update", "delete"):
            connection.exec_driver_sql(f"DROP TRIGGER IF EXISTS ledger_no_{act}")
        connection.exec_driver_sql(statement)


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
    assert [entry["kind"] for entry in entries(store)] == ["open", "reserve", "settle"]
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
    assert ledger.affords("a", 1, EVENT)
    ledger.reserve("a", 1, EVENT)
    assert not ledger.affords("a", 2, EVENT)
    assert ledger.affords("a", 1, EVENT), "a round that was charged may be released"
    with pytest.raises(BudgetSpent, match=r"ε would be .* after round 2, limit .*stop at round 1"):
        ledger.reserve("a", 2, EVENT)
    with pytest.raises(BudgetSpent, match=r"fedcore privacy ledger --account airlines@v1 --raise EPSILON"):
        ledger.require("a", 2, EVENT)
    assert [entry["kind"] for entry in entries(store)] == ["open", "reserve", "reserve"]


def test_not_even_one_round_can_be_paid(store):
    with pytest.raises(BudgetSpent, match=r"after round 0, limit 0.1; .* or add noise"):
        account(store, 0.1).reserve("a", 0, EVENT)
    assert entries(store) == []


def test_a_run_with_a_lower_limit_stops_at_its_own(store):
    one = epsilon([EVENT], 1e-5)
    account(store).reserve("a", 0, EVENT)
    modest = account(store, one * 1.001)
    assert not modest.affords("b", 0, EVENT)
    with pytest.raises(BudgetSpent, match=r"raise privacy\.epsilon in params\.yaml"):
        modest.reserve("b", 0, EVENT)
    assert account(store).affords("b", 0, EVENT)


@pytest.mark.parametrize(
    ("changes", "event", "sentence"),
    [
        ({"limit": 4.0}, EVENT, r"limit ε = 3 and privacy\.epsilon is 4; .*--raise 4\)"),
        ({"delta": 1e-6}, EVENT, r"delta 1e-05, and .* delta 1e-06, .*set privacy\.delta: 1e-05"),
        ({}, RecordSgd(1.0, 0.1, 10), r"unit client, and .* unit record"),
        ({}, LocalRelease(1.0), r"relation add_or_remove, and .* relation replace"),
    ],
)
def test_an_account_keeps_the_terms_of_its_first_entry(store, changes, event, sentence):
    account(store).reserve("a", 0, EVENT)
    other = PrivacyLedger(store, "airlines@v1", **{"limit": 3.0, "delta": 1e-5, **changes})
    with pytest.raises(PlanRefused, match=sentence):
        other.reserve("b", 0, event)
    with pytest.raises(PlanRefused, match=sentence):
        other.affords("b", 0, event)
    opened = entries(store)[0]
    assert opened["body"] == {
        "limit": 3.0,
        "delta": 1e-5,
        "unit": "client",
        "relation": "add_or_remove",
        "population": "airlines",
        "data_version": "v1",
    }
    assert (opened["run"], opened["identity"], opened["round"]) == (None, None, None)


def test_a_limit_is_raised_by_a_recorded_act_alone(store):
    account(store).reserve("a", 0, EVENT)
    with pytest.raises(BadInput, match="has the limit ε = 3, got 2; it can only be raised"):
        raise_limit(store, "airlines@v1", 2.0, "a mistake")
    with pytest.raises(BadInput, match="can only be raised"):
        raise_limit(store, "airlines@v1", float("nan"), "a mistake")
    with pytest.raises(UnknownName, match="unknown account 'airline@v1'; did you mean 'airlines@v1'"):
        raise_limit(store, "airline@v1", 9.0, "a mistake")
    raise_limit(store, "airlines@v1", 9.0, "the board said so")
    assert entries(store)[-1]["body"] == {"limit": 9.0, "reason": "the board said so"}
    richer = account(store, 9.0)
    richer.reserve("b", 0, EVENT)
    assert richer.limit == 9.0
    assert account(store, 3.0).limit == 3.0


def test_a_name_used_again_is_another_run(store):
    def run(identity: str) -> PrivacyLedger:
        return PrivacyLedger(store, "airlines@v1", limit=3.0, delta=1e-5, identity=identity)

    first = run("one").reserve("a", 0, EVENT)
    assert run("one").reserve("a", 0, EVENT) == first
    assert run("two").reserve("a", 0, EVENT) > first
    assert [r.run for r in spending(verified(store))[0].runs] == ["a (one)", "a (two)"]


def test_a_round_is_released_for_what_it_was_charged_and_once(store):
    other = GaussianSum(noise_multiplier=1.0, sampling_rate=None)
    with pytest.raises(CorruptState, match="round 0 of run a was not charged"):
        account(store).settle("a", 0, EVENT)
    account(store).reserve("a", 0, EVENT)
    for act in (account(store).reserve, account(store).settle):
        with pytest.raises(CorruptState, match=r"was charged for .*2\.0.* and now releases .*1\.0"):
            act("a", 0, other)
    account(store).settle("a", 0, EVENT, {"clip": 0.7})
    assert entries(store)[-1]["body"]["released"] == {"clip": 0.7}
    with pytest.raises(CorruptState, match="released already .* journal is older than the ledger"):
        account(store).reserve("a", 0, EVENT)


def test_a_covered_round_without_the_charge_that_covers_it_is_refused(store):
    ledger = account(store, 100)
    for early in (Covered(0), Covered(1)):
        with pytest.raises(PlanRefused, match="pays for 0 rounds"):
            ledger.reserve("a", 1, early)
    assert entries(store) == []


def test_a_covered_round_needs_its_own_runs_charge():
    """The rule without the accountant, which may not know these events."""
    book = Account("x@v1")
    whole = event_tree(MatrixSums(noise_multiplier=10.0, sensitivity=1.0, rounds=3))
    body = {"event": whole, "epsilon": 1.0}
    book.add(Entry(0, "x@v1", "reserve", "a", "one", 2, body, GENESIS))
    for number in (3, 4):
        book.refuse_uncovered(("one", number), Covered(2))
    for key in (("one", 5), ("one", 2), ("two", 3)):
        with pytest.raises(PlanRefused, match=r"which pays for \d rounds"):
            book.refuse_uncovered(key, Covered(2))


def test_an_entry_of_another_kind_is_never_skipped():
    with pytest.raises(CorruptState, match="entry 0 is of unknown kind 'refund'"):
        Account("x").add(Entry(0, "x", "refund", None, None, None, {}, GENESIS))


@pytest.mark.parametrize("statement", ["UPDATE ledger SET round = 7", "DELETE FROM ledger"])
def test_the_database_itself_refuses_to_change_an_entry(store, statement):
    account(store).reserve("a", 0, EVENT)
    with pytest.raises(sa.exc.IntegrityError, match="append-only"), store.engine.begin() as connection:
        connection.exec_driver_sql(statement)
    assert len(verified(store)) == 2


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE ledger SET body = replace(body, '2.0', '9.0') WHERE sequence = 1",
        "UPDATE ledger SET body = 'no json' WHERE sequence = 1",
        "DELETE FROM ledger WHERE sequence = 1",
        "UPDATE ledger SET account = 'others' WHERE sequence = 2",
    ],
)
def test_a_changed_or_missing_entry_breaks_the_chain(store, statement):
    for number in range(3):
        account(store, 100).reserve("a", number, EVENT)
    tampered(store, statement)
    with pytest.raises(CorruptState, match="the chain breaks at entry"):
        account(store).reserve("a", 9, EVENT)
    with pytest.raises(CorruptState, match="the chain breaks at entry"):
        verified(store)


def test_what_was_verified_once_is_not_read_again_but_what_came_after_is(store):
    """A long ledger must cost a round nothing: a process reads only what it has not seen."""
    ledger = account(store, 100)
    for number in range(3):
        ledger.reserve("a", number, EVENT)
    assert ledger.affords("a", 3, EVENT)
    tampered(store, "UPDATE ledger SET run = 'b' WHERE sequence = 1")
    assert ledger.affords("a", 3, EVENT)
    with pytest.raises(CorruptState, match="breaks at entry 1 "):
        verified(store)
    tampered(store, "UPDATE ledger SET run = 'b' WHERE sequence = 3")
    with pytest.raises(CorruptState, match="breaks at entry 3 "):
        ledger.reserve("a", 3, EVENT)


def test_a_tail_that_is_cut_off_is_seen_by_who_has_read_it(store):
    ledger = account(store, 100)
    for number in range(3):
        ledger.reserve("a", number, EVENT)
    ledger.spent()
    tampered(store, "DELETE FROM ledger WHERE sequence = 3")
    with pytest.raises(CorruptState, match="entry 3 .*not what this process read there before"):
        ledger.reserve("a", 3, EVENT)


@pytest.mark.no_cover  # what it does over and over other tests run once, and tracing makes it four times as slow
def test_ten_thousand_entries_are_added_up_once(store):
    ledger = account(store, 1e6)
    ledger.reserve("a", 0, EVENT)
    with store.writing() as connection:
        mark = Mark(2, verified(store)[-1].sha256)
        body = {"event": event_tree(EVENT), "epsilon": 1.0}
        for number in range(1, 10_000):
            charge = {"run": "a", "identity": "a", "round": number}
            mark = append(connection, mark, "airlines@v1", "reserve", body, **charge)
    ledger.affords("a", 0, EVENT)
    reads = []
    sa.event.listen(store.engine, "before_cursor_execute", lambda *given: reads.append(given[2:4]))
    begin = time.perf_counter()
    for _ in range(50):
        assert ledger.reserve("a", 0, EVENT) > 0
        assert ledger.affords("a", 9_999, EVENT)
    assert time.perf_counter() - begin < 2.0, "a hundred looks cost less than one full reading does"
    assert {given[1][0] for given in reads if "SELECT" in given[0]} == {10_000}


def test_a_lock_that_is_not_let_go_ends_in_a_sentence(tmp_path):
    with Store.at(tmp_path / "w") as store:
        sa.event.listen(store.engine, "connect", lambda raw, _: raw.execute("PRAGMA busy_timeout=20"))
        store.engine.dispose()
        with closing(sqlite3.connect(tmp_path / "w" / "journal.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StorageError, match=r"held by another process \(database is locked\)"):
                account(store).reserve("a", 0, EVENT)
        assert account(store).reserve("a", 0, EVENT) > 0


def test_who_spent_what_adds_up(store):
    ledger = account(store, 100)
    for number in range(3):
        ledger.reserve("a", number, EVENT)
    ledger.settle("a", 0, EVENT)
    ledger.reserve("b", 0, EVENT)
    (found,) = spending(verified(store))
    a, b = found.runs
    assert (a.run, a.charged, a.released, b.charged, b.released) == ("a", 3, 1, 1, 0)
    assert found.spent == pytest.approx(epsilon([EVENT] * 4, 1e-5))
    assert found.remaining == pytest.approx(100 - found.spent)
    assert a.epsilon == pytest.approx(epsilon([EVENT] * 3, 1e-5))
    assert b.epsilon == pytest.approx(epsilon([EVENT], 1e-5))
    assert a.share + b.share == pytest.approx(1)
    assert [run for run, _, _ in found.path] == ["a", "a", "a", "b"]
    assert found.path[-1][1:] == (found.spent, 100)


def test_an_account_that_tells_less_than_its_charges_cost_is_named(store):
    ledger = account(store, 100)
    ledger.reserve("a", 0, EVENT)
    body = {"event": event_tree(EVENT), "epsilon": 0.5}
    with store.writing() as connection:
        mark = Mark(2, verified(store)[-1].sha256)
        append(connection, mark, "airlines@v1", "reserve", body, run="a", identity="a", round=1)
    with pytest.raises(CorruptState, match=r"tells ε = 0\.5000 and its charges cost"):
        spending(verified(store))


def test_an_account_without_a_first_entry_is_named(store):
    body = {"event": event_tree(EVENT), "epsilon": 9.0}
    with store.writing() as connection:
        append(connection, Mark(), "airlines@v1", "reserve", body, run="a", identity="a", round=1)
    with pytest.raises(CorruptState, match="was never opened"):
        spending(verified(store))


def test_an_unknown_event_is_never_skipped():
    with pytest.raises(CorruptState, match="unknown kind 'laplace'"):
        event_from_json({"kind": "laplace"})
    assert event_from_json(event_tree(EVENT)) == EVENT


def test_the_genesis_is_the_only_start(store):
    account(store).reserve("a", 0, EVENT)
    assert entries(store)[0]["previous"] == GENESIS
