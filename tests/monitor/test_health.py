"""When a champion is to be trained again."""

import pytest

from fedcore.config import MonitorConfig
from fedcore.errors import BadInput
from fedcore.monitor.health import Verdict, improvement, judge

CONFIG = MonitorConfig(metric="auc", max_drift=0.25, max_drop=0.03)


def test_a_steady_model_on_steady_data_is_ok():
    assert judge({"auc": 0.75}, {"auc": 0.73}, {"temp": 0.2}, CONFIG) == Verdict("ok")


def test_a_fall_beyond_the_limit_asks_for_retraining():
    verdict = judge({"auc": 0.75}, {"auc": 0.70}, {}, CONFIG)
    assert verdict == Verdict("retrain", ("auc went from 0.75 to 0.7, worse by 0.05 (limit 0.03)",))


def test_drift_beyond_the_limit_names_the_worst_columns_first():
    drift = {"temp": 1.2, "hour": 0.01, "wind": 0.3, "dest": 0.5, "dewp": 0.4}
    verdict = judge({"auc": 0.75}, {"auc": 0.75}, drift, CONFIG)
    assert verdict.reasons == ("drift beyond 0.25 in temp 1.2, dest 0.5, dewp 0.4 and 1 more",)


def test_both_reasons_are_given_together():
    assert len(judge({"auc": 0.75}, {"auc": 0.5}, {"temp": 0.3}, CONFIG).reasons) == 2


def test_a_loss_is_worse_when_it_rises():
    config = MonitorConfig(metric="loss", max_drop=0.1)
    assert judge({"loss": 0.5}, {"loss": 0.3}, {}, config).action == "ok"
    assert judge({"loss": 0.5}, {"loss": 0.7}, {}, config).action == "retrain"
    assert improvement("loss", 0.3, 0.5) == pytest.approx(0.2)


@pytest.mark.parametrize(("then", "now"), [({}, {"auc": 0.5}), ({"auc": 0.5}, {"loss": 1.0})])
def test_a_metric_nobody_measured_is_not_health(then, now):
    with pytest.raises(BadInput, match=r"monitor\.metric 'auc' is not among"):
        judge(then, now, {}, CONFIG)
