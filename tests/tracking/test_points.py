"""What a round's numbers are called, and the small tables made of records."""

import csv
import io

from fedcore.tracking.memory import Memory
from fedcore.tracking.points import flatten, last_kept, participation, points


def test_every_number_of_a_round_has_a_name(record):
    named = points(record(2, refused={"AA": "norm"}))
    assert named["auc"] == 0.64
    assert named["client.auc_p10"] == 0.54
    assert named["seconds.ask"] == 1.5
    assert (named["cohort"], named["replied"], named["dropped"], named["refused"]) == (4, 3, 1, 1)
    assert (named["bytes_up"], named["bytes_down"], named["update_norm"]) == (1000, 4000, 0.5)
    assert named["rolled_back"] == 0


def test_a_private_round_tells_its_epsilon_and_not_how_many_took_part(record):
    named = points(record(2, refused={"AA": "norm"}, epsilon=1.5, delta=1e-5))
    assert (named["epsilon"], named["delta"], named["auc"]) == (1.5, 1e-5, 0.64)
    assert not {"cohort", "replied", "dropped", "refused", "bytes_up", "bytes_down"} & set(named)


def test_without_privacy_there_is_no_epsilon(record):
    assert not {"epsilon", "delta"} & set(points(record()))


def test_flattening_keeps_every_leaf_under_its_dotted_path():
    tree = {"seed": 1, "promotion": {"gates": [{"metric": "auc"}], "model": "m"}, "uri": None, "on": True}
    assert flatten(tree) == {
        "seed": "1",
        "promotion.gates": '[{"metric":"auc"}]',
        "promotion.model": "m",
        "uri": "null",
        "on": "true",
    }


def test_the_last_kept_round_is_the_newest_that_was_not_rolled_back(record):
    records = [record(2, verdict="rollback"), record(0), record(1)]
    assert last_kept(records) == records[2]
    assert last_kept(records[:1]) is None
    assert last_kept([]) is None


def test_participation_counts_each_client_and_quotes_its_last_reason(record):
    records = [record(0, refused={"AA": "too long, by 3"}), record(1, suspicion={"AA": 0.3})]
    table = list(csv.DictReader(io.StringIO(participation(records))))
    assert [row["client"] for row in table] == ["AA", "B6", "OO", "UA"]
    assert table[0] | {"client": ""} == {
        "client": "",
        "chosen": "2",
        "replied": "2",
        "dropped": "0",
        "refused": "1",
        "suspicion": "0.3",
        "last_reason": "too long, by 3",
    }
    assert (table[3]["replied"], table[3]["dropped"]) == ("0", "2")


def test_memory_holds_each_round_once_in_order(record):
    memory = Memory()
    for told in (record(1), record(0), record(1)):
        memory(told)
    assert memory.records == (record(0), record(1))
