"""Sums from clients give the metrics of the pooled rows."""

import numpy as np
import pytest
from sklearn.metrics import log_loss, r2_score, roc_auc_score

from fedcore.local.metrics import BINS, auc, measure, summarize
from fedcore.types import Reply


def replies(scores, y, task, clients=3):
    parts = zip(np.array_split(scores, clients), np.array_split(y, clients), strict=True)
    return [Reply(str(i), measure(s, t, task)) for i, (s, t) in enumerate(parts)]


def test_two_classes_give_the_pooled_area_accuracy_and_loss(rng):
    y = rng.integers(0, 2, 3000).astype(np.float32)
    scores = (1 / (1 + np.exp(-rng.normal(y, 1)))).astype(np.float32)
    metrics, spread = summarize(replies(scores, y, "classification"), "classification")
    assert metrics["auc"] == pytest.approx(roc_auc_score(y, scores), abs=2 / BINS)
    assert metrics["accuracy"] == pytest.approx(((scores >= 0.5) == (y > 0.5)).mean())
    assert metrics["loss"] == pytest.approx(log_loss(y, scores.astype(np.float64)), rel=1e-5)
    assert metrics["rows"] == 3000
    assert spread["auc_p10"] <= spread["auc_p50"] <= spread["auc_p90"]
    assert spread["auc_worst_decile"] <= spread["auc_p10"]
    assert spread["loss_worst_decile"] >= spread["loss_p90"]


def test_many_classes_give_the_pooled_accuracy_and_loss(rng):
    y = rng.integers(0, 4, 400).astype(np.float32)
    scores = rng.dirichlet(np.ones(4), 400).astype(np.float32)
    chance = scores[np.arange(400), y.astype(int)].astype(np.float64)
    metrics, _ = summarize(replies(scores, y, "classification"), "classification")
    assert metrics["accuracy"] == pytest.approx((scores.argmax(1) == y).mean())
    assert metrics["loss"] == pytest.approx(-np.log(chance).mean(), rel=1e-5)
    assert "auc" not in metrics


def test_regression_gives_the_pooled_errors(rng):
    y = rng.normal(5, 2, 300).astype(np.float32)
    scores = (y + rng.normal(0, 1, 300)).astype(np.float32)
    metrics, _ = summarize(replies(scores, y, "regression"), "regression")
    assert metrics["mse"] == metrics["loss"] == pytest.approx(np.mean((scores - y) ** 2), rel=1e-5)
    assert metrics["mae"] == pytest.approx(np.abs(scores - y).mean(), rel=1e-5)
    assert metrics["r2"] == pytest.approx(r2_score(y, scores), rel=1e-4)


def test_constant_targets_have_no_r2():
    constant = np.ones(5, np.float32)
    assert "r2" not in summarize(replies(constant, constant, "regression", 1), "regression")[0]


def test_ties_count_half_and_one_class_has_no_area():
    assert auc(np.array([0, 2]), np.array([0, 3])) == 0.5
    assert auc(np.array([0, 2]), np.array([3, 0])) == 1.0
    assert auc(np.array([0, 0]), np.array([3, 0])) is None


def test_clients_that_failed_or_have_no_rows_do_not_count(rng):
    good = replies(np.full(4, 0.2, np.float32), np.zeros(4, np.float32), "classification", 1)
    metrics, _ = summarize([*good, Reply("b", error="broken"), Reply("c", {"rows": 0})], "classification")
    assert metrics["rows"] == 4
    assert metrics["accuracy"] == 1.0
    assert "auc" not in metrics
    assert summarize([], "classification") == ({}, {})
