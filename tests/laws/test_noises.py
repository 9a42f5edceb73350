"""Discrete noises are drawn as their probabilities say, from bits that a seed fixes.

Each comparison with a distribution is χ² with a false-alarm rate of 1e-6, each rate and moment
within five standard errors (6e-7): a right sampler fails one seed in some ten thousand, and
the seeds here do not change.
"""

from fractions import Fraction
from itertools import count
from math import exp, lgamma, log

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2

from fedcore.errors import BadInput
from fedcore.rng import generator
from fedcore.transforms.coins import below, coins, exp_coins, seeded_bits, system_bits
from fedcore.transforms.discrete import discrete_gaussian, discrete_laplace
from fedcore.transforms.skellam import PARTS, TABLED, poisson, poisson_table, skellam

N = 60_000
SUPPORT = np.arange(-400, 401)


def seeded(*names):
    return seeded_bits(generator(4, *names))


def scripted(*words):
    """Bits that say `words`, each of 4 or 8 bytes as asked for."""
    left = iter(words)
    return lambda size: next(left).to_bytes(size, "little")


def assert_drawn_from(drawn, weights):
    """χ² of `drawn` against `weights` over `SUPPORT`, cells of fewer than 20 expected put together."""
    expected = len(drawn) * weights / weights.sum()
    seen = np.array([np.count_nonzero(drawn == x) for x in SUPPORT])
    assert seen.sum() == len(drawn)
    full = expected >= 20
    cells = [*zip(seen[full], expected[full], strict=True), (seen[~full].sum(), expected[~full].sum())]
    statistic = sum((s - e) ** 2 / e for s, e in cells if e > 1e-3)
    assert statistic < chi2.isf(1e-6, len(cells) - 1)


def poisson_weights(mean):
    k = np.arange(800)
    return np.exp(k * log(mean) - mean - np.array([lgamma(x + 1) for x in k]))


def skellam_weights(variance):
    one = poisson_weights(variance / 2)
    return np.convolve(one, one[::-1])[799 - 400 : 799 + 401]


@pytest.mark.parametrize("ratio", ["0/1", "1/1", "1/3", "2/7", f"{10**30}/{3 * 10**30 + 1}", f"1/{2**35}"])
def test_a_coin_falls_as_its_ratio_says(ratio):
    heads, of = map(int, ratio.split("/"))
    dtype = object if of >= 2**62 else np.int64
    fell = coins(np.full(N, heads, dtype), np.full(N, of, dtype), seeded("coin", ratio))
    assert abs(fell.sum() - N * heads / of) <= 5 * np.sqrt(N * heads / of * (1 - heads / of)) + 1e-3


@pytest.mark.parametrize(("next_word", "heads"), [(0x55555554, True), (0x55555556, False)])
def test_a_coin_that_is_not_decided_by_its_first_digits_is_by_its_next(next_word, heads):
    """A third is 0.55555555 55555555 … in base 16."""
    for of in (3, 3 * 2**70):
        one = np.array([of // 3], object), np.array([of], object)
        assert coins(*one, scripted(0x55555555, 0x55555555, next_word)).tolist() == [heads]


@pytest.mark.parametrize("ratio", ["0/1", "1/3", "1/1", "7/2", f"{2**80 + 1}/{2**79}"])
def test_an_exponential_coin_falls_as_its_exponent_says(ratio):
    above, under = map(int, ratio.split("/"))
    fell = exp_coins(np.full(N, above, object), np.full(N, under, object), seeded("exp", ratio))
    p = exp(-above / under)
    assert abs(fell.mean() - p) <= 5 * np.sqrt(p * (1 - p) / N)


@pytest.mark.parametrize("sides", [1, 2, 5, 64, 65])
def test_a_die_is_fair(sides):
    assert_drawn_from(below(sides, N, seeded("die", sides)), ((SUPPORT >= 0) & (sides > SUPPORT)) * 1.0)


@pytest.mark.parametrize("scale", ["1/3", "2/3", "1", "5/2", "7"])
def test_discrete_laplace_has_its_probabilities(scale):
    drawn = discrete_laplace(N, Fraction(scale), seeded("laplace", scale))
    assert_drawn_from(drawn, np.exp(-np.abs(SUPPORT) / float(Fraction(scale))))


@pytest.mark.parametrize("variance", ["1/9", "1/2", "1", "7/2", "25", str(Fraction(2.3) ** 2)])
def test_discrete_gaussian_has_its_probabilities(variance):
    drawn = discrete_gaussian(N, Fraction(variance), seeded("gaussian", variance))
    assert_drawn_from(drawn, np.exp(-(SUPPORT**2) / (2 * float(Fraction(variance)))))


@pytest.mark.parametrize("variance", ["1/2", "3", "20", "401/10"])
def test_skellam_has_its_probabilities(variance):
    drawn = skellam(N, Fraction(variance), seeded("skellam", variance))
    assert_drawn_from(drawn, skellam_weights(float(Fraction(variance))))


@pytest.mark.parametrize(("clients", "variance"), [(2, 1), (3, 7), (10, 2), (10, 50)])
def test_shares_of_skellam_noise_add_up_to_the_whole(clients, variance):
    bits = seeded("shares", clients, variance)
    summed = sum(skellam(N, Fraction(variance, clients), bits) for _ in range(clients))
    assert_drawn_from(summed, skellam_weights(variance))


@pytest.mark.parametrize("mean", ["1/1000", "3/10", "1", "11/3", "250"])
def test_a_poisson_table_holds_the_probabilities(mean):
    table = poisson_table(Fraction(mean))
    edges = np.array([0, *table.edges, 2**128], object)
    found = (np.diff(edges) / 2**128).astype(float)
    expected = poisson_weights(float(Fraction(mean)))[table.first : table.first + len(found)]
    np.testing.assert_allclose(found[: len(expected)], expected, rtol=1e-10, atol=1e-15)
    assert (table.first == 0) == (mean != "250")


def test_a_number_on_an_edge_of_the_table_belongs_above_it():
    table = poisson_table(Fraction(2))
    edge = table.edges[3]
    halves = edge >> 64, edge & (2**64 - 1)
    assert poisson(1, Fraction(2), scripted(*halves)).tolist() == [4]
    assert poisson(1, Fraction(2), scripted(halves[0], halves[1] - 1)).tolist() == [3]
    assert poisson(1, Fraction(2), scripted(halves[0] - 1, halves[1])).tolist() == [3]


def moments(drawn, deviation, fourth):
    """Mean, variance and fourth moment over their standard errors."""
    x = drawn / deviation
    errors = (x.mean(), x.var() - 1, (x**4).mean() - fourth)
    return [error * np.sqrt(len(x)) for error in errors]


@pytest.mark.parametrize("deviation", [2**10, 2**20, 2**40])
def test_wide_discrete_gaussian_noise_has_the_moments_of_a_gaussian(deviation):
    drawn = discrete_gaussian(20_000, Fraction(deviation) ** 2, seeded("wide", deviation))
    mean, variance, fourth = moments(drawn, deviation, 3)
    assert abs(mean) < 5
    assert abs(variance) < 5 * np.sqrt(2)
    assert abs(fourth) < 5 * np.sqrt(96)
    assert np.unique(drawn % 64).size == 64
    assert abs(np.corrcoef(drawn[1:], drawn[:-1])[0, 1]) < 5 / np.sqrt(20_000)


@pytest.mark.parametrize("variance", [2**14, TABLED * 5])
def test_wide_skellam_noise_has_its_variance(variance):
    drawn = skellam(20_000, Fraction(variance), seeded("wide", variance))
    mean, found, fourth = moments(drawn, np.sqrt(variance), 3 + 1 / variance)
    assert abs(mean) < 5
    assert abs(found) < 5 * np.sqrt(2)
    assert abs(fourth) < 5 * np.sqrt(96)


@settings(max_examples=20)
@given(st.integers(0, 50), st.fractions(Fraction(1, 50), 50, max_denominator=50))
def test_noise_comes_in_the_asked_number_and_again_from_the_same_seed(size, parameter):
    for sampler in (discrete_laplace, discrete_gaussian, skellam):
        once, again = (sampler(size, parameter, seeded("again", size)) for _ in range(2))
        assert once.shape == (size,)
        assert once.dtype == np.int64
        np.testing.assert_array_equal(once, again)


def test_the_system_source_never_repeats():
    first, second = (discrete_gaussian(8, Fraction(2**40), system_bits) for _ in range(2))
    assert not np.intersect1d(first, second).size


@pytest.mark.parametrize("bad", [Fraction(0), Fraction(-1), Fraction(10) ** 400])
def test_noise_that_integers_cannot_hold_is_refused(bad):
    for sampler in (discrete_laplace, discrete_gaussian, skellam):
        with pytest.raises(BadInput, match="coarser grid|use a grid"):
            sampler(3, bad, system_bits)


def test_each_sampler_says_how_wide_it_reaches():
    for refused in (
        lambda: discrete_gaussian(1, Fraction(2**80) + 1, system_bits),
        lambda: discrete_laplace(1, Fraction(2**53 + 1, 2**20), system_bits),
        lambda: skellam(1, Fraction(2 * PARTS * TABLED + 1), system_bits),
        lambda: below(2**62 + 1, 1, system_bits),
        lambda: below(0, 1, system_bits),
    ):
        with pytest.raises(BadInput):
            refused()


def test_the_bits_decide_and_nothing_else():
    """The same bits from a counter: nothing is drawn from anywhere but the source that was passed."""
    streams = [count(1), count(1)]
    sources = [lambda size, c=c: generator(next(c)).bytes(size) for c in streams]
    first, second = (discrete_gaussian(100, Fraction(9), source) for source in sources)
    np.testing.assert_array_equal(first, second)
