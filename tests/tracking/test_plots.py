"""The pictures: which are drawn for which records, and that nothing half-drawn stays."""

import pytest

from fedcore.errors import BadInput, StorageError
from fedcore.tracking.plots import draw


def test_a_private_run_with_clients_gets_every_picture(record, tmp_path):
    records = [record(n, epsilon=1 + n, delta=1e-5, refused={"AA": "norm"}) for n in range(3)]
    drawn = draw(records, tmp_path / "report")
    names = {"quality.png", "loss.png", "privacy.png", "clients.png", "cohort.png"}
    assert {path.name for path in drawn} == names == {path.name for path in (tmp_path / "report").iterdir()}
    assert all(path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size > 5000 for path in drawn)


def test_what_the_records_do_not_hold_is_not_drawn(record, tmp_path):
    drawn = draw([record(0, metrics={}, client_metrics={"n": 4.0, "auc_p50": 0.5})], tmp_path)
    assert [path.name for path in drawn] == ["cohort.png"]


def test_one_round_a_rolled_back_round_and_a_missing_metric_can_be_drawn(record, tmp_path):
    assert draw([record(0)], tmp_path / "one")
    mixed = [record(0), record(1, verdict="rollback"), record(2, metrics={}, client_metrics={}), record(3)]
    assert len(draw(mixed, tmp_path / "mixed")) == 4


def test_the_same_records_in_any_order_draw_the_same_bytes(record, tmp_path):
    records = [record(n) for n in range(3)]
    one, other = draw(records, tmp_path / "a"), draw(records[::-1], tmp_path / "b")
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in other]


def test_no_records_are_refused(tmp_path):
    with pytest.raises(BadInput, match="at least one round"):
        draw([], tmp_path)


def test_a_place_that_is_no_folder_is_named_and_nothing_stays(record, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot write"):
        draw([record(0)], tmp_path / "file")
    (tmp_path / "cohort.png").mkdir()
    with pytest.raises(StorageError, match=r"cohort\.png"):
        draw([record(0, metrics={}, client_metrics={})], tmp_path)
    assert not list(tmp_path.glob(".*"))


def test_the_quantiles_of_a_score_come_before_those_of_a_loss(record, tmp_path):
    both = {"loss_p10": 1.0, "loss_p90": 2.0, "auc_p25": 0.5, "auc_p75": 0.6}
    loss = {"loss_p10": 1.0, "loss_p90": 2.0}
    only_auc = {"auc_p25": 0.5, "auc_p75": 0.6}
    clients = [
        draw([record(0, client_metrics=quantiles)], tmp_path / str(n))
        for n, quantiles in enumerate((both, only_auc, loss))
    ]
    pictures = [next(p for p in paths if p.name == "clients.png").read_bytes() for paths in clients]
    assert pictures[0] == pictures[1] != pictures[2]


def own_models(metric: str) -> tuple[dict[str, float], dict[str, float]]:
    """Metrics and quantiles of a round in which clients measured the model of all and their own."""
    names = (metric, f"personal_{metric}")
    spread = {f"{name}_p{p}": 0.5 + p / 300 for name in names for p in range(10, 100, 10)}
    return dict.fromkeys(names, 0.7), spread | {f"{name}_worst_decile": 0.5 for name in names}


@pytest.mark.parametrize("metric", ["accuracy", "mse"])
def test_clients_with_models_of_their_own_get_a_picture_of_fairness(record, tmp_path, metric):
    metrics, spread = own_models(metric)
    judged = record(1, metrics=metrics, client_metrics=spread)
    later = draw([record(0), judged, record(2, metrics={}, client_metrics={})], tmp_path / "later")
    alone = draw([judged], tmp_path / "alone")
    drawn = [next(p for p in paths if p.name == "fairness.png").read_bytes() for paths in (later, alone)]
    assert drawn[0] == drawn[1]
    better = draw(
        [record(1, metrics=metrics, client_metrics={**spread, f"personal_{metric}_p50": 0.9})], tmp_path
    )
    assert next(p for p in better if p.name == "fairness.png").read_bytes() != drawn[0]
    half = {name: value for name, value in spread.items() if name != f"personal_{metric}_p30"}
    assert not [
        p
        for p in draw([record(1, metrics=metrics, client_metrics=half)], tmp_path / "half")
        if p.name == "fairness.png"
    ]
