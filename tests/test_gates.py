"""Gates, pure."""

import math

import pytest

from fedcore.config import Gate, PromotionConfig
from fedcore.errors import GateRefused
from fedcore.gates import check_gates


def _config(*gates, better=None):
    return PromotionConfig(gates=gates, better_than_champion=better)


def test_limits_themselves_pass():
    seen = check_gates(_config(Gate("auc", min=0.7, max=0.8)), {"auc": 0.7}, None)
    assert seen == {"auc": "0.7 (min 0.7 and max 0.8)"}


@pytest.mark.parametrize("value", [0.69, 0.81, math.nan, math.inf, -math.inf])
def test_outside_the_limits_is_refused(value):
    with pytest.raises(GateRefused, match=r"min 0\.7 and max 0\.8"):
        check_gates(_config(Gate("auc", min=0.7, max=0.8)), {"auc": value}, None)


def test_a_gate_without_limits_asks_only_that_the_number_is_there():
    assert check_gates(_config(Gate("auc")), {"auc": 0.1}, None) == {"auc": "0.1 (any number)"}
    with pytest.raises(GateRefused, match="missing"):
        check_gates(_config(Gate("auc")), {}, None)


def test_a_lower_loss_is_better():
    assert check_gates(_config(better="loss"), {"loss": 0.4}, {"loss": 0.5})
    with pytest.raises(GateRefused):
        check_gates(_config(better="loss"), {"loss": 0.5}, {"loss": 0.4})


def test_without_a_champion_nothing_has_to_be_better():
    assert check_gates(_config(better="auc"), {}, None) == {}


@pytest.mark.parametrize(
    ("new", "old"), [({}, {"auc": 0.5}), ({"auc": 0.5}, {}), ({"auc": math.nan}, {"auc": 0.5})]
)
def test_what_cannot_be_compared_is_refused(new, old):
    with pytest.raises(GateRefused):
        check_gates(_config(better="auc"), new, old)
