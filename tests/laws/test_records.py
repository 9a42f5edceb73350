"""Laws of record-level privacy: what one record can move, what the noise is, and what a round of silos costs."""

import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedcore.adapters.model import Model, ModelSpec, Training, build_model
from fedcore.config import PrivacyConfig
from fedcore.data.federated import SiteData
from fedcore.errors import PlanRefused
from fedcore.local.dp_sgd import dp_sgd, noisy_gradient, refuse_mixed_records
from fedcore.privacy.accountant import epsilon
from fedcore.privacy.events import RecordSgd
from fedcore.privacy.records import costliest, record_sampling, refuse_large_delta
from fedcore.transforms.noise import system_normal

if TYPE_CHECKING:
    import torch

MODELS = [
    ("numpy", "logistic", "classification", 1),
    ("numpy", "mlp", "classification", 3),
    ("numpy", "linear", "regression", 1),
    ("torch", "logistic", "classification", 1),
    ("torch", "mlp", "classification", 3),
    ("torch", "linear", "regression", 1),
]
RECORD = PrivacyConfig(mode="record", unit="record", clip=0.7, noise_multiplier=1.3)
FIXED = np.random.default_rng(0)  # what a model without dropout never draws from


def spec(framework: str, name: str, task: str, outputs: int, factory: str | None = None) -> ModelSpec:
    return ModelSpec(framework, name, (5,), factory, (4,), outputs, task)


@pytest.fixture(params=MODELS, ids=lambda model: "-".join(map(str, model[:2])))
def model(request: pytest.FixtureRequest) -> Model:
    return build_model(spec(*request.param))


def rows(model: Model, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A vector, and rows whose gradients are from far below to far above the clip."""
    vector = rng.normal(size=model.layout.size).astype(np.float32)
    x = (rng.normal(size=(n, 4)) * 10.0 ** rng.uniform(-3, 1, (n, 1))).astype(np.float32)
    y = rng.integers(0, max(2, model.spec.outputs), n).astype(np.float32)
    return vector, x, y


@pytest.mark.parametrize("clip", [0.01, 1.0, 30.0])
def test_one_record_moves_the_sum_by_at_most_the_clip(model, clip, rng):
    vector, x, y = rows(model, 12, rng)
    whole = model.clipped_sum(vector, x, y, clip, FIXED)
    moved = []
    for gone in range(12):
        rest = np.delete(np.arange(12), gone)
        moved.append(np.linalg.norm(whole - model.clipped_sum(vector, x[rest], y[rest], clip, FIXED)))
    assert max(moved) <= clip * (1 + 1e-5)  # float32 rounds the same row otherwise in other company
    assert max(moved) > clip * 0.9 or clip > 0.01  # gradients longer than that are few


def test_the_sum_is_that_of_the_rows_own_gradients_clipped_one_by_one(model, rng):
    vector, x, y = rows(model, 9, rng)
    expected = np.zeros(model.layout.size)
    for i in range(9):
        _, gradient = model.loss_and_gradient(vector, x[i : i + 1], y[i : i + 1])
        wide = gradient.astype(np.float64)
        expected += wide * min(1.0, 0.5 / np.linalg.norm(wide))
    got = model.clipped_sum(vector, x, y, 0.5, FIXED)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)
    assert got.dtype == np.float64


def test_no_rows_sum_to_zeros_and_a_row_that_is_not_finite_counts_as_zeros(model, rng):
    vector, x, y = rows(model, 4, rng)
    assert not model.clipped_sum(vector, x[:0], y[:0], 1.0, FIXED).any()
    broken = x.copy()
    broken[2] = np.float32(np.inf)
    rest = model.clipped_sum(vector, x[[0, 1, 3]], y[[0, 1, 3]], 1.0, FIXED)
    np.testing.assert_allclose(model.clipped_sum(vector, broken, y, 1.0, FIXED), rest, atol=1e-5)


def test_the_sum_is_that_of_opacus_own_optimizer(rng):
    torch = pytest.importorskip("torch")
    from opacus import GradSampleModule
    from opacus.optimizers import DPOptimizer

    model = build_model(spec("torch", "mlp", "classification", 3))
    vector, x, y = rows(model, 20, rng)
    module = GradSampleModule(model.module(vector).train())
    optimizer = DPOptimizer(
        torch.optim.SGD(module.parameters(), 1.0),
        noise_multiplier=1.0,
        max_grad_norm=0.5,
        expected_batch_size=20,
    )
    inputs = torch.from_numpy(x).requires_grad_()
    torch.nn.functional.cross_entropy(module(inputs), torch.from_numpy(y).long()).backward()
    optimizer.clip_and_accumulate()
    theirs = np.concatenate([p.summed_grad.numpy().ravel() for p in optimizer.params])
    np.testing.assert_allclose(model.clipped_sum(vector, x, y, 0.5, FIXED), theirs, atol=2e-4)


def site(x: np.ndarray, y: np.ndarray) -> SiteData:
    return SiteData(x, y, x[:0], y[:0])


@pytest.mark.parametrize("framework", ["numpy", "torch"])
def test_the_same_seed_gives_the_same_bytes_and_the_system_source_never_does(framework, rng):
    model = build_model(spec(framework, "mlp", "classification", 3))
    vector, x, y = rows(model, 40, rng)
    steps = Training(0.1, 0.9, 0.001, 2, 8)

    def train(seed: int | None) -> bytes:
        seeded = None if seed is None else np.random.default_rng(seed)
        return dp_sgd(model, vector, site(x, y), steps, RECORD, seeded).tobytes()

    assert train(1) == train(1)
    assert train(1) != train(2)
    assert train(None) != train(None)


def test_without_noise_to_speak_of_full_batches_and_wide_clips_it_is_gradient_descent(rng):
    model = build_model(spec("numpy", "linear", "regression", 1))
    vector, x, y = rows(model, 30, rng)
    x /= np.abs(x).max()
    quiet = PrivacyConfig(mode="record", unit="record", clip=1e3, noise_multiplier=1e-12)
    update = dp_sgd(model, vector, site(x, y), Training(0.1, 0.5, 0.0, 3, 64), quiet)
    plain, _ = model.train(vector, x, y, Training(0.1, 0.5, 0.0, 3, 64), np.random.default_rng(1))
    np.testing.assert_allclose(vector + update, plain, atol=1e-5)


def test_without_noise_to_speak_of_the_pull_is_that_of_plain_training(rng):
    """The pull is to its anchor, or to where training starts if there is none, and decay stays beside it."""
    model = build_model(spec("numpy", "linear", "regression", 1))
    vector, x, y = rows(model, 30, rng)
    x /= np.abs(x).max()
    quiet = PrivacyConfig(mode="record", unit="record", clip=1e3, noise_multiplier=1e-12)
    for anchor in (None, vector + 1):
        steps = Training(0.1, 0.0, 0.01, 3, 64, proximal=2.0, anchor=anchor)
        update = dp_sgd(model, vector, site(x, y), steps, quiet)
        plain, _ = model.train(vector, x, y, steps, np.random.default_rng(1))
        np.testing.assert_allclose(vector + update, plain, atol=1e-5)


def test_the_pull_does_not_change_how_far_one_record_moves_a_step(rng):
    """Neighbours under the same draws: a step's difference is the clipped gradient's, pulled or not."""
    model = build_model(spec("numpy", "linear", "regression", 1))
    vector, x, y = rows(model, 30, rng)
    privacy = PrivacyConfig(mode="record", unit="record", clip=0.5, noise_multiplier=1.0)
    without = x.copy()
    without[3] = np.inf  # a row that counts for nothing: see `clipped_sum`

    def step(x, proximal):
        steps = Training(0.1, 0.0, 0.0, 1, 64, proximal=proximal, anchor=vector + 1)
        return dp_sgd(model, vector, site(x, y), steps, privacy, np.random.default_rng(5)).astype(np.float64)

    for proximal in (0.0, 7.0):
        moved = np.linalg.norm(step(x, proximal) - step(without, proximal))
        assert 0 < moved <= 0.1 * 0.5 / 30 * (1 + 1e-3)


def test_noise_on_a_step_has_the_deviation_that_is_charged():
    """20,000 numbers: mean and variance leave 4.5 standard errors in 1 of 70,000 runs each."""
    privacy = PrivacyConfig(mode="record", unit="record", clip=0.5, noise_multiplier=4.0)
    gradient = noisy_gradient(np.zeros(20_000), privacy, 10.0, system_normal).astype(np.float64)
    deviation, n = 4.0 * 0.5 / 10.0, gradient.size
    assert abs(gradient.mean()) < 4.5 * deviation / n**0.5
    assert abs(gradient.var() / deviation**2 - 1) < 4.5 * (2 / n) ** 0.5


class Counting:
    """A model whose gradient is the number of rows it was given."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    def clipped_sum(self, vector, x, y, clip, rng):
        self.seen.append(len(x))
        return np.zeros(vector.size)


def test_a_step_without_records_is_taken_with_noise_like_any_other():
    """At an expected batch of 1 a third of the steps draw nobody: without their noise the variance would show it.

    20,000 coordinates: it leaves 4.5 standard errors in 1 of 150,000 runs.
    """
    model, x, y = Counting(), np.zeros((50, 4), np.float32), np.zeros(50, np.float32)
    update = dp_sgd(model, np.zeros(20_000, np.float32), site(x, y), Training(0.1, 0, 0, 1, 1), RECORD)
    assert model.seen.count(0) > 5
    one_step = 0.1 * RECORD.noise_multiplier * RECORD.clip
    assert update.var() / (50 * one_step**2) == pytest.approx(1, abs=4.5 * (2 / 20_000) ** 0.5)


def test_records_are_drawn_at_the_rate_and_in_the_steps_that_are_charged():
    """1,000 steps of Binomial(60, 0.1): the mean leaves 4.5 standard errors in 1 of 150,000 runs."""
    model, x, y = Counting(), np.zeros((60, 4), np.float32), np.zeros(60, np.float32)
    dp_sgd(model, np.zeros(2, np.float32), site(x, y), Training(0.1, 0, 0, 100, 6), RECORD)
    assert len(model.seen) == record_sampling(60, 6, 100).steps == 1000
    assert np.mean(model.seen) == pytest.approx(6, abs=4.5 * (60 * 0.1 * 0.9 / 1000) ** 0.5)
    assert min(model.seen) < 6 < max(model.seen)


@given(n=st.integers(1, 10**6), batch=st.integers(1, 4096), epochs=st.integers(1, 20))
def test_an_epoch_takes_each_record_at_most_once_on_average(n, batch, epochs):
    found = record_sampling(n, batch, epochs)
    assert 0 < found.rate <= 1
    assert found.rate * found.steps <= epochs * (1 + 1e-9)
    assert found.expected == pytest.approx(min(n, batch))


def spent(rows: int, batch: int, noise: float, rounds: int, delta: float) -> float:
    drawn = record_sampling(rows, batch, 1)
    return epsilon([RecordSgd(noise, drawn.rate, drawn.steps)] * rounds, delta)


@pytest.mark.parametrize(
    ("silos", "batch", "noise", "rounds"),
    [
        ([18, 40, 64, 97, 200], 32, 8.4, 200),
        ([63, 64], 32, 1.0, 3),
        ([40, 5000], 32, 0.6, 1),
        ([1000, 3000, 9000], 50, 0.8, 4),
    ],
)
def test_no_silo_pays_more_than_what_is_charged(silos, batch, noise, rounds):
    event = costliest(silos, batch, 1, noise, rounds, 1e-4)
    for times in (1, rounds):
        charged = epsilon([event] * times, 1e-4)
        dearest = max(spent(silo, batch, noise, times, 1e-4) for silo in silos)
        assert charged >= dearest - 1e-9
    assert charged == pytest.approx(dearest, rel=1e-6)


def test_the_smallest_silo_is_the_costliest_where_batches_are_large():
    assert costliest([181, 2319, 28409], 512, 1, 2.0, 10, 1e-5) == RecordSgd(2.0, 1.0, 1)


def test_at_one_rate_in_every_silo_none_pays_more_than_another():
    few, many = (record_sampling(rows, 1024, 2, 0.02) for rows in (32, 58_665))
    assert (few.rate, few.steps) == (many.rate, many.steps) == (0.02, 100)
    assert (few.expected, many.expected) == (pytest.approx(0.64), pytest.approx(1173.3))
    assert costliest([32, 58_665], 1024, 2, 0.8, 20, 1e-5, 0.02) == RecordSgd(0.8, 0.02, 100)


def test_epsilon_of_one_silo_is_the_reference_libraries():
    dp_accounting = pytest.importorskip("dp_accounting")
    from dp_accounting.pld import PLDAccountant

    reference = PLDAccountant(dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE)
    one = dp_accounting.PoissonSampledDpEvent(0.32, dp_accounting.GaussianDpEvent(2.0))
    reference.compose(one, 3 * 50)
    event = costliest([100], 32, 1, 2.0, 50, 1e-3)
    assert event == RecordSgd(2.0, 0.32, 3)
    assert epsilon([event] * 50, 1e-3) == pytest.approx(reference.get_epsilon(1e-3), rel=1e-4)


def test_delta_must_stay_below_one_over_the_records_of_each_silo():
    refuse_large_delta({"a": 20, "b": 199}, 5e-3)
    with pytest.raises(PlanRefused, match=r"δ must stay below 1/200.*set privacy.delta below 0.005"):
        refuse_large_delta({"a": 20, "b": 200}, 5e-3)


def batch_norm(input_shape: tuple[int, ...], outputs: int) -> "torch.nn.Module":
    torch = pytest.importorskip("torch")
    return torch.nn.Sequential(
        torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3, track_running_stats=False), torch.nn.Linear(3, outputs)
    )


def centred(input_shape: tuple[int, ...], outputs: int) -> "torch.nn.Module":
    torch = pytest.importorskip("torch")

    class Centred(torch.nn.Module):
        def forward(self, x):
            return x - x.mean(dim=0)

    return torch.nn.Sequential(Centred(), torch.nn.Linear(4, outputs))


def dropping(input_shape: tuple[int, ...], outputs: int) -> "torch.nn.Module":
    torch = pytest.importorskip("torch")
    return torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(0.5), torch.nn.Linear(8, outputs))


def own(name: str, monkeypatch: pytest.MonkeyPatch) -> Model:
    monkeypatch.setitem(sys.modules, "own_records", sys.modules[__name__])
    return build_model(spec("torch", "own", "classification", 1, f"own_records:{name}"))


@pytest.mark.parametrize(("name", "why"), [("batch_norm", "BatchNorm"), ("centred", "depends on the others")])
def test_a_model_in_which_records_see_one_another_is_refused(name, why, monkeypatch):
    with pytest.raises(PlanRefused, match=rf"privacy.mode record with this model.*{why}.*alone"):
        refuse_mixed_records(own(name, monkeypatch))


def test_dropout_is_no_reason_to_refuse_and_repeats_with_its_generator(monkeypatch, rng):
    model = own("dropping", monkeypatch)
    vector, x, y = rows(model, 6, rng)
    first, again, other = (
        model.clipped_sum(vector, x, y, 1.0, np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    assert (first == again).all()
    assert (first != other).any()
