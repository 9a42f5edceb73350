"""Every framework is the same function of a flat vector.

The frameworks that are installed are tried: ``make test-frameworks`` has TensorFlow in an environment of its own.
"""

import sys
from importlib.util import find_spec

import numpy as np
import pytest

from fedcore.adapters.model import FRAMEWORKS as KNOWN
from fedcore.adapters.model import Model, ModelSpec, Stream, Training, build_model
from fedcore.errors import BadConfig, MissingExtra, UnknownName
from fedcore.rng import generator
from fedcore.rules.mean import mean

CASES = [(1, "classification"), (3, "classification"), (1, "regression")]
FRAMEWORKS = [name for name in KNOWN if find_spec(name)]
needs_torch = pytest.mark.skipif(find_spec("torch") is None, reason="torch is not in this environment")
OTHERS = [name for name in FRAMEWORKS if name != "numpy"]


def spec(framework: str, outputs: int, task: str, **changes: object) -> ModelSpec:
    given = {"name": "mlp", "hidden": (6, 5), "factory": None, "input_shape": (4,), **changes}
    return ModelSpec(framework=framework, outputs=outputs, task=task, **given)


def rows(outputs: int, task: str, n: int = 40) -> tuple[np.ndarray, np.ndarray]:
    rng = generator(3, "rows")
    x = rng.normal(size=(n, 4)).astype(np.float32)
    y = rng.normal(size=n) if task == "regression" else rng.integers(0, max(outputs, 2), n)
    return x, y.astype(np.float32)


@pytest.fixture(params=FRAMEWORKS)
def framework(request) -> str:
    return request.param


@pytest.mark.parametrize(("outputs", "task"), CASES)
def test_the_gradient_is_the_slope_of_the_loss(framework, outputs, task):
    model, (x, y) = build_model(spec(framework, outputs, task)), rows(outputs, task)
    vector = model.init(generator(1, "init"))
    _, gradient = model.loss_and_gradient(vector, x, y)
    step = np.float32(1e-2) * gradient / np.float32(np.linalg.norm(gradient))
    slope = (
        model.loss_and_gradient(vector + step, x, y)[0] - model.loss_and_gradient(vector - step, x, y)[0]
    ) / 0.02
    assert slope == pytest.approx(float(np.linalg.norm(gradient)), rel=0.02)


def test_most_frameworks_are_tried():
    assert len(FRAMEWORKS) >= 3


@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("name", ["linear", "logistic", "mlp"])
@pytest.mark.parametrize(("outputs", "task"), CASES)
def test_frameworks_agree_on_start_gradient_training_and_scores(other, name, outputs, task):
    """Within 2e-5 in parameters of order 1 after 18 steps, 1e-6 in scores: float32 sums in another order."""
    x, y = rows(outputs, task)
    changes = {"name": name, "target": (0.5, 2.0)}
    ours, theirs = (build_model(spec(of, outputs, task, **changes)) for of in ("numpy", other))
    assert ours.layout == theirs.layout
    start = ours.init(generator(1, "init"))
    np.testing.assert_array_equal(start, theirs.init(generator(1, "init")))
    losses, gradients = zip(*(model.loss_and_gradient(start, x, y) for model in (ours, theirs)), strict=True)
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    np.testing.assert_allclose(*gradients, atol=1e-6)
    settings = Training(lr=0.1, momentum=0.9, weight_decay=0.01, epochs=3, batch_size=7)
    trained = [model.train(start, x, y, settings, generator(2, "train")) for model in (ours, theirs)]
    np.testing.assert_allclose(trained[0][0], trained[1][0], atol=2e-5)
    assert trained[0][1]["loss"] == pytest.approx(trained[1][1]["loss"], rel=1e-4)
    np.testing.assert_allclose(ours.scores(start, x), theirs.scores(start, x), atol=1e-6)


def test_a_step_adds_correction_and_proximal_pull_and_leaves_masked_parameters_alone(framework):
    model, (x, y) = build_model(spec(framework, 3, "classification")), rows(3, "classification")
    start, rng = model.init(generator(1, "init")), generator(5, "terms")
    correction, anchor = (rng.normal(size=start.size).astype(np.float32) for _ in range(2))
    mask = (rng.random(start.size) < 0.5).astype(np.float32)
    settings = Training(0.1, 0.9, 0.01, 1, len(x), correction, 0.3, anchor, mask)
    _, gradient = model.loss_and_gradient(start, x, y)
    expected = start - 0.1 * mask * (gradient + 0.01 * start + correction + 0.3 * (start - anchor))
    trained = model.train(start, x, y, settings, generator(2, "train"))[0]
    np.testing.assert_allclose(trained, expected, atol=1e-6)
    assert (trained == start)[mask == 0].all()


def test_so_many_steps_are_the_first_batches_of_so_many_epochs(framework):
    model, (x, y) = build_model(spec(framework, 3, "classification")), rows(3, "classification", 20)
    start = model.init(generator(1, "init"))

    def trained(epochs: int, steps: int | None) -> bytes:
        settings = Training(0.1, 0.9, 0.01, epochs, 8, steps=steps)
        return model.train(start, x, y, settings, generator(2, "train"))[0].tobytes()

    assert trained(1, 6) == trained(2, None)  # 20 rows in batches of 8 are three steps an epoch
    assert trained(9, 3) == trained(1, None)
    assert len({trained(1, steps) for steps in range(1, 7)}) == 6


def test_a_stream_goes_through_all_rows_before_any_comes_twice_however_rounds_cut_it():
    from fedcore.adapters.layers import epochs

    def seen(first: int, steps: int) -> list[int]:
        stream = Stream(first, lambda epoch: generator(3, "epoch", epoch))
        settings = Training(0.1, 0.0, 0.0, 1, 8, steps=steps, stream=stream)
        return [
            int(row) for epoch in epochs(20, settings, generator(1, "no")) for batch in epoch for row in batch
        ]

    whole = seen(0, 9)
    assert [sorted(whole[at : at + 20]) for at in (0, 20, 40)] == [list(range(20))] * 3
    assert whole[:20] != whole[20:40]
    assert seen(0, 2) + seen(2, 2) + seen(4, 5) == whole


def test_the_loss_of_steps_is_a_mean_over_the_rows_they_saw(framework):
    model, (x, y) = build_model(spec(framework, 1, "regression")), rows(1, "regression", 20)
    start = model.init(generator(1, "init"))
    still = Training(1e-12, 0.0, 0.0, 1, 8, steps=1)
    seen = generator(2, "train").permutation(20)[:8]
    facts = model.train(start, x, y, still, generator(2, "train"))[1]
    assert facts["loss"] == pytest.approx(model.loss_and_gradient(start, x[seen], y[seen])[0], rel=1e-4)


def test_without_an_anchor_the_pull_is_to_where_training_starts(framework):
    model, (x, y) = build_model(spec(framework, 1, "regression")), rows(1, "regression")
    start = model.init(generator(1, "init"))
    runs = [
        model.train(start, x, y, Training(0.1, 0.0, 0.0, 4, 8, None, 0.5, anchor), generator(2, "train"))[0]
        for anchor in (None, start)
    ]
    assert runs[0].tobytes() == runs[1].tobytes()


@pytest.mark.parametrize(("outputs", "task"), CASES)
def test_training_repeats_to_the_byte_and_leaves_its_inputs_alone(framework, outputs, task):
    model, (x, y) = build_model(spec(framework, outputs, task)), rows(outputs, task)
    start = model.init(generator(1, "init"))
    before = (start.copy(), x.copy(), y.copy())
    settings = Training(lr=0.1, momentum=0.5, weight_decay=0.0, epochs=2, batch_size=16)
    first, second = (model.train(start, x, y, settings, generator(2, "train"))[0] for _ in range(2))
    assert first.tobytes() == second.tobytes() != start.tobytes()
    for kept, given in zip(before, (start, x, y), strict=True):
        np.testing.assert_array_equal(kept, given)


@pytest.mark.parametrize(("outputs", "task"), CASES)
def test_scores_are_probabilities_or_values_in_float32(framework, outputs, task):
    model, (x, _) = build_model(spec(framework, outputs, task)), rows(outputs, task)
    scores = model.scores(model.init(generator(1, "init")) * 50, x)
    assert scores.dtype == np.float32
    assert scores.shape == ((len(x), outputs) if outputs > 1 else (len(x),))
    if task == "classification":
        assert (scores >= 0).all()
        assert (scores <= 1).all()
    if outputs > 1:
        np.testing.assert_allclose(scores.sum(axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize(("outputs", "task"), CASES)
def test_clipped_rows_add_up_one_by_one_and_a_broken_row_counts_as_zeros(framework, outputs, task):
    model, (x, y) = build_model(spec(framework, outputs, task)), rows(outputs, task, 6)
    vector = model.init(generator(1, "init"))
    expected = np.zeros(vector.size)
    for i in (0, 1, 3, 4, 5):
        gradient = model.loss_and_gradient(vector, x[i : i + 1], y[i : i + 1])[1].astype(np.float64)
        expected += gradient * min(1.0, 0.5 / np.linalg.norm(gradient))
    x[2] = np.nan
    np.testing.assert_allclose(
        model.clipped_sum(vector, x, y, 0.5, generator(4, "clip")), expected, atol=2e-6
    )
    assert not model.clipped_sum(vector, x[:0], y[:0], 0.5, generator(4, "clip")).any()


def test_three_rounds_of_federated_averaging_give_the_same_model(framework):
    """Within 2e-5, as for one client: what differs is the order of float32 sums."""
    vectors = []
    for name in ("numpy", framework):
        model = build_model(spec(name, 3, "classification"))
        vector = model.init(generator(1, "init"))
        settings = Training(0.1, 0.9, 0.0, 2, 8)
        for round_number in range(3):
            updates, sizes = [], []
            for client, n in enumerate((20, 40, 30)):
                x, y = rows(3, "classification", n)
                rng = generator(2, "train", round_number, client)
                updates.append(model.train(vector, x + client, y, settings, rng)[0] - vector)
                sizes.append(n)
            vector = vector + mean(np.stack(updates), np.array(sizes, np.float64))
        vectors.append(vector)
    np.testing.assert_allclose(*vectors, atol=2e-5)


def test_a_framework_that_is_not_installed_is_named_with_its_extra(monkeypatch):
    monkeypatch.delitem(sys.modules, "fedcore.adapters.mlx", raising=False)
    monkeypatch.setitem(sys.modules, "mlx", None)
    with pytest.raises(MissingExtra, match=r"fedcore-mlops\[mlx\]"):
        build_model(spec("mlx", 1, "classification"))


def test_a_logistic_model_has_one_layer(framework):
    model: Model = build_model(spec(framework, 1, "classification", name="logistic"))
    assert model.layout.shapes == ((1, 4), (1,))


@needs_torch
def test_the_global_generator_and_thread_count_stay_as_they_were():
    import torch

    model, (x, y) = build_model(spec("torch", 1, "regression")), rows(1, "regression")
    state, threads = torch.random.get_rng_state(), torch.get_num_threads()
    settings = Training(lr=0.1, momentum=0.5, weight_decay=0.0, epochs=1, batch_size=16)
    model.train(model.init(generator(1, "init")), x, y, settings, generator(2, "train"))
    assert torch.equal(state, torch.random.get_rng_state())
    assert threads == torch.get_num_threads()


def linear(input_shape: tuple[int, ...], outputs: int):
    import torch

    return torch.nn.Sequential(torch.nn.Dropout(0.5), torch.nn.Linear(input_shape[0], outputs))


def normed(input_shape: tuple[int, ...], outputs: int):
    import torch

    return torch.nn.Sequential(torch.nn.BatchNorm1d(input_shape[0]), torch.nn.Linear(input_shape[0], outputs))


def too_wide(input_shape: tuple[int, ...], outputs: int):
    import torch

    return torch.nn.Linear(input_shape[0] + 1, outputs)


def two_outputs(input_shape: tuple[int, ...], outputs: int):
    import torch

    return torch.nn.Linear(input_shape[0], outputs + 1)


def pair(input_shape: tuple[int, ...], outputs: int):
    import torch

    class Pair(torch.nn.Linear):
        def forward(self, x):
            return super().forward(x), x

    return Pair(input_shape[0], outputs)


def not_a_module(input_shape: tuple[int, ...], outputs: int) -> str:
    return "a module"


def broken(input_shape: tuple[int, ...], outputs: int):
    raise KeyError("no such size")


@pytest.fixture
def own(monkeypatch):
    """The import path of a factory in this file."""
    monkeypatch.setitem(sys.modules, "own_models", sys.modules[__name__])
    return lambda factory: f"own_models:{factory.__name__}"


@needs_torch
def test_a_module_by_import_path_trains_and_repeats(own):
    model = build_model(spec("torch", 1, "classification", factory=own(linear)))
    x, y = rows(1, "classification")
    start = model.init(generator(1, "init"))
    np.testing.assert_array_equal(start, model.init(generator(1, "init")))
    settings = Training(lr=0.1, momentum=0.5, weight_decay=0.0, epochs=2, batch_size=16)
    first, second = (model.train(start, x, y, settings, generator(2, "train"))[0] for _ in range(2))
    assert first.tobytes() == second.tobytes() != start.tobytes()


@needs_torch
@pytest.mark.parametrize(
    ("factory", "why"),
    [
        (normed, "holds buffers"),
        (too_wide, "fails on rows of shape"),
        (two_outputs, "must return shape"),
        (pair, r"must return shape \(2, 1\), returns a tuple"),
        (not_a_module, "must return a torch.nn.Module"),
        (broken, r"fails for rows of shape \(4,\) and 1 outputs \(KeyError: 'no such size'\)"),
    ],
)
def test_a_module_that_cannot_work_is_refused_in_a_sentence(own, factory, why):
    with pytest.raises(BadConfig, match=why):
        model = build_model(spec("torch", 1, "classification", factory=own(factory)))
        model.scores(model.init(generator(1, "init")), rows(1, "classification")[0])


@needs_torch
@pytest.mark.parametrize("path", ["nocolon", "no.such.module:thing", "json:no_such_name"])
def test_an_import_path_that_leads_nowhere_is_refused(path):
    with pytest.raises(BadConfig, match="model.factory"):
        build_model(spec("torch", 1, "classification", factory=path)).layout  # noqa: B018


def test_an_unknown_framework_or_model_lists_the_known_ones():
    with pytest.raises(UnknownName, match="known: mlx, numpy, sklearn, tensorflow, torch"):
        build_model(spec("torhc", 1, "classification"))
    with pytest.raises(
        UnknownName, match="did you mean 'mlp'\\? known: dwcnn, gru, lenet, linear, logistic, lstm, mlp"
    ):
        build_model(spec("numpy", 1, "classification", name="mpl"))
    with pytest.raises(BadConfig, match="needs model.framework torch"):
        build_model(spec("numpy", 1, "classification", factory="a:b"))
