"""Each rule against its paper, written out once more in plain Python on lists, without numpy."""

import math
from itertools import combinations

import numpy as np
import pytest

from fedcore.rng import generator
from fedcore.rules import MIXERS, RULES

CASES = [(11, 2, 5, seed) for seed in range(6)] + [(15, 3, 8, 7), (7, 1, 3, 8)]


def matrix(n, d, seed):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(n, d)) * 10 ** rng.uniform(-1, 1, (n, 1))).astype(np.float32)


def lists(updates):
    return [[float(x) for x in row] for row in updates]


def average(rows):
    return [math.fsum(column) / len(rows) for column in zip(*rows, strict=True)]


def squared(a, b):
    return math.fsum((x - y) ** 2 for x, y in zip(a, b, strict=True))


def length(row):
    return math.sqrt(squared(row, [0.0] * len(row)))


def middle(values):
    ordered, n = sorted(values), len(values)
    return (ordered[(n - 1) // 2] + ordered[n // 2]) / 2


def median(rows, f):
    return [middle(column) for column in zip(*rows, strict=True)]


def trimmed_mean(rows, f):
    return [math.fsum(sorted(c)[f : len(c) - f]) / (len(c) - 2 * f) for c in zip(*rows, strict=True)]


def nearest_to_median(rows, count):
    found = []
    for column in zip(*rows, strict=True):
        centre = middle(column)
        found.append(math.fsum(sorted(column, key=lambda x: (abs(x - centre), x))[:count]) / count)
    return found


def meamed(rows, f):
    return nearest_to_median(rows, len(rows) - f)


def scores(rows, neighbours):
    return [
        math.fsum(sorted(squared(a, b) for j, b in enumerate(rows) if j != i)[:neighbours])
        for i, a in enumerate(rows)
    ]


def krum(rows, f):
    score = scores(rows, len(rows) - f - 2)
    return rows[score.index(min(score))]


def multi_krum(rows, f):
    score = scores(rows, len(rows) - f - 2)
    best = sorted(range(len(rows)), key=lambda i: score[i])[: len(rows) - f]
    return average([rows[i] for i in best])


def mda(rows, f):
    def diameter(subset):
        return max(squared(a, b) for a, b in combinations(subset, 2))

    def spread(subset):
        return math.fsum(squared(a, b) for a, b in combinations(subset, 2))

    return average(min(combinations(rows, len(rows) - f), key=lambda s: (round(diameter(s), 9), spread(s))))


def bulyan(rows, f):
    left, chosen = list(rows), []
    while len(chosen) < len(rows) - 2 * f:
        score = scores(left, max(1, len(left) - f - 2))
        total = scores(left, len(left) - 1)
        best = min(range(len(left)), key=lambda i: (round(score[i], 9), total[i]))
        chosen.append(left.pop(best))
    return nearest_to_median(chosen, len(rows) - 4 * f)


def geometric_median(rows, f):
    place = median(rows, f)
    for _ in range(20_000):
        pulls = [1 / max(1e-9, math.sqrt(squared(row, place))) for row in rows]
        place = [
            math.fsum(p * x for p, x in zip(pulls, c, strict=True)) / math.fsum(pulls)
            for c in zip(*rows, strict=True)
        ]
    return place


def centered_clipping(rows, radius, iterations):
    place = [0.0] * len(rows[0])
    for _ in range(iterations):
        moves = []
        for row in rows:
            away = [x - y for x, y in zip(row, place, strict=True)]
            cut = min(1.0, radius / length(away))
            moves.append([cut * x for x in away])
        place = [x + y for x, y in zip(place, average(moves), strict=True)]
    return place


def cosine(a, b):
    return math.fsum(x * y for x, y in zip(a, b, strict=True)) / (length(a) * length(b))


def foolsgold(rows):
    n = len(rows)
    alike = [[cosine(a, b) for b in rows] for a in rows]
    most = [max(alike[i][j] for j in range(n) if j != i) for i in range(n)]
    rates = []
    for i in range(n):
        pardoned = [
            alike[i][j] * max(0.0, most[i] / most[j] if most[j] > most[i] else 1.0)
            for j in range(n)
            if j != i
        ]
        rates.append(min(1.0, max(0.0, 1 - max(pardoned))))
    rates = [min(1 - 1e-12, max(1e-12, rate / max(rates))) for rate in rates]
    rates = [min(1.0, max(0.0, math.log(rate / (1 - rate)) + 0.5)) for rate in rates]
    return [
        math.fsum(r * x for r, x in zip(rates, c, strict=True)) / math.fsum(rates)
        for c in zip(*rows, strict=True)
    ]


def fltrust(rows, root):
    trust = [max(0.0, cosine(row, root)) for row in rows]
    scaled = [[t * x * length(root) / length(row) for x in row] for t, row in zip(trust, rows, strict=True)]
    return [math.fsum(column) / math.fsum(trust) for column in zip(*scaled, strict=True)]


@pytest.mark.parametrize(
    "rule", [median, trimmed_mean, meamed, krum, multi_krum, mda, bulyan, geometric_median]
)
@pytest.mark.parametrize(("n", "f", "d", "seed"), CASES)
def test_a_rule_does_what_its_paper_says(rule, n, f, d, seed):
    updates = matrix(n, d, seed)
    exact = {"tolerance": 1e-12} if rule is geometric_median else {}
    found = RULES[rule.__name__](updates, None, f=f, **exact)
    close = 1e-4 if rule is geometric_median else 1e-6
    np.testing.assert_allclose(found, rule(lists(updates), f), rtol=close, atol=close)


@pytest.mark.parametrize(("n", "f", "d", "seed"), CASES)
def test_rules_with_options_of_their_own_do_too(n, f, d, seed):
    updates = matrix(n, d, seed)
    found = RULES["centered_clipping"](updates, None, radius=0.7, iterations=4)
    np.testing.assert_allclose(found, centered_clipping(lists(updates), 0.7, 4), rtol=1e-5, atol=1e-6)
    found = RULES["fltrust"](updates, None, root=updates[0])
    np.testing.assert_allclose(found, fltrust(lists(updates), lists(updates)[0]), rtol=1e-5, atol=1e-6)
    found = RULES["foolsgold"](updates, None)
    np.testing.assert_allclose(found, foolsgold(lists(updates)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("n", "f", "d", "seed"), CASES)
def test_mixers_do_what_their_papers_say(n, f, d, seed):
    updates = matrix(n, d, seed)
    rows = lists(updates)
    near = [average(sorted(rows, key=lambda b, a=a: squared(a, b))[: n - f]) for a in rows]
    np.testing.assert_allclose(MIXERS["nnm"](updates, f=f), near, rtol=1e-5, atol=1e-6)
    clipped = [[x * min(1.0, 2.0 / length(row)) for x in row] for row in rows]
    np.testing.assert_allclose(MIXERS["static_clip"](updates, radius=2.0), clipped, rtol=1e-5)
    longest = 2 * f * (n - f) // n
    limit = sorted(map(length, rows))[n - 1 - longest]
    adaptive = [[x * min(1.0, limit / length(row)) for x in row] for row in rows]
    np.testing.assert_allclose(MIXERS["arc"](updates, f=f), adaptive, rtol=1e-5)
    buckets = MIXERS["bucketing"](updates, size=3, rng=generator(1, "b"))
    assert len(buckets) == -(-n // 3)
    sizes = np.array([3.0] * (n // 3) + [float(n % 3)] * (n % 3 > 0))
    np.testing.assert_allclose(sizes @ buckets, np.sum(rows, axis=0), rtol=1e-4, atol=1e-5)


def test_flame_keeps_the_majority_cuts_it_and_adds_noise():
    rng = np.random.default_rng(1)
    honest = (rng.normal(1, 0.1, (5, 2000)) * np.array([1, 1, 1, 1, 5])[:, None]).astype(np.float32)
    updates = np.vstack([honest, -np.ones((3, 2000), np.float32)])
    quiet = RULES["flame"](updates, None, noise=0.0, rng=generator(1, "n"))
    limit = np.median(np.linalg.norm(updates, axis=1))
    cut = [row * min(1.0, limit / np.linalg.norm(row)) for row in honest]
    np.testing.assert_allclose(quiet, np.mean(cut, axis=0), rtol=1e-5)
    loud = RULES["flame"](updates, None, noise=0.01, rng=generator(1, "n"))
    assert (loud - quiet).std() == pytest.approx(0.01 * limit, rel=0.1)


def test_weights_of_one_client_ten_times_the_others_are_exact_fractions():
    updates = np.array([[1.0], [2.0]], np.float32)
    assert RULES["mean"](updates, np.array([1.0, 10.0]))[0] == np.float32(21 / 11)
