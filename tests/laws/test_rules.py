"""Laws that every aggregation rule and mixer keeps, whatever it is given."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedcore.errors import BadInput, TooFewClients, UnknownName
from fedcore.rng import generator
from fedcore.rules import MIXERS, RULES, aggregation, decide, mixer, rule
from fedcore.rules import blocks as blocks_module

F, ROWS = 2, 13
ROOT = np.linspace(-1, 1, 40, dtype=np.float32)
OPTIONS = {
    "mean": {},
    "median": {"f": F},
    "trimmed_mean": {"f": F},
    "meamed": {"f": F},
    "krum": {"f": F},
    "multi_krum": {"f": F},
    "mda": {"f": F},
    "bulyan": {"f": F},
    "geometric_median": {"f": F},
    "centered_clipping": {"radius": 4.0, "iterations": 5},
    "foolsgold": {},
    "fltrust": {"root": ROOT},
    "flame": {"noise": 0.0},
}
ROBUST = [name for name in OPTIONS if name not in {"mean", "foolsgold", "fltrust", "flame"}]
MIXING = {"nnm": {"f": F}, "bucketing": {"size": 2}, "static_clip": {"radius": 5.0}, "arc": {"f": F}}
EVERY = [
    *((name, ()) for name in OPTIONS),
    *(("trimmed_mean", ((name, given),)) for name, given in MIXING.items()),
]
seeds = st.integers(0, 2**32 - 1)


def rows(seed: int, count: int = ROWS, columns: int = 40) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(count, columns)).astype(np.float32), rng.uniform(0.1, 5, count)


def run(name, updates, weights, mixers=(), **changed):
    return decide(
        name, updates, weights, OPTIONS[name] | changed, mixers=mixers, rng=generator(1, "test")
    ).vector


def ids(case):
    return case[0] + "".join("+" + name for name, _ in case[1])


def test_every_rule_and_mixer_is_under_these_laws():
    assert set(OPTIONS) == set(RULES)
    assert set(MIXING) == set(MIXERS)


@pytest.mark.parametrize("case", EVERY, ids=ids)
@given(seeds)
@settings(max_examples=20)
def test_no_order_of_the_rows_changes_a_bit(case, seed):
    name, mixers = case
    updates, weights = rows(seed)
    order = np.random.default_rng(seed + 1).permutation(ROWS)
    shuffled = run(name, updates[order], weights[order], mixers)
    assert run(name, updates, weights, mixers).tobytes() == shuffled.tobytes()


@pytest.mark.parametrize("name", OPTIONS)
def test_order_does_not_matter_among_equal_rows_and_equal_scores(name):
    updates, _ = rows(3)
    updates[4:] = np.repeat(updates[:3], 3, axis=0)
    order = np.random.default_rng(5).permutation(ROWS)
    first, second = run(name, updates, np.ones(ROWS)), run(name, updates[order], np.ones(ROWS))
    assert first.tobytes() == second.tobytes()


@pytest.mark.parametrize(
    "name", [n for n in OPTIONS if n not in {"foolsgold", "fltrust", "flame", "centered_clipping"}]
)
@given(seeds)
@settings(max_examples=20)
def test_moving_all_rows_moves_the_result(name, seed):
    updates, weights = rows(seed)
    shift = np.float32(np.random.default_rng(seed).normal(size=40) * 3)
    moved = run(name, updates + shift, weights)
    np.testing.assert_allclose(moved, run(name, updates, weights) + shift, rtol=1e-4, atol=1e-4)


def test_moving_all_rows_and_the_start_moves_centered_clipping():
    updates, weights = rows(5)
    shift = np.full(40, 7, np.float32)
    moved = RULES["centered_clipping"](updates + shift, weights, radius=2.0, iterations=3, start=shift)
    still = RULES["centered_clipping"](updates, weights, radius=2.0, iterations=3)
    np.testing.assert_allclose(moved, still + shift, atol=1e-5)


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("scale", [2.0**-20, 2.0**20])
def test_scaling_all_rows_scales_the_result(name, scale):
    updates, weights = rows(7)
    changed = {"radius": 4.0 * scale} if name == "centered_clipping" else {}
    changed |= {"root": ROOT * np.float32(scale)} if name == "fltrust" else {}
    scaled = run(name, updates * np.float32(scale), weights, **changed)
    np.testing.assert_allclose(
        scaled, run(name, updates, weights) * np.float32(scale), rtol=1e-5, atol=1e-7 * scale
    )


@pytest.mark.parametrize("case", [case for case in EVERY if case[0] not in {"foolsgold", "fltrust"}], ids=ids)
def test_rows_that_agree_are_their_own_result(case):
    name, mixers = case
    row = np.float32(np.random.default_rng(1).normal(size=40) / 10)
    same = np.repeat(row[None], ROWS, axis=0)
    result = run(name, same, np.ones(ROWS), mixers)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, row, rtol=1e-6)


def test_foolsgold_takes_rows_that_agree_for_one_liar():
    same = np.ones((ROWS, 4), np.float32)
    np.testing.assert_array_equal(RULES["foolsgold"](same, None), np.zeros(4))


@pytest.mark.parametrize("case", EVERY, ids=ids)
def test_inputs_stay_as_they_were_and_may_be_read_only(case):
    updates, weights = rows(11)
    before = updates.copy()
    updates.flags.writeable = weights.flags.writeable = False
    run(case[0], updates, weights, case[1])
    np.testing.assert_array_equal(updates, before)


@pytest.mark.parametrize("case", EVERY, ids=ids)
def test_blocks_and_the_whole_give_one_result(case, monkeypatch):
    updates, weights = rows(13, columns=1000)
    changed = {"root": updates[0]} if case[0] == "fltrust" else {}
    whole = run(case[0], updates, weights, case[1], **changed)
    monkeypatch.setattr(blocks_module, "BLOCK_BYTES", 1)
    blockwise = run(case[0], updates, weights, case[1], **changed)
    np.testing.assert_allclose(blockwise, whole, rtol=2e-7)
    if case[0] in {"mean", "median", "trimmed_mean", "meamed"} and not case[1]:
        assert blockwise.tobytes() == whole.tobytes()


@pytest.mark.parametrize("case", EVERY, ids=ids)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused_and_never_spreads(case, bad):
    updates, weights = rows(17)
    updates[5, 7] = bad
    with pytest.raises(BadInput, match="finite"):
        run(case[0], updates, weights, case[1])


@pytest.mark.parametrize(
    "case", [(n, ()) for n in ROBUST] + [c for c in EVERY if c[1] and c[1][0][0] != "static_clip"], ids=ids
)
@pytest.mark.parametrize("lie", [1e3, -1e3, 1e6])
def test_f_liars_move_a_robust_rule_no_further_than_the_honest_are_apart(case, lie):
    updates, weights = rows(19, count=14)
    attacked = updates.copy()
    attacked[:F] = lie
    found = run(case[0], attacked, weights, case[1])
    honest = updates[F:]
    spread = np.linalg.norm(honest - honest.mean(axis=0), axis=1).max()
    assert np.linalg.norm(found - honest.mean(axis=0)) <= 2 * spread


def test_the_mean_holds_against_no_liar():
    updates, weights = rows(19)
    updates[0] = 1e6
    assert np.abs(run("mean", updates, weights)).min() > 1e3


@pytest.mark.parametrize("name", ["median", "trimmed_mean", "meamed", "geometric_median", "mda"])
def test_past_the_breakdown_point_liars_win(name):
    """Five rows survive two liars, and three liars are the majority: no rule can know better."""
    updates, weights = rows(23, count=5)
    updates[:3] = 1e4
    assert np.linalg.norm(run(name, updates, weights, f=2)) > 1e4


LEAST = {
    "median": 5,
    "trimmed_mean": 5,
    "meamed": 5,
    "krum": 7,
    "multi_krum": 7,
    "mda": 5,
    "bulyan": 11,
    "geometric_median": 5,
}


@pytest.mark.parametrize(("name", "least"), LEAST.items())
def test_a_cohort_below_the_bound_is_refused_at_the_bound_not(name, least):
    updates, weights = rows(29, count=least)
    run(name, updates, weights)
    assert aggregation(name, OPTIONS[name]).least == least
    with pytest.raises(TooFewClients, match=f"needs at least {least} clients, got {least - 1}"):
        run(name, updates[1:], weights[1:])


@pytest.mark.parametrize("mixing", ["nnm", "arc"])
def test_mixers_refuse_too_few_as_well(mixing):
    updates, _ = rows(29, count=4)
    with pytest.raises(TooFewClients, match="needs at least 5 clients, got 4"):
        MIXERS[mixing](updates, f=2)
    assert aggregation("mean", mixers=[(mixing, {"f": 2})]).least == 5
    assert aggregation("krum", {"f": 1}, [("bucketing", {"size": 3})]).least == 13


KAPPA = {
    "trimmed_mean": lambda n, f: 6 * f / (n - 2 * f) * (1 + f / (n - 2 * f)),
    "krum": lambda n, f: 6 * (1 + f / (n - 2 * f)),
    "geometric_median": lambda n, f: 4 * (1 + f / (n - 2 * f)) ** 2,
    "median": lambda n, f: 4 * (1 + f / (n - 2 * f)) ** 2,
}


def attacks(honest: np.ndarray, f: int, kind: str) -> np.ndarray:
    mean, spread = honest.mean(axis=0), honest.std(axis=0)
    lies = {
        "none": honest[:f],
        "scale": np.repeat(1000 * mean[None], f, axis=0),
        "little": np.repeat((mean - 1.5 * spread)[None], f, axis=0),
        "inner": np.repeat((-0.5 * mean)[None], f, axis=0),
        "mimic": np.repeat(honest[:1], f, axis=0),
    }
    return np.vstack([lies[kind], honest]).astype(np.float32)


@pytest.mark.parametrize("mixed", [False, True], ids=["alone", "after nnm"])
@pytest.mark.parametrize("kind", ["none", "scale", "little", "inner", "mimic"])
@pytest.mark.parametrize("name", KAPPA)
@pytest.mark.parametrize("f", [1, 3, 5])
def test_the_error_is_within_kappa_of_the_honest_variance(name, kind, mixed, f):
    """Allouah et al. 2023, arXiv:2302.01772, definition 2, table 1 and lemma 1."""
    count = 15
    honest = np.random.default_rng(f).normal(1, 2, (count - f, 60))
    updates = attacks(honest, f, kind)
    kappa = KAPPA[name](count, f)
    mixers = [("nnm", {"f": f})] if mixed else []
    kappa = 8 * f / (count - f) * (kappa + 1) if mixed else kappa
    found = decide(name, updates, np.ones(count), {"f": f}, mixers=mixers).vector
    honest_rows = updates[f:].astype(np.float64)
    variance = ((honest_rows - honest_rows.mean(axis=0)) ** 2).sum(axis=1).mean()
    assert ((found - honest_rows.mean(axis=0)) ** 2).sum() <= kappa * variance


@pytest.mark.parametrize("mixing", MIXING)
def test_a_mixer_keeps_the_order_of_its_rows_and_the_dtype(mixing):
    updates, _ = rows(31)
    extra = {"rng": generator(1, "a")} if mixing == "bucketing" else {}
    found = MIXERS[mixing](updates, **MIXING[mixing], **extra)
    assert found.dtype == np.float32
    order = np.random.default_rng(2).permutation(ROWS)
    extra = {"rng": generator(1, "a")} if mixing == "bucketing" else {}
    again = MIXERS[mixing](updates[order], **MIXING[mixing], **extra)
    expected = found if mixing == "bucketing" else found[order]
    assert again.tobytes() == expected.tobytes()


def test_names_and_options_that_are_not_known_are_refused_with_the_known_ones():
    with pytest.raises(UnknownName, match="known: bulyan, .*trimmed_mean"):
        rule("median_of_means")
    with pytest.raises(UnknownName, match="known: arc, bucketing, nnm, static_clip"):
        mixer("knn")
    with pytest.raises(
        UnknownName, match="unknown option of rule krum 'neighbors'; did you mean 'neighbours'"
    ):
        aggregation("krum", {"f": 1, "neighbors": 3})
    with pytest.raises(BadInput, match="rule krum needs the option f"):
        aggregation("krum")


@pytest.mark.parametrize("f", [-1, 1.5, True, "2"])
def test_an_f_that_counts_nothing_is_refused(f):
    updates, weights = rows(1)
    with pytest.raises(BadInput, match="must be 0 or more"):
        RULES["trimmed_mean"](updates, weights, f=f)


@pytest.mark.parametrize(
    "weights", [[0.0, 0.0], [-1.0, 2.0], [np.nan, 1.0], [np.inf, 1.0], [1.0], [0.0, 1.0]]
)
@pytest.mark.parametrize("name", ["mean", "median"])
def test_weights_that_mean_nothing_are_refused(name, weights):
    with pytest.raises(BadInput, match="weights"):
        RULES[name](np.ones((2, 3), np.float32), np.array(weights))


def test_matrices_that_are_none_are_refused():
    with pytest.raises(TooFewClients):
        RULES["mean"](np.ones((0, 3), np.float32), np.ones(0))
    with pytest.raises(TooFewClients):
        RULES["median"]([])
    with pytest.raises(BadInput, match="one shape"):
        RULES["median"]([np.ones(3, np.float32), np.ones(4, np.float32)])
    with pytest.raises(BadInput, match="one row a client"):
        RULES["median"](np.ones(3, np.float32))
    with pytest.raises(BadInput, match="float32, got float64"):
        RULES["median"](np.ones((3, 3)))
    np.testing.assert_array_equal(RULES["median"]([np.ones(3, np.float32)] * 2), np.ones(3))


def test_a_stream_depends_on_all_of_its_names_and_nothing_else():
    first = generator(1, "train", "run", 3, "UA").integers(2**62)
    assert first == generator(1, "train", "run", 3, "UA").integers(2**62)
    others = [(2, "train", "run", 3, "UA"), (1, "train", "run", 3, "AA"), (1, "train", "run", "3", "UA")]
    assert first not in {generator(*names).integers(2**62) for names in others}


def test_a_total_of_shares_may_be_any_fraction():
    from fedcore.rules.mean import weighted_mean

    found = weighted_mean(np.ones((2, 2), np.float32), np.array([1.0, 1.0]), Fraction(3))
    np.testing.assert_array_equal(found, np.full(2, np.float32(2 / 3)))
