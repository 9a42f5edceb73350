"""Who is asked: each way keeps the law it is named for, in whatever order clients are handed over."""

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedcore.clock import Devices
from fedcore.config import OortConfig, load_config
from fedcore.errors import PlanRefused, TooFewClients
from fedcore.history import History
from fedcore.rng import generator
from fedcore.selection import SELECTIONS, Draw, Population, Turn, selection
from fedcore.selection.oort import exploration, utility

SIZED = ("uniform", "quality", "fair", "available", "oort")
WINDOWS = "time.availability={period_s: 100, windows: [[0, 40]]}"


def population(size: int, *overrides: str, virtual: bool = False) -> tuple[Draw, Population]:
    clients = tuple(f"c{i:06d}" for i in range(size))
    config = load_config(overrides=[*overrides, *(["time.mode=virtual"] if virtual else [])])
    devices = Devices.of(config, clients) if virtual else None
    everyone = Population(clients, 1.0 + np.arange(size) % 7, devices)
    return selection(config, everyone).draw, everyone


def after(history: History, cohort: tuple[str, ...], everyone: Population, number: int) -> History:
    """What the rounds remember: how often, and when."""
    rows = {}
    for place in everyone.places(cohort).tolist():
        known = history.of(place) or {"asked": 0.0}
        rows[place] = {
            "asked": known["asked"] + 1,
            "last": number,
            "loss": 1.0 + place % 5,
            "seconds": 1.0 + place % 3,
        }
    return history.after(rows)


def played(draw: Draw, everyone: Population, rounds: int, step: float = 0.0) -> list[tuple[str, ...]]:
    history, cohorts = History(), []
    for number in range(rounds):
        turn = Turn(number, number * step, history)
        cohorts.append(draw(everyone.clients, generator(1, "cohort", number), turn))
        history = after(history, cohorts[-1], everyone, number)
    return cohorts


@pytest.mark.parametrize("name", SIZED)
def test_cohorts_have_their_size_nobody_twice_and_the_order_of_clients_changes_nothing(name):
    draw, everyone = population(30, f"cohort.sampling={name}", "cohort.size=8", WINDOWS, virtual=True)
    history = after(History(), everyone.clients[:20], everyone, 0)
    cohort = draw(everyone.clients, generator(1, "a"), Turn(3, 55.0, history))
    assert len(set(cohort)) == len(cohort) == 8
    assert list(cohort) == sorted(cohort)
    if name != "uniform":  # which is handed clients in order by the plan
        shuffled = list(everyone.clients)
        np.random.default_rng(0).shuffle(shuffled)
        assert draw(shuffled, generator(1, "a"), Turn(3, 55.0, history)) == cohort
    some = everyone.clients[5:25]
    assert set(draw(some, generator(1, "b"), Turn(3, 55.0, history))) <= set(some)
    with pytest.raises(TooFewClients, match=r"cohort\.size needs at least 8 clients, got 7"):
        draw(everyone.clients[:7], generator(1, "c"), Turn(0))


@given(st.integers(1, 12), st.integers(12, 40), st.integers(1, 30))
def test_fair_cohorts_never_let_two_clients_differ_by_more_than_one(size, clients, rounds):
    draw, everyone = population(clients, "cohort.sampling=fair", f"cohort.size={size}")
    times = np.zeros(clients, int)
    for cohort in played(draw, everyone, rounds):
        times[everyone.places(cohort)] += 1
        assert np.ptp(times) <= 1


def test_fair_cohorts_take_those_asked_least_of_those_who_may_start():
    draw, everyone = population(40, "cohort.sampling=fair", "cohort.size=5", WINDOWS, virtual=True)
    history = History()
    for number in range(60):
        starts = everyone.devices.starts(13.0 * number)
        times = history.column("asked", 40, 0.0)
        cohort = draw(everyone.clients, generator(1, number), Turn(number, 13.0 * number, history))
        ready = starts <= 13.0 * number
        chosen = everyone.places(cohort)
        assert ready.sum() >= 5
        assert ready[chosen].all()
        left = np.setdiff1d(np.flatnonzero(ready), chosen)
        assert not len(left) or times[chosen].max() <= times[left].min()
        history = after(history, cohort, everyone, number)


def test_poisson_cohorts_have_the_size_of_independent_draws():
    draw, everyone = population(400, "cohort.sampling=poisson", "cohort.rate=0.1")
    cohorts = [draw(everyone.clients, generator(1, "p", i), Turn(i)) for i in range(500)]
    sizes = np.array([len(cohort) for cohort in cohorts])
    # Five standard errors each: right draws are refused with a chance below 2e-6.
    assert abs(sizes.mean() - 40) < 5 * np.sqrt(36 / 500)
    assert abs(sizes.var() - 36) < 5 * 36 * np.sqrt(2 / 500)
    times = np.bincount(np.concatenate([everyone.places(cohort) for cohort in cohorts]), minlength=400)
    assert abs(times - 50).max() < 7 * np.sqrt(45)  # of 400 clients: below 1e-8 by the normal tail


def test_quality_asks_by_rows():
    draw, everyone = population(7, "cohort.sampling=quality", "cohort.size=1")
    cohorts = [draw(everyone.clients, generator(1, "q", i), Turn(i)) for i in range(2000)]
    share = np.bincount([int(everyone.places(cohort)[0]) for cohort in cohorts], minlength=7) / 2000
    expected = everyone.rows / everyone.rows.sum()
    assert (
        np.abs(share - expected) < 5 * np.sqrt(expected * (1 - expected) / 2000)
    ).all()  # below 1e-5 for all 7


def test_available_asks_the_open_and_else_the_soonest():
    draw, everyone = population(20, "cohort.sampling=available", "cohort.size=6", WINDOWS, virtual=True)
    for number in range(30):
        now = 17.0 * number
        starts = everyone.devices.starts(now)
        chosen = starts[everyone.places(draw(everyone.clients, generator(1, number), Turn(number, now)))]
        assert chosen.max() <= max(now, np.sort(starts)[5])
    with pytest.raises(PlanRefused, match="only a virtual clock knows who may start"):
        population(9, "cohort.sampling=available")


def test_oort_asks_every_client_in_the_end():
    draw, everyone = population(60, "cohort.sampling=oort", "cohort.size=5")
    seen: set[str] = set()
    for cohort in played(draw, everyone, 56):
        assert len(seen) == 60 or set(cohort) - seen  # at least one new client while there are any
        seen |= set(cohort)
    assert len(seen) == 60


def test_oorts_utility_is_the_papers():
    settings = OortConfig(preferred=0.5, outliers=1.0)
    history = History().after(
        {
            0: {"asked": 1, "last": 3, "loss": 2.0, "seconds": 1.0},
            1: {"asked": 1, "last": 0, "loss": 0.5, "seconds": 2.0},
            2: {"asked": 1, "last": 3, "loss": 1.0, "seconds": 4.0},
            3: {"asked": 1, "last": 1},
        }
    )
    rows = np.array([10.0, 20, 30, 40, 50])
    bonus = np.sqrt(0.1 * np.log(10.0) / np.array([4.0, 1, 4, 2]))
    expected = [20 + bonus[0], 10 + bonus[1], (30 + bonus[2]) * (2 / 4) ** 2, bonus[3]]
    assert utility(settings, history, rows, 9)[:4] == pytest.approx(expected)
    assert utility(OortConfig(outliers=0.0), history, rows, 9)[0] == pytest.approx(
        (10 + bonus[0]) * min(1.0, np.quantile([1, 2, 4], 0.3) / 1.0) ** 2
    )
    assert utility(settings, History(), rows, 0).tolist() == [0.0] * 5
    shares = [exploration(OortConfig(), number) for number in range(200)]
    assert shares == sorted(shares, reverse=True)
    assert (shares[0], shares[-1]) == (0.9, 0.2)


def test_oort_prefers_the_useful_and_leaves_the_slow():
    settings = (
        "cohort.sampling=oort",
        "cohort.size=10",
        "cohort.oort={least_exploration: 0, exploration: 0, cutoff: 0}",
    )
    draw, everyone = population(100, *settings)
    history = History().after(
        {
            i: {"asked": 1, "last": 0, "loss": 5.0 if i < 20 else 0.5, "seconds": 1.0 if i % 2 else 50.0}
            for i in range(100)
        }
    )
    times = np.zeros(100)
    for number in range(100):
        times[everyone.places(draw(everyone.clients, generator(2, number), Turn(9, 0.0, history)))] += 1
    quick = np.arange(100) % 2 == 1
    assert times[:20][quick[:20]].mean() > 3 * times[20:][quick[20:]].mean()
    assert times[quick].mean() > 5 * times[~quick].mean()


def test_only_poisson_claims_amplification():
    config = load_config(overrides=["time.mode=virtual", "cohort.rate=0.1"])
    claims = {name: make(config, Population()).amplifies_at for name, make in SELECTIONS.items()}
    assert {name for name, rate in claims.items() if rate is not None} == {"poisson"}
    assert claims["poisson"] == 0.1


@pytest.mark.parametrize("name", sorted(SELECTIONS))
def test_a_hundred_thousand_clients_are_chosen_from_in_a_second(name):
    sized = ["cohort.size=100", "cohort.rate=0.001", "privacy.bands=1000", "cohort.min_clients=1", WINDOWS]
    draw, everyone = population(100_000, f"cohort.sampling={name}", *sized, virtual=True)
    history = after(History(), everyone.clients[::7], everyone, 0)
    draw(everyone.clients, generator(1, "first"), Turn(1, 10.0, history))  # devices' phases are made once
    start = time.process_time()
    draw(everyone.clients, generator(1, "second"), Turn(2, 20.0, history))
    assert time.process_time() - start < 1.0
