"""A run on the virtual clock as people see it: a table, a picture, and when it reached what they wanted."""

import json
from pathlib import Path

import pytest

from fedcore.clock import Schedule, Visit
from fedcore.compare import Target, compare
from fedcore.coordinator import simulate
from fedcore.errors import BadInput
from fedcore.session import seen
from fedcore.tracking.timeline import MOST_DEVICES, MOST_ROUNDS, Piece, draw, pieces

FLEET = (
    "time.mode=virtual",
    "time.classes=[{name: slow, seconds_per_row: 1.0, down_mbps: 1.0}, {name: quick, seconds_per_row: 0.1, share: 3}]",
    "cohort.quorum=0.1",
    "cohort.min_clients=1",
    "time.dropout=0.3",
)


@pytest.fixture
def fleet(workdir, settings) -> Path:
    """A work directory with the run ``fleet`` on the virtual clock, in which devices are lost."""
    simulate(settings(*FLEET), workdir, "fleet")
    return workdir


def test_the_table_the_json_and_the_report_show_the_rounds_of_the_run(fleet, fedcore, tmp_path):
    picture = tmp_path / "timeline.png"
    code, out, _ = fedcore("timeline", "fleet", "--workdir", fleet, "--picture", picture)
    assert (code, picture.read_bytes()[:4]) == (0, b"\x89PNG")
    assert str(picture) in out.replace("\n", "")
    assert (fleet / "runs/fleet/report/timeline.png").read_bytes()[:4] == b"\x89PNG"
    code, out, _ = fedcore("timeline", "fleet", "--workdir", fleet, "--json")
    shown = [Schedule.from_json(tree) for tree in json.loads(out)]
    with seen(fleet, "fleet") as opened:
        records = opened.records()
        assert shown == opened.schedules()
    assert [s.ends for s in shown] == [record.virtual_s for record in records]
    assert [sorted(s.counted) for s in shown] == [list(record.replied) for record in records]
    assert any(visit.fate == "dropped" for s in shown for visit in s.visits)


def test_compare_says_when_a_target_was_reached(fleet, fedcore):
    with seen(fleet, "fleet") as opened:
        records = opened.records()
    wanted = records[1].metrics["loss"]
    first = next(r for r in records if r.metrics["loss"] <= wanted)
    row = compare(fleet, ["fleet"], Target("loss", wanted))[0]
    assert (row.reached_round, row.reached_virtual_s) == (first.round + 1, first.virtual_s)
    assert row.virtual_s == records[-1].virtual_s
    assert compare(fleet, ["fleet"], Target("accuracy", 1.1))[0].reached_round is None
    code, out, _ = fedcore("compare", "fleet", "--workdir", fleet, "--target", f"loss={wanted}")
    assert code == 0
    assert "virtual s" in out
    code, _, err = fedcore("compare", "fleet", "--workdir", fleet, "--target", "fast")
    assert (code, "METRIC=VALUE" in err) == (2, True)


def test_a_run_on_the_real_clock_and_a_private_one_have_no_timeline(workdir, settings, fedcore):
    simulate(settings("run.rounds=1"), workdir, "real")
    code, _, err = fedcore("timeline", "real", "--workdir", workdir)
    assert (code, "time.mode=virtual" in err) == (2, True)
    private = ("privacy.mode=central", "combine.weights=equal", "privacy.delta=1e-3", "run.rounds=1")
    simulate(settings("time.mode=virtual", *private), workdir, "private")
    code, _, err = fedcore("timeline", "private", "--workdir", workdir)
    assert (code, "is private" in err) == (3, True)
    assert not (workdir / "runs/private/report/timeline.png").exists()


def test_the_pieces_of_a_visit_fill_its_time_without_a_gap():
    visit = Visit("a", 3.0, (1.0, 4.0, 2.0), "counted", 10.0, 1.0)
    found = list(pieces(visit, 1.0))
    assert found[0] == Piece("waits", 1.0, 3.0)
    assert [piece.shows for piece in found] == ["waits", "downloads", "trains", "uploads"]
    assert all(one.end == after.begin for one, after in zip(found, found[1:], strict=False))
    assert found[-1].end == visit.until
    lost = Visit("a", 3.0, (1.0, 4.0, 2.0), "dropped", 5.5, 1.0)
    assert list(pieces(lost, 3.0)) == [Piece("dropped", 3.0, 5.5)]


def test_a_large_run_is_drawn_in_part_and_none_is_refused(tmp_path):
    names = [f"c{i:03d}" for i in range(MOST_DEVICES + 5)]
    rounds = [
        Schedule(
            r * 9.0,
            (r + 1) * 9.0,
            tuple(Visit(n, r * 9.0, (0, 5.0, 0), "counted", r * 9.0 + 5, 1.0) for n in names),
        )
        for r in range(MOST_ROUNDS + 3)
    ]
    assert draw(rounds, tmp_path / "a.png", "large").stat().st_size > 10_000
    with pytest.raises(BadInput, match=r"time\.mode"):
        draw([], tmp_path / "b.png", "none")
    assert not (tmp_path / "b.png").exists()
