"""Personalisation: what each algorithm becomes at the ends of its options, and what never leaves a client."""

import dataclasses

import numpy as np
import pytest

from fedcore.adapters.layers import batches
from fedcore.adapters.model import ModelSpec, Training, build_model
from fedcore.config import PersonalConfig
from fedcore.data.federated import SiteData
from fedcore.local.heads import head_of
from fedcore.local.personal import PERSONAL
from fedcore.local.sgd import sgd
from fedcore.local.work import Trained, Work

PLAIN = Training(lr=0.1, momentum=0.0, weight_decay=0.0, epochs=2, batch_size=8)


def spec(framework: str = "numpy") -> ModelSpec:
    return ModelSpec(framework, "mlp", (5,), None, (4,), 3, "classification")


@pytest.fixture
def data(rng) -> SiteData:
    x, y = rng.normal(size=(30, 4)).astype(np.float32), rng.integers(0, 3, 30).astype(np.float32)
    return SiteData(x, y, x[:5], y[:5])


@pytest.fixture
def work(data):
    """Makes one client's round with an algorithm's options; the same draws each time."""

    def make(kept=None, settings=PLAIN, framework="numpy", seed=3, **options) -> Work:
        model = build_model(spec(framework))
        start = model.init(np.random.default_rng(1))
        rng, own = np.random.default_rng(seed), np.random.default_rng(seed)
        return Work(model, start, kept or {}, data, settings, PersonalConfig(**options), sgd, rng, own)

    return make


def trained(work: Work) -> Trained:
    return PERSONAL[work.options.algorithm].train(work)


def own(work: Work) -> np.ndarray:
    return PERSONAL[work.options.algorithm].own(work)


def after(work: Work) -> np.ndarray:
    """The client's own model after the round, with the model of all as it was."""
    return own(dataclasses.replace(work, kept=trained(work).kept))


def fedavg(make, **given) -> Trained:
    return trained(make(algorithm="none", **given))


@pytest.mark.parametrize("framework", ["numpy", "torch"])
@pytest.mark.parametrize("algorithm", ["ditto", "mr_mtl"])
def test_without_a_pull_the_own_model_is_local_training(work, algorithm, framework):
    alone = work(algorithm=algorithm, lam=0.0, framework=framework)
    once = after(alone)
    assert np.allclose(once, alone.start + fedavg(work, framework=framework).update, atol=1e-7)
    twice = after(work(kept={"model": once}, algorithm=algorithm, lam=0.0, framework=framework))
    straight, _ = alone.model.train(
        once, alone.data.x_train, alone.data.y_train, PLAIN, np.random.default_rng(3)
    )
    assert np.array_equal(twice, straight)


@pytest.mark.parametrize("algorithm", ["ditto", "mr_mtl"])
def test_an_endless_pull_leaves_the_model_of_all(work, rng, algorithm):
    far = {"model": rng.normal(size=43).astype(np.float32)}
    gaps = []
    for lam in (1.0, 1e3, 1e12):
        pulled = work(kept=far, algorithm=algorithm, lam=lam)
        gaps.append(np.abs(after(pulled) - pulled.start).max())
    assert gaps[0] > 100 * gaps[1] > 1000 * gaps[2]
    assert gaps[2] < 1e-6


@pytest.mark.parametrize("lam", [0.0, 1.0, 1e9])
def test_ditto_sends_what_fedavg_sends(work, lam):
    assert trained(work(algorithm="ditto", lam=lam)).update.tobytes() == fedavg(work).update.tobytes()


def test_the_mean_that_mr_mtl_pulls_to_is_the_mean_of_own_models(work):
    sent = trained(work(algorithm="mr_mtl"))
    assert np.array_equal(sent.update, sent.kept["model"] - work().start)


def test_apfl_sends_what_fedavg_sends_whatever_the_mixture(work, rng):
    mine = {"model": rng.normal(size=43).astype(np.float32)}
    momentum = dataclasses.replace(PLAIN, momentum=0.9, weight_decay=0.01)
    sent = trained(work(kept=mine, settings=momentum, algorithm="apfl"))
    assert sent.update.tobytes() == fedavg(work, settings=momentum).update.tobytes()


def test_apfl_without_own_share_is_the_model_of_all(work):
    lonely = work(algorithm="apfl", alpha=0.0)
    assert np.array_equal(after(lonely), lonely.start)


def test_apfl_of_own_share_alone_is_local_training(work):
    alone = work(algorithm="apfl", alpha=1.0)
    assert np.allclose(after(alone), alone.start + fedavg(work).update, atol=1e-7)


def test_an_adaptive_share_follows_its_slope(work):
    """α - η⟨v - w, ∇⟩ with the gradient of the mixture at the round's first batch."""
    before = work(algorithm="none")
    v = before.start + np.float32(0.3)
    found = trained(work(kept={"model": v, "alpha": np.array([0.4])}, algorithm="apfl", adaptive=True))
    rows = batches(30, 8, np.random.default_rng(3))[0]
    mixed = np.float32(0.4) * v + np.float32(0.6) * before.start
    slope = before.model.loss_and_gradient(mixed, before.data.x_train[rows], before.data.y_train[rows])[1]
    assert found.kept["alpha"][0] == pytest.approx(0.4 - 0.1 * float(np.dot(v - before.start, slope)))
    assert found.kept["alpha"][0] != 0.4
    fixed = trained(work(kept={"model": v, "alpha": np.array([0.4])}, algorithm="apfl"))
    assert fixed.kept["alpha"][0] == 0.4


def test_fedper_without_a_head_is_fedavg(work):
    assert trained(work(algorithm="fedper", head=0)).update.tobytes() == fedavg(work).update.tobytes()


@pytest.mark.parametrize("algorithm", ["fedper", "fedrep"])
def test_nothing_of_the_head_is_sent_and_all_of_it_kept(work, algorithm):
    doing = work(algorithm=algorithm, head=1)
    head = head_of(doing.model.layout, 1)
    sent = trained(doing)
    assert head.sum() == 3 * 5 + 3
    assert not sent.update[head].any()
    assert sent.update[~head].all()
    assert sent.kept["head"].shape == (18,)
    assert (sent.kept["head"] != doing.start[head]).all()
    joined = own(dataclasses.replace(doing, kept=sent.kept))
    assert np.array_equal(joined[head], sent.kept["head"])
    assert np.array_equal(joined[~head], doing.start[~head])


def test_fedrep_moves_head_and_body_each_in_its_phase(work):
    doing = work(algorithm="fedrep", head_epochs=3)
    seen = []

    class Watched:
        layout = doing.model.layout

        def train(self, vector, x, y, settings, rng):
            moved, facts = doing.model.train(vector, x, y, settings, rng)
            seen.append((settings.epochs, moved != vector))
            return moved, facts

    trained(dataclasses.replace(doing, model=Watched()))
    head = head_of(doing.model.layout, 1)
    (first, moved), (second, moved_then) = seen
    assert (first, second) == (3, 2)
    assert np.array_equal(moved, head)
    assert np.array_equal(moved_then, ~head)


def test_a_body_that_all_train_helps_a_head_that_stays(work):
    """A head kept from the round before is where the next begins, under whatever body the server sends."""
    doing = work(kept={"head": np.full(18, 7, np.float32)}, algorithm="fedper")
    assert (own(doing)[head_of(doing.model.layout, 1)] == 7).all()


def test_reptile_goes_the_way_of_fedavg(work):
    """One step on all rows: FedAvg's update; more steps: as many of plain SGD."""
    whole = dataclasses.replace(PLAIN, epochs=1, batch_size=30)
    sent = trained(work(settings=whole, algorithm="reptile", finetune_steps=1, inner_lr=0.1))
    assert np.allclose(sent.update, fedavg(work, settings=whole).update, atol=1e-7)
    more = trained(work(algorithm="reptile", finetune_steps=8, inner_lr=0.1))  # two epochs of four batches
    assert np.allclose(more.update, fedavg(work).update, atol=1e-7)


def slope(work: Work, at: np.ndarray, rows: np.ndarray) -> np.ndarray:
    return work.model.loss_and_gradient(at, work.data.x_train[rows], work.data.y_train[rows])[1]


@pytest.mark.parametrize("meta", ["first_order", "hessian_free"])
def test_per_fedavg_without_adaptation_is_sgd_on_the_second_batch(work, meta):
    one = dataclasses.replace(PLAIN, epochs=1, batch_size=15)  # two batches: one step
    sent = trained(work(settings=one, algorithm="per_fedavg", inner_lr=0.0, meta=meta, finetune_steps=1))
    second = batches(30, 15, np.random.default_rng(3))[1]
    expected = -np.float32(0.1) * slope(work(), work().start, second)
    assert np.allclose(sent.update, expected, atol=1e-7)


def test_per_fedavg_steps_by_the_gradient_where_adaptation_leads(work):
    one = dataclasses.replace(PLAIN, epochs=1, batch_size=15)
    sent = trained(work(settings=one, algorithm="per_fedavg", inner_lr=0.5, finetune_steps=1))
    first, second = batches(30, 15, np.random.default_rng(3))
    at = work().start - np.float32(0.5) * slope(work(), work().start, first)
    assert np.allclose(sent.update, -np.float32(0.1) * slope(work(), at, second), atol=1e-7)


def test_without_a_second_derivative_both_variants_agree(work, data, rng):
    """On a line the second derivative is XᵀX·2/n: the Hessian-free step is the first-order one times I - αH."""
    line = build_model(ModelSpec("numpy", "linear", (), None, (4,), 1, "regression"))
    y = rng.normal(size=30).astype(np.float32)
    one = dataclasses.replace(PLAIN, epochs=1, batch_size=30)
    make = {m: work(settings=one, algorithm="per_fedavg", inner_lr=0.05, meta=m, finetune_steps=1) for m in
            ("first_order", "hessian_free")}  # fmt: skip
    flat = dataclasses.replace(data, y_train=y)
    sent = {
        m: trained(dataclasses.replace(w, model=line, data=flat, start=np.zeros(5, np.float32))).update
        for m, w in make.items()
    }
    rows = np.hstack([data.x_train, np.ones((30, 1), np.float32)])
    hessian = 2 * rows.T @ rows / 30
    expected = sent["first_order"] - 0.05 * hessian @ sent["first_order"]
    assert np.allclose(sent["hessian_free"], expected, atol=1e-4)


def test_fine_tuning_is_as_many_steps_of_sgd_on_the_clients_rows(work):
    tuned = own(work(algorithm="none", finetune_steps=4, inner_lr=0.1))
    assert np.allclose(
        tuned, work().start + fedavg(work, settings=dataclasses.replace(PLAIN, epochs=1)).update, atol=1e-7
    )
    still = work(algorithm="none")
    assert np.array_equal(own(still), still.start)


@pytest.mark.parametrize("algorithm", sorted(PERSONAL))
def test_a_client_that_never_took_part_has_the_model_of_all_to_begin_with(work, algorithm):
    new = work(algorithm=algorithm)
    assert np.array_equal(own(new), new.start)
