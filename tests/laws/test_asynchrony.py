"""Laws of asynchronous training as a state machine: staleness, distinct clients, caps, under any interleaving."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from fedcore.asynchrony import (
    Asynchrony,
    Course,
    Handed,
    arrived,
    began,
    course_from,
    course_tree,
    effective_rate,
    emptied,
    gone,
    held_back,
    hinge,
    is_full,
    played,
    polynomial,
    staleness,
    weight,
)
from fedcore.config import AsynchronyConfig
from fedcore.errors import BadInput, TooFewClients
from fedcore.rng import generator
from fedcore.types import canonical_json

CLIENTS = ("a", "b", "c", "d", "e", "f")
RULES = Asynchrony("fedbuff", size=2, at_once=4, weight=lambda s: 1.0)


class AnyInterleaving(RuleBasedStateMachine):
    """Clients begin, answer, answer again, vanish, unasked ones send; a plain ledger keeps the truth."""

    @initialize(
        size=st.integers(1, 3),
        at_once=st.integers(1, 6),
        limit=st.none() | st.integers(0, 3),
        cap=st.none() | st.integers(1, 2),
        window=st.integers(1, 4),
    )
    def open(self, size, at_once, limit, cap, window):
        self.rules = replace(
            RULES, size=size, at_once=at_once, max_staleness=limit, participations=cap, window=window
        )
        self.course = Course()
        self.given: dict[str, int] = {}  # client -> version it was handed, by our own count
        self.made: list[list[str]] = []  # contributors of each version made
        self.open_version: list[str] = []

    @rule(client=st.sampled_from(CLIENTS))
    def begin(self, client):
        handed = Handed(self.course.version, "m", self.course.now)
        if held_back(self.course, self.rules, client) or len(self.given) >= self.rules.at_once:
            with pytest.raises(BadInput, match=f"client {client} cannot begin"):
                began(self.course, self.rules, client, handed)
            return
        self.course = began(self.course, self.rules, client, handed)
        assert client not in self.given
        self.given[client] = len(self.made)

    @rule(client=st.sampled_from((*CLIENTS, "stranger")))
    def answer(self, client):
        if is_full(self.course, self.rules):
            return
        before = self.course
        why, self.course = arrived(self.course, self.rules, client)
        if client not in self.given:
            assert why in (
                "answered without being asked",
                "a second update for one version, the first counts",
            )
            assert self.course == before
            return
        old = len(self.made) - self.given.pop(client)
        if why is None:
            assert self.rules.max_staleness is None or old <= self.rules.max_staleness
            assert client not in self.open_version
            assert staleness(self.course, self.course.buffer)[client] == old
            self.open_version.append(client)
        else:
            assert set(self.course.buffer) == set(self.open_version)
            too_old = self.rules.max_staleness is not None and old > self.rules.max_staleness
            assert too_old == (f"{old} versions old" in why)

    @rule(client=st.sampled_from(CLIENTS))
    def vanish(self, client):
        self.course = gone(self.course, client)
        self.given.pop(client, None)

    @precondition(lambda self: is_full(self.course, self.rules))
    @rule()
    def make_a_version(self):
        assert len(self.open_version) == len(set(self.open_version)) == self.rules.size
        self.made.append(self.open_version)
        self.open_version = []
        self.course = emptied(self.course, self.rules)

    @invariant()
    def the_journal_gives_it_back(self):
        assert course_from(json.loads(canonical_json(course_tree(self.course)))) == self.course

    @invariant()
    def nobody_passes_the_cap_in_any_window(self):
        assert self.course.version == len(self.made)
        assert {client: handed.version for client, handed in self.course.training.items()} == self.given
        if self.rules.participations is None:
            return
        latest = [*self.made, self.open_version][-self.rules.window :]
        for client in CLIENTS:
            assert sum(client in version for version in latest) <= self.rules.participations


AnyInterleaving.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestAnyInterleaving = AnyInterleaving.TestCase


def run(rules, versions, clients=CLIENTS, course=None, seed=1):
    """So many versions on the virtual clock, and the course after them."""
    course, found = course or Course(), []
    for _ in range(versions):
        chance = generator(seed, "cohort", course.version)
        found.append(played(course, rules, clients, chance, f"m{course.version}"))
        course = course_from(json.loads(canonical_json(course_tree(found[-1].course))))
    return found, course


def steady(seconds):
    return lambda client, version, start: seconds[client]


SPEEDS = {"a": 1.0, "b": 1.0, "c": 1.5, "d": 4.0, "e": 9.0, "f": 30.0}


def test_without_delay_nobody_is_stale_and_every_version_has_a_whole_cohort():
    found, course = run(replace(RULES, size=6, at_once=6), 3)
    assert [version.began for version in found] == [CLIENTS] * 3
    assert all(set(staleness(Course(n), found[n].counted).values()) == {0} for n in range(3))
    assert course.now == 0.0


def test_a_slow_client_never_makes_the_others_wait():
    found, course = run(replace(RULES, size=2, at_once=6, takes=steady(SPEEDS)), 10)
    assert course.now < SPEEDS["f"]
    assert "f" in course.training
    assert course.training["f"].version == 0
    assert all(len(version.counted) == 2 for version in found)


def test_too_old_an_update_is_refused_with_the_reason_and_the_client_begins_again():
    rules = replace(RULES, size=2, at_once=6, max_staleness=6, takes=steady(SPEEDS))
    found, _ = run(rules, 60)
    refused = {client: why for version in found for client, why in version.refused.items()}
    assert set(refused) == {"e", "f"}
    assert "asynchrony.max_staleness is 6; start again from the current one" in refused["f"]
    assert all(
        old <= 6 for n, version in enumerate(found) for old in staleness(Course(n), version.counted).values()
    )
    again = [n for n, version in enumerate(found) if "e" in version.began]
    assert len(again) > 1


def test_a_cap_on_participation_slows_fast_clients_down():
    rules = replace(RULES, size=2, at_once=6, takes=steady(SPEEDS))
    free = [client for version in run(rules, 40)[0] for client in version.counted]
    capped, _ = run(replace(rules, participations=1, window=3), 40)
    seen = [client for version in capped for client in version.counted]
    assert seen.count("a") < free.count("a")
    assert seen.count("e") > free.count("e")


def test_a_lost_client_frees_its_place_after_the_patience():
    rules = replace(
        RULES, takes=lambda client, version, start: None if client == "a" else 40.0, at_once=6, patience=50.0
    )
    found, _ = run(rules, 6)
    assert {client for version in found for client in version.lost} == {"a"}
    assert not any("a" in version.counted or "a" in version.began for version in found)


def test_a_client_that_was_lost_may_be_lucky_when_it_tries_again():
    lossy = replace(RULES, takes=lambda client, task, start: None if task < 2**32 else 1.0, patience=7.0)
    found, course = run(lossy, 3)
    assert course.now > 7.0
    assert all(len(version.counted) == 2 and version.lost for version in found[:1])


def test_where_everyone_is_always_lost_the_simulation_ends():
    with pytest.raises(TooFewClients, match="asynchrony.buffer"):
        run(replace(RULES, size=1, takes=lambda client, task, start: None), 1)


def test_where_nobody_can_fill_the_buffer_it_is_said():
    with pytest.raises(TooFewClients, match="asynchrony.buffer"):
        run(replace(RULES, size=3), 1, clients=("a", "b"))


@given(seed=st.integers(0, 99), size=st.integers(1, 4), at_once=st.integers(1, 6), versions=st.integers(1, 8))
@settings(max_examples=40)
def test_time_never_runs_back_and_no_more_train_at_once_than_said(seed, size, at_once, versions):
    def takes(client, version, start):
        return float(generator(seed, "t", client, version).exponential())

    rules = replace(RULES, size=size, at_once=at_once, takes=takes)
    found, course = run(rules, versions, seed=seed)
    times = [version.course.now for version in found]
    assert times == sorted(times)
    assert all(len(version.course.training) <= at_once for version in found)
    started = [(client, n) for n, version in enumerate(found) for client in version.began]
    assert len(started) == len(set(started)), "a client begins at most once a version"
    assert run(rules, versions, seed=seed)[1] == course


@given(tau=st.integers(0, 1000), a=st.floats(0, 4), start=st.integers(0, 10), slope=st.floats(0.01, 20))
def test_weights_lie_between_0_and_1_fall_with_age_and_spare_the_fresh(tau, a, start, slope):
    for s in (lambda t: polynomial(t, a), lambda t: hinge(t, start, slope)):
        assert s(0) == 1.0
        assert 0 < s(tau + 1) <= s(tau) <= 1


def test_weights_are_those_of_the_papers():
    assert weight(AsynchronyConfig(weight="constant"))(7) == 1.0
    assert weight(AsynchronyConfig(weight="polynomial", exponent=0.5))(3) == 0.5
    old = weight(AsynchronyConfig(weight="hinge", hinge_start=4, hinge_slope=10.0))
    assert [old(4), old(5)] == [1.0, pytest.approx(1 / 11)]


def test_a_stale_version_takes_a_shorter_step_unless_weights_are_normalised():
    weights = np.array([1.0, 0.5])
    assert effective_rate(RULES, weights) == 0.75
    assert effective_rate(replace(RULES, normalise="weights"), weights) == 1.0
    assert effective_rate(replace(RULES, mode="fedasync", alpha=0.6), np.array([0.5])) == pytest.approx(0.3)
    assert effective_rate(RULES, np.array([])) == 0.0
