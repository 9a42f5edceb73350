"""A cell is a training through the round; it is kept, compared with what was published, and shown."""

import json

import numpy as np
import pytest

from fedcore.cli import main
from fedcore.errors import BadInput, CorruptState, UnknownName
from fedcore.tables import TABLES, Asked, as_markdown, draw, fill, lines, named
from fedcore.tables.kept import Done, key_of
from fedcore.tables.summary import shortened
from fedcore.tables.table import Cell, Part, Published, cell_config, overlaid
from fedcore.tables.training import Trained, train


def done(table, row: int, seed: int, score: float, rounds: int = 3) -> Done:
    cell = Cell(table.rows[row], table.columns[0], seed)
    return Done(cell, "0" * 16, Trained({rounds - 1: score}, score, {}, rounds, 2.0), 0.0)


def test_parts_of_a_table_are_laid_over_each_other_key_by_key():
    below = {"a": {"b": 1, "c": 2}, "d": 3}
    assert overlaid(below, {"a": {"b": 9}, "d": {"e": 4}}) == {"a": {"b": 9, "c": 2}, "d": {"e": 4}}
    assert below["a"] == {"b": 1, "c": 2}


def test_a_cells_settings_are_the_tables_the_columns_the_rows_and_its_seed(table):
    tiny = table()
    config = cell_config(tiny, Cell(tiny.rows[1], tiny.columns[1], 7, 2))
    assert (config.seed, config.run.rounds, config.local.lr) == (7, 2, 0.3)
    assert (config.local.algorithm, config.evaluate.every) == ("scaffold", 1)
    assert cell_config(table(when="last"), Cell(tiny.rows[0], tiny.columns[0], 1)).evaluate.every == 3


@pytest.mark.parametrize("name", TABLES)
def test_every_tables_cells_can_be_configured_and_what_was_published_has_a_cell(name):
    found = named(name)
    keys = {key_of(found, Cell(row, column, 1)) for row in found.rows for column in found.columns}
    assert len(keys) == len(found.rows) * len(found.columns)
    assert found.source
    for row, column in found.published:
        assert column in {part.name for part in found.columns}, (row, column)


def test_scores_of_rows_are_those_of_every_round_and_the_best_counts(table, ground):
    tiny, told = table(), []
    trained = train(tiny, Cell(tiny.rows[0], tiny.columns[0], 1), ground, heard=told.append)
    assert told == [1, 2, 3]
    assert sorted(trained.scores) == [0, 1, 2]
    assert trained.score == max(trained.scores.values()) > 0.5
    last = train(table(when="last"), Cell(tiny.rows[0], tiny.columns[0], 1), ground)
    assert last.scores == {2: trained.scores[2]}


@pytest.mark.parametrize("name", ["Ditto", "APFL", "Per-FedAvg"])
def test_a_personal_row_is_scored_by_the_clients_own_models(name, table, ground):
    row = next(row for row in named("pfllib-fmnist").rows if row.name == name)
    tiny = table(rows=(row,))
    trained = train(tiny, Cell(row, tiny.columns[0], 1, 2), ground)
    shared = train(tiny, Cell(Part(name, row.tree), tiny.columns[0], 1, 2), ground)
    assert set(trained.scores) == set(shared.scores) == {0, 1}
    assert trained.scores != shared.scores


def test_where_clients_count_the_score_is_the_mean_of_their_own(table, ground):
    tiny = table(over="clients", when="last")
    trained = train(tiny, Cell(tiny.rows[0], tiny.columns[0], 1), ground)
    assert sorted(trained.parts) == ["client-000", "client-001", "client-002"]
    assert trained.score == pytest.approx(np.mean(list(trained.parts.values())))


def test_a_model_can_be_judged_where_it_was_not_trained(table, ground):
    one = {"data": {"sites": ["client-001"]}, "cohort": {"min_clients": 1}}
    row = Part("Local", one, judged_on={**table().base["data"], "test_fraction": 0.5})
    trained = train(
        table(over="clients", when="last"),
        Cell(row, Part("all", {"data": {"standardize": False}}), 1),
        ground,
    )
    assert sorted(trained.parts) == ["client-000", "client-001", "client-002"]


def test_a_finished_cell_is_kept_and_one_of_other_settings_is_another(table, ground, tmp_path):
    tiny = table()
    asked = Asked(tiny, 1, 1, ("FedAvg", "slow"))
    assert [cell.label for cell in asked.cells] == ["slow, FedAvg, seed 1"]
    seen: list[int] = []
    first = fill(asked, tmp_path, progress=lambda cell, rounds: seen.append(rounds))
    again = fill(asked, tmp_path, progress=lambda cell, rounds: seen.append(rounds))
    assert seen == [1]
    assert again == first
    assert (
        len({key_of(tiny, Cell(tiny.rows[0], column, 1, n)) for column in tiny.columns for n in (1, 2)}) == 4
    )
    file = next((tmp_path / "cells").iterdir())
    file.write_text("{}")
    with pytest.raises(CorruptState, match="is no finished cell; remove it"):
        fill(asked, tmp_path)


def test_ours_is_compared_with_the_published_deviation_in_the_better_direction(table):
    tiny = table()
    found = lines(tiny, [done(tiny, 0, 1, 0.86), done(tiny, 0, 2, 0.90), done(tiny, 1, 1, 0.99)])
    average, scaffold = found
    assert (average.mean, average.gap, average.reached, average.seeds) == (88, -2, True, 2)
    assert average.deviation == pytest.approx(2 * 2**0.5)
    assert (scaffold.reached, scaffold.gap) == (False, pytest.approx(-0.9))
    worse = table(lower_is_better=True, published={("FedAvg", "slow"): Published(80.0, 3.0)})
    assert lines(worse, [done(worse, 0, 1, 0.86)])[0].reached is False
    silent = table(published={("FedAvg", "slow"): Published(80.0, None)})
    assert lines(silent, [done(silent, 0, 1, 0.86), done(silent, 1, 1, 0.9)])[0].reached is None


def test_a_shortened_line_says_so_and_so_does_the_document(table):
    tiny = table()
    whole, short = lines(tiny, [done(tiny, 0, 1, 0.9)])[0], lines(tiny, [done(tiny, 0, 1, 0.9, 1)])[0]
    assert (shortened(whole), shortened(short)) == ("", "1 of 3 rounds")
    text = as_markdown(tiny, [short])
    assert (
        text.splitlines()[2] == "| slow | FedAvg | 90.00 ± 3.00 | 90.00 | +0.00 | yes | 1 | 1 of 3 rounds |"
    )


def test_the_picture_is_written_whole(table, tmp_path):
    tiny = table()
    path = draw(
        tiny, lines(tiny, [done(tiny, 0, 1, 0.86, 1), done(tiny, 1, 1, 0.9, 1)]), tmp_path / "p" / "t.png"
    )
    assert path.read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize(
    ("asked", "error", "why"),
    [
        ({"seeds": 0}, BadInput, "seeds must be 1 or more, got 0"),
        ({"seeds": 1, "only": ("FedAvgg",)}, UnknownName, "did you mean 'FedAvg'"),
    ],
)
def test_what_cannot_be_asked_is_refused(table, asked, error, why):
    with pytest.raises(error, match=why):
        Asked(table(), **asked)


def test_no_rounds_are_refused(table):
    tiny = table()
    with pytest.raises(BadInput, match="rounds must be 1 or more, got 0"):
        cell_config(tiny, Cell(tiny.rows[0], tiny.columns[0], 1, 0))


@pytest.fixture
def fedcore(monkeypatch, capsys, table, ground):
    """Runs a command beside a tiny table; its exit code, standard output and standard error."""
    monkeypatch.setitem(TABLES, "tiny", table(short=1, short_seeds=1))
    monkeypatch.chdir(ground)

    def run(*words):
        with pytest.raises(SystemExit) as ended:
            main(["tables", *words])
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return run


def test_the_command_trains_shows_draws_and_says_what_it_left_out(fedcore, ground):
    code, out, err = fedcore("tiny", "--only", "FedAvg, slow", "--no-tracking", "--json")
    assert code == 0, err
    facts = json.loads(out.splitlines()[-1])
    assert [(line["row"], line["rounds"], line["of_rounds"]) for line in facts["lines"]] == [("FedAvg", 1, 3)]
    assert "shortened: 1 of 3 rounds (--full runs all)" in out
    assert "Digits are not published so." in out
    assert facts["lines"][0]["published"] == {"mean": 90.0, "deviation": 3.0}
    assert (ground / facts["files"]["picture"]).is_file()
    assert "| slow | FedAvg |" in (ground / facts["files"]["markdown"]).read_text()


def test_tables_are_listed_for_people_and_programs(fedcore):
    assert "heart" in fedcore()[1]
    known = json.loads(fedcore("--json")[1].splitlines()[-1])["tables"]
    assert {table["name"] for table in known} == set(TABLES)


def test_an_unknown_table_is_one_sentence(fedcore):
    code, _, err = fedcore("hearts")
    assert code == 2
    assert "unknown table 'hearts'; did you mean 'heart'?" in err
    assert "Traceback" not in err


def test_each_cell_is_a_run_in_mlflow_and_telling_twice_changes_nothing(fedcore, ground):
    from fedcore.tracking.mlflow import connect

    words = ("tiny", "--only", "slow,FedAvg", "--rounds", "1", "--json")
    first, second = (json.loads(fedcore(*words)[1].splitlines()[-1])["files"]["mlflow"] for _ in range(2))
    assert first == second
    client = connect(first)
    experiment = client.get_experiment_by_name("table-tiny")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.data.metrics["gap"] == pytest.approx(run.data.metrics["score"] - 90)
    assert (run.data.tags["row"], run.data.tags["column"]) == ("FedAvg", "slow")
    assert run.info.status == "FINISHED"
