"""The clients' learning rate: its shape over the rounds, and that no old number moved."""

from dataclasses import replace

import pytest

from fedcore.config import LocalConfig, load_config
from fedcore.errors import BadConfig
from fedcore.local.schedule import SCHEDULES, learning_rate
from fedcore.local.sgd import training

LOCAL = LocalConfig(lr=0.3, decay=0.75, period=10)


def rates(local: LocalConfig, rounds: int) -> list[float]:
    return [learning_rate(local, number) for number in range(rounds)]


def test_without_a_schedule_it_decays_as_it_always_did_to_the_last_bit():
    for lr, decay in ((0.3, 0.75), (0.1, 1.0), (0.5, 0.95), (0.01, 0.999)):
        assert rates(LocalConfig(lr=lr, decay=decay), 200) == [lr * decay**number for number in range(200)]


def test_each_schedule_has_its_shape():
    assert set(rates(replace(LOCAL, schedule="constant"), 50)) == {0.3}
    steps = rates(replace(LOCAL, schedule="step"), 30)
    assert steps == [0.3] * 10 + [0.3 * 0.75] * 10 + [0.3 * 0.75**2] * 10
    cosine = rates(replace(LOCAL, schedule="cosine"), 10)
    assert cosine[0] == 0.3
    assert cosine[5] == pytest.approx(0.15)
    assert sorted(cosine, reverse=True) == cosine
    assert cosine[-1] > 0


@pytest.mark.parametrize("name", sorted(SCHEDULES))
def test_a_warm_up_rises_evenly_and_only_then_the_schedule_begins(name):
    late, plain = replace(LOCAL, schedule=name, warmup=4), replace(LOCAL, schedule=name)
    assert rates(late, 4) == pytest.approx([0.06, 0.12, 0.18, 0.24])
    assert rates(late, 12)[4:] == rates(plain, 8)


def test_local_training_gets_the_rate_of_its_round():
    assert training(replace(LOCAL, schedule="step"), 25).lr == 0.3 * 0.75**2


def test_an_unknown_schedule_is_refused_by_its_path():
    with pytest.raises(BadConfig, match=r"local.schedule.*'constant', 'exponential', 'step' or 'cosine'"):
        load_config(overrides=["local.schedule=linear"])
