"""The matrix trains what is asked and nothing twice, goes on after a kill, and refuses what cannot be asked."""

import json
from dataclasses import replace

import pytest

from fedcore.errors import BadInput, CorruptState, RunBusy, UnknownName
from fedcore.redteam.kept import Record, fill
from fedcore.redteam.matrix import NONE, RULES, Asked, Cell, Setting, cell_config, key_of
from fedcore.redteam.picture import draw
from fedcore.redteam.summary import Pace, Panel, as_csv, in_pace, paces, panels, ranking


@pytest.fixture(scope="session")
def tiny(settings):
    return settings("run.rounds=2")


@pytest.fixture
def asked(tiny):
    """Two rules, two attacks and none, five clients of which one lies."""
    return Asked(
        tiny, ("mean", "trimmed_mean", "krum"), ("sign_flip", "backdoor"), settings=("4/1:iid",), seeds=1
    )


def record(rule, attack, scores, seed=1, setting="10/3:iid", variant="plain", **numbers):
    given = {"caught": 0.0, "wronged": 0.0, "implanted": None, "stopped": None, "seconds": 1.0, **numbers}
    return Record(Cell(setting, variant, rule, attack, seed), {"scores": scores, **given}, 1.0)


def test_every_cell_is_played_once_and_kept(asked, workdir):
    heard = []
    records = fill(asked, workdir, progress=heard.append)
    assert [r.cell for r in records] == asked.cells()
    assert len(heard) == len(records) == 9
    again = fill(asked, workdir)
    assert [r.at for r in again] == [r.at for r in records]


def test_it_goes_on_where_a_kill_left_half_a_line(asked, workdir):
    whole = fill(asked, workdir)
    file = workdir / "cells.jsonl"
    file.write_bytes(file.read_bytes()[:-40])
    again = fill(asked, workdir)
    assert [r.at for r in again[:-1]] == [r.at for r in whole[:-1]]
    assert again[-1].numbers["skipped"] == whole[-1].numbers["skipped"]
    assert len(file.read_bytes().splitlines()) == len(whole)


def test_two_processes_find_what_one_finds(asked, workdir, new_workdir):
    def scores(records):
        return [r.numbers.get("scores") for r in records]

    few = replace(asked, rules=("trimmed_mean",), attacks=("sign_flip",))
    assert scores(fill(few, workdir)) == scores(fill(few, new_workdir("two"), workers=2))


def test_a_rule_below_its_bound_is_skipped_with_the_reason(asked, workdir):
    skipped = {r.cell.attack: r.numbers.get("skipped") for r in fill(asked, workdir) if r.cell.rule == "krum"}
    assert set(skipped) == {NONE, "sign_flip", "backdoor"}
    assert all("krum with combine.f 1 needs at least 5 clients, got 4" in why for why in skipped.values())


def test_only_a_backdoor_says_how_far_it_works(asked, workdir):
    found = {r.cell.attack: r.numbers["implanted"] for r in fill(asked, workdir) if r.cell.rule == "mean"}
    assert found[NONE] is None
    assert 0 <= found["backdoor"] <= 1


def test_other_settings_are_another_key_and_tracking_is_not_a_setting(tiny):
    cell = Cell("4/1:iid", "plain", "mean", NONE, 1)
    same = replace(tiny, tracking=replace(tiny.tracking, experiment="other"))
    other = replace(tiny, local=replace(tiny.local, lr=0.2))
    assert key_of(same, cell) == key_of(tiny, cell)
    assert key_of(other, cell) != key_of(tiny, cell)
    assert key_of(tiny, replace(cell, seed=2)) != key_of(tiny, cell)


def test_a_damaged_file_of_cells_is_named_and_not_made_anew(asked, workdir):
    (workdir / "cells.jsonl").write_text("nonsense\n")
    with pytest.raises(CorruptState, match="no record; move it away"):
        fill(asked, workdir)


def test_two_commands_do_not_fill_one_folder_at_once(asked, workdir):
    def second(_):
        with pytest.raises(RunBusy, match="another process fills"):
            fill(asked, workdir)

    fill(replace(asked, rules=("mean",), attacks=()), workdir, progress=second)


@pytest.mark.parametrize(
    ("sides", "error", "words"),
    [
        ({"rules": ("medan",)}, UnknownName, "did you mean 'median'"),
        ({"rules": ("nmm+mean",)}, UnknownName, "unknown mixer 'nmm'"),
        ({"attacks": ("signflip",)}, UnknownName, "unknown attack 'signflip'.*mimic"),
        ({"variants": ("dq",)}, UnknownName, "unknown variant 'dq'"),
        ({"settings": ("10:3",)}, BadInput, "is not CLIENTS/LIARS:SCHEME"),
        ({"settings": ("10/5:iid",)}, BadInput, "no rule survives 5 liars among 10"),
        ({"settings": ("10/3:dirichlet=0",)}, BadInput, "above zero"),
        ({"settings": ("10/3:dirichlet=1.2.3",)}, BadInput, "is not CLIENTS/LIARS:SCHEME"),
        ({"rules": ()}, BadInput, "no rules are named"),
        ({"seeds": 0}, BadInput, "seeds must be 1 or more, got 0"),
    ],
)
def test_what_cannot_be_asked_for_is_refused_before_anything_trains(tiny, sides, error, words):
    with pytest.raises(error, match=words):
        Asked(tiny, **sides).cells()


@pytest.mark.parametrize("text", ["10/3:iid", "25/5:dirichlet", "4/1:dirichlet=0.1", "6/0:quantity"])
def test_a_setting_reads_as_it_was_written(text):
    assert str(Setting.parse(text)) == text


def test_the_honest_mean_is_always_there_to_compare_with(tiny):
    cells = Asked(tiny, ("median",), ("ipm",), settings=("4/1:iid",), seeds=1).cells()
    assert [(c.rule, c.attack) for c in cells] == [("mean", NONE), ("median", NONE), ("median", "ipm")]


@pytest.mark.parametrize("name", RULES)
def test_every_rule_gets_as_many_liars_as_there_are(name, tiny):
    combine = cell_config(tiny, Cell("25/5:iid", "plain", name, NONE, 1)).combine
    assert combine.f == (None if name == "mean" else 5)
    assert "+".join((*combine.mixers, combine.rule)) == name


def test_the_ranking_goes_by_the_worst_case_and_leaves_no_attack_out():
    found = [
        Panel("a", "plain", {("x", NONE): 1.0, ("x", "p"): 0.9, ("x", "q"): 0.1}, {"x": 0.7}, {}),
        Panel("b", "plain", {("y", NONE): 0.8, ("y", "p"): 0.7, ("y", "q"): 0.6}, {}, {}),
        Panel("b", "top_k", {("z", NONE): 0.2}, {}, {"x": "too few"}),
    ]
    standings = ranking(found)
    assert [s.rule for s in standings] == ["y", "x"]
    assert standings[1].worst == pytest.approx(0.1)
    assert standings[1].mean == pytest.approx(0.5)
    assert [s.implanted for s in standings] == [None, 0.7]


def test_seeds_are_averaged_in_a_panel_and_skipped_cells_have_their_reason():
    skipped = Record(Cell("10/3:iid", "plain", "krum", NONE, 1), {"skipped": "too few"}, 1.0)
    (panel,) = panels(
        [
            record("mean", NONE, [0, 0.8]),
            record("mean", NONE, [0, 0.6], seed=2),
            skipped,
            record("mean", "backdoor", [0, 0.9], implanted=0.5),
        ]
    )
    assert panel.scores == {("mean", NONE): pytest.approx(0.7), ("mean", "backdoor"): 0.9}
    assert panel.implanted == {"mean": 0.5}
    assert panel.skipped == {"krum": "too few"}


def test_a_refused_round_is_no_breakdown_and_is_named(tmp_path):
    (panel,) = found = panels(
        [
            record("mean", NONE, [0, 0.8]),
            record("krum", NONE, [0, 0.7]),
            record("krum", "ipm", [0, 0.6]),
            record("krum", "non_finite", [0.1, 0.1], stopped="krum with f 3 needs at least 9 clients, got 7"),
        ]
    )
    assert panel.refused == {("krum", "non_finite")}
    (standing,) = ranking(found)
    assert (standing.worst, standing.mean, standing.refused) == (0.6, 0.6, ("non_finite",))
    assert draw(found, tmp_path / "map.png", "t").stat().st_size > 0


def test_pace_is_rounds_over_the_honest_means_rounds_and_none_if_never():
    records = [
        record("mean", NONE, [0.1, 0.5, 0.96, 1.0]),
        record("median", "ipm", [0.1, 0.5, 0.9, 0.97]),
        record("median", "alie", [0.1, 0.5, 0.6, 0.7]),
    ]
    found = {(p["rule"], p["attack"]): p["ratio"] for p in paces(records, 0.95)}
    assert found == {("mean", NONE): 1.0, ("median", "ipm"): 1.5, ("median", "alie"): None}
    assert in_pace(records) == [Pace("10/3:iid", "median", 0, 2, None)]
    assert in_pace(records[:2]) == [Pace("10/3:iid", "median", 0, 1, 1.5)]


def test_the_table_has_a_line_a_cell():
    lines = as_csv([record("mean", NONE, [0.1, 0.5], stopped="a, b")]).splitlines()
    assert lines[0].startswith("setting,variant,rule,attack,seed,score,caught")
    assert lines[1] == '10/3:iid,plain,mean,none,1,0.5,0.0,0.0,,"a, b",,1.0'


def test_kept_lines_are_json(asked, workdir):
    fill(replace(asked, rules=("mean",), attacks=()), workdir)
    lines = (workdir / "cells.jsonl").read_text().splitlines()
    assert [set(json.loads(line)) for line in lines] == [{"key", "cell", "numbers", "at"}]
