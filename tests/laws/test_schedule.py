"""A round on the virtual clock: the fastest count, nobody after the deadline, and every order gives the same."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedcore.clock import Devices, Schedule, Timing
from fedcore.config import config_from
from fedcore.history import COLUMNS, History

CLIENTS = tuple(f"c{i}" for i in range(12))
KINDS = [{"name": "fast", "seconds_per_row": 0.1}, {"name": "slow", "seconds_per_row": 1.0}]


def timing(
    deadline: float = 1e6, waits_for: int | None = None, fixed: bool = False, **time: object
) -> Timing:
    devices = Devices.of(config_from({"time": {"classes": KINDS, **time}}), CLIENTS)
    return Timing(devices, lambda client: 100 + int(client[1:]), deadline, waits_for, fixed)


def play(
    how: Timing, cohort: tuple[str, ...] = CLIENTS, now: float = 0.0, number: int = 0, known=None
) -> Schedule:
    return how.schedule(now, number, cohort, 1000, 1000, (known or {}).get)


def test_without_a_hurry_all_count_and_the_slowest_ends_the_round():
    found = play(timing(), now=7.0)
    assert found.counted == tuple(sorted(CLIENTS))
    assert found.ends == max(visit.until for visit in found.visits) > 7 + 100
    assert all(visit.begin == 7.0 and visit.until == 7.0 + visit.work.total for visit in found.visits)


@given(st.integers(1, 12), st.floats(1, 200), st.floats(0, 0.9), st.integers(0, 9))
def test_the_first_so_many_count_and_nothing_passes_the_end(waits_for, deadline, dropout, number):
    found = play(timing(deadline, waits_for, dropout=dropout), now=5.0, number=number)
    finished = {v.client: v.begin + v.work.total for v in found.visits}
    alive = [c for c in CLIENTS if not timing(dropout=dropout).devices.drops(c, number)]
    in_time = sorted((finished[c], c) for c in alive if finished[c] <= 5 + deadline)
    assert set(found.counted) == {client for _, client in in_time[:waits_for]}
    assert found.ends == (in_time[waits_for - 1][0] if len(in_time) >= waits_for else 5 + deadline)
    assert all(5 <= visit.begin <= visit.until <= found.ends for visit in found.visits)


def test_the_order_of_the_cohort_changes_nothing():
    how = timing(60.0, 2, dropout=0.3)
    assert len({str(play(how, cohort).to_json()) for cohort in itertools.permutations(CLIENTS[:5])}) == 1


def test_a_device_does_in_a_round_what_it_does_whoever_else_is_asked():
    how = timing(15.0, fixed=True, dropout=0.3, availability={"period_s": 50, "windows": [[0, 20]]})
    alone = {v.client: v for client in CLIENTS for v in play(how, (client,)).visits}
    assert {v.client: v for v in play(how).visits} == alone


def test_a_fixed_round_lasts_until_its_deadline_whoever_answers():
    for cohort in ((), CLIENTS[:1], CLIENTS):
        assert play(timing(500.0, fixed=True), cohort, now=3.0).ends == 503.0
    assert play(timing(500.0), ()).ends == 0.0


def test_over_selection_ends_a_round_earlier_than_waiting_for_all():
    assert play(timing(waits_for=6)).ends < 0.3 * play(timing()).ends
    assert (timing(waits_for=6).awaited(12), timing(waits_for=6).awaited(4), timing().awaited(12)) == (
        6,
        4,
        12,
    )


def test_a_lost_device_is_waited_for_until_the_deadline():
    found = play(timing(1000.0, dropout=0.5))
    fates = {visit.fate for visit in found.visits}
    assert fates == {"counted", "dropped"}
    assert found.ends == 1000.0
    assert all(v.until < v.begin + v.work.total for v in found.visits if v.fate == "dropped")


def test_a_round_that_too_few_answered_is_repeated_until_they_are_enough():
    how = timing(150.0, dropout=0.6)
    once = how.schedule(5.0, 0, CLIENTS, 0, 0, {}.get)
    found = how.schedule(5.0, 0, CLIENTS, 0, 0, {}.get, len(once.counted) + 2)
    assert len(found.counted) >= len(once.counted) + 2
    assert (once.attempts, found.begins) == (1, 5.0)
    assert found.ends == 5.0 + 150.0 * found.attempts > 200
    assert all(visit.begin >= found.ends - 150.0 for visit in found.visits)
    assert how.schedule(5.0, 0, CLIENTS, 0, 0, {}.get, 13).attempts == 10


def test_a_flat_battery_ends_the_work_and_is_drained_by_what_was_done():
    how = timing(1000.0, battery={"work_s": 50, "charge_s": 500, "limit": 0.2})
    found = play(how)
    fates = {how.devices.kind(visit.client).name: visit.fate for visit in found.visits}
    assert fates == {"fast": "counted", "slow": "flat"}
    for visit in found.visits:
        assert visit.level == pytest.approx(max(0.0, 1 - visit.work.total / 50))
    slow = next(visit for visit in found.visits if visit.fate == "flat")
    again = play(how, (slow.client,), now=60.0, known={slow.client: (0.0, slow.until)})
    assert again.visits[0].begin == pytest.approx(slow.until + 0.2 * 500)
    assert again.visits[0].until == pytest.approx(again.visits[0].begin + 0.2 * 50)
    assert again.visits[0].level == pytest.approx(0)


def test_a_device_whose_window_opens_after_the_end_never_begins():
    how = timing(5.0, availability={"period_s": 1000, "windows": [[900, 1000]], "phase": "none"})
    assert {(v.begin, v.until, v.fate) for v in play(how).visits} == {(5.0, 5.0, "late")}


def test_a_schedule_is_what_it_was_after_the_journal():
    found = play(timing(60.0, 3, dropout=0.4))
    assert Schedule.from_json(found.to_json()) == found


def test_small_batches_are_those_of_the_classes_that_need_them():
    devices = timing().devices
    small = Timing(devices, lambda client: 1, 1.0, batches={"slow": 4}).batch_sizes(CLIENTS)
    assert set(small.values()) == {4}
    assert set(small) == {client for client in CLIENTS if devices.kind(client).name == "slow"}


@given(
    st.dictionaries(st.integers(0, 50), st.floats(0, 9), max_size=8),
    st.dictionaries(st.integers(0, 50), st.floats(0, 9)),
)
def test_a_history_is_what_was_last_said_of_each(first, second):
    known = History().after({place: {"loss": loss, "asked": 1} for place, loss in first.items()})
    known = known.after({place: {"loss": loss} for place, loss in second.items()})
    both = {**first, **second}
    column = known.column("loss", 51, -1.0)
    assert column.tolist() == [both.get(place, -1.0) for place in range(51)]
    assert all((known.of(place) is not None) == (place in both) for place in range(51))
    assert known.clients.tolist() == sorted(both)
    for place in first:
        assert known.of(place)["asked"] == 1
    for place in set(second) - set(first):
        assert np.isnan(known.of(place)["asked"])
    back = History.from_arrays(known.arrays())
    assert (back.clients.tolist(), back.table.shape) == (known.clients.tolist(), (len(both), len(COLUMNS)))
