"""What a decision tells: who was dropped or weighs less, whether it converged, and the state it leaves."""

import numpy as np
import pytest

from fedcore.errors import BadInput, TooFewClients
from fedcore.rng import generator
from fedcore.rules import MIXERS, RULES, aggregation, decide
from fedcore.rules.heuristics import majority


@pytest.fixture
def attacked() -> np.ndarray:
    updates = np.random.default_rng(3).normal(size=(12, 500)).astype(np.float32)
    updates[[2, 7]] *= 1000
    return updates


ROBUST = {
    "trimmed_mean": {"f": 2},
    "median": {"f": 2},
    "meamed": {"f": 2},
    "krum": {"f": 2},
    "multi_krum": {"f": 2},
    "mda": {"f": 2},
    "bulyan": {"f": 2},
    "geometric_median": {},
    "centered_clipping": {"radius": 30.0},
}


@pytest.mark.parametrize(("name", "options"), ROBUST.items())
def test_liars_have_the_least_part(attacked, name, options):
    decision = decide(name, attacked, np.ones(12), options)
    assert decision.kept.shape == (12,)
    assert 0 <= decision.kept.min() <= decision.kept.max() <= 1
    assert decision.kept[[2, 7]].max() <= np.sort(decision.kept)[2]
    assert decision.kept[[2, 7]].max() < 0.2
    mixed = decide(name, attacked, np.ones(12), options, mixers=[("nnm", {"f": 2})])
    assert mixed.kept[[2, 7]].max() <= np.median(mixed.kept)


def test_the_mean_keeps_everyone(attacked):
    assert decide("mean", attacked, np.ones(12)).kept.tolist() == [1.0] * 12


def test_the_geometric_median_says_whether_it_was_reached(attacked):
    notes = decide("geometric_median", attacked, np.ones(12)).notes
    assert notes["converged"] is True
    assert 1 < notes["iterations"] < 100
    assert decide("geometric_median", attacked, np.ones(12), {"iterations": 1}).notes["converged"] is False


def test_centered_clipping_goes_on_from_its_state(attacked):
    aggregate = aggregation("centered_clipping", {"radius": 5.0})
    state = aggregate.initial(np.zeros(500, np.float32))
    assert state["start"].tolist() == [0.0] * 500
    for _ in range(2):
        decision = aggregate(attacked, np.ones(12), state)
        state = decision.state
    assert state["start"].tobytes() == decision.vector.tobytes()
    twice = aggregation("centered_clipping", {"radius": 5.0, "iterations": 2})(attacked, np.ones(12))
    np.testing.assert_allclose(decision.vector, twice.vector, rtol=1e-4, atol=1e-6)
    assert decision.notes == {"clipped": 12}
    assert aggregation("median").initial(np.zeros(3, np.float32)) == {}


def test_chains_of_mixers_apply_in_order(attacked):
    chain = [("static_clip", {"radius": 20.0}), ("nnm", {"f": 2}), ("bucketing", {"size": 2})]
    found = decide("mean", attacked, np.ones(12), mixers=chain, rng=generator(1, "m"))
    assert np.linalg.norm(found.vector) < 20
    aggregate = aggregation("trimmed_mean", {"f": 2}, chain)
    assert (aggregate.least, aggregate.sums, aggregate.heuristic) == (9, False, False)
    assert aggregation("mean").sums
    assert aggregation("flame").heuristic
    with pytest.raises(TooFewClients, match="the trimmed mean against f = 2 needs at least 5 clients, got 4"):
        decide(
            "trimmed_mean",
            attacked[:8],
            np.ones(8),
            {"f": 2},
            mixers=[("bucketing", {"size": 2})],
            rng=generator(1),
        )


def test_what_draws_at_random_wants_a_generator(attacked):
    for name, mixers in (("flame", ()), ("mean", [("bucketing", {"size": 2})])):
        with pytest.raises(BadInput, match="pass rng"):
            decide(name, attacked, np.ones(12), mixers=mixers)
    flame = decide("flame", attacked, np.ones(12), {"noise": 0.1}, rng=generator(1, "x"))
    again = decide("flame", attacked, np.ones(12), {"noise": 0.1}, rng=generator(1, "x"))
    assert flame.vector.tobytes() == again.vector.tobytes()


def test_fltrust_follows_its_root_only(attacked):
    root = attacked[0]
    decision = decide("fltrust", attacked, np.ones(12), {"root": root})
    assert decision.kept[0] == 1.0
    against = decide("fltrust", -attacked[:1] * np.ones((3, 1), np.float32), np.ones(3), {"root": root})
    assert (against.vector == 0).all()
    assert against.notes == {"trusted": 0}


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("multi_krum", {"f": 2, "m": 13}, "m must be from 1 to the number of rows, 12, got 13"),
        ("multi_krum", {"f": 2, "m": 0}, "got 0"),
        ("centered_clipping", {"radius": 0.0}, "radius must be finite and above zero"),
        ("geometric_median", {"tolerance": -1.0}, "tolerance must be"),
        ("flame", {"noise": -1.0}, "noise must be"),
        ("fltrust", {"root": np.zeros(500, np.float32)}, "root update is zero"),
    ],
)
def test_options_that_mean_nothing_are_refused(attacked, name, options, words):
    with pytest.raises(BadInput, match=words):
        decide(name, attacked, np.ones(12), options, rng=generator(1))


@pytest.mark.parametrize(
    ("mixer", "options", "words"),
    [
        ("bucketing", {"size": 0}, "size must be a whole number and above zero"),
        ("static_clip", {"radius": np.inf}, "radius must be finite"),
    ],
)
def test_options_of_mixers_are_checked_too(attacked, mixer, options, words):
    with pytest.raises(BadInput, match=words):
        decide("mean", attacked, np.ones(12), mixers=[(mixer, options)], rng=generator(1))


def test_krum_takes_a_neighbour_count_of_ones_own(attacked):
    aggregate = aggregation("krum", {"f": 2, "neighbours": 3})
    assert aggregate.least == 5
    assert aggregate(attacked, np.ones(12)).kept.sum() == 1
    with pytest.raises(TooFewClients, match="Krum with 0 neighbours"):
        RULES["krum"](attacked, None, f=2, neighbours=0)


def test_mda_refuses_a_search_without_end():
    updates = np.random.default_rng(1).normal(size=(40, 3)).astype(np.float32)
    with pytest.raises(BadInput, match="choose combine.rule: multi_krum"):
        decide("mda", updates, np.ones(40), {"f": 10})


def test_the_majority_is_linked_step_by_step():
    line = np.array([0.0, 1.0, 2.0, 3.1, 10.0, 20.0, 20.1])
    near = majority(np.abs(line[:, None] - line[None]))
    assert near.tolist() == [True] * 4 + [False] * 3


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda rows: MIXERS["bucketing"](rows, size=0, rng=generator(1)), "size must be 1 or more"),
        (lambda rows: MIXERS["static_clip"](rows, radius=-1.0), "radius must be finite and above zero"),
        (lambda rows: RULES["flame"](rows, noise=np.nan, rng=generator(1)), "noise must be finite"),
        (lambda rows: RULES["multi_krum"](rows, f=2, m=0), "m must be from 1"),
        (lambda rows: RULES["centered_clipping"](rows, radius=np.inf), "radius must be finite"),
    ],
)
def test_functions_called_directly_check_as_well(attacked, call, words):
    with pytest.raises(BadInput, match=words):
        call(attacked)
