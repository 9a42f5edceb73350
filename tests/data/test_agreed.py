"""An encoding from the schema alone: clients say nothing of their rows, and under client privacy not how many."""

import json
from dataclasses import asdict

import numpy as np
import pytest

from fedcore.cli import main
from fedcore.config import DataConfig
from fedcore.coordinator import open_run, simulate
from fedcore.data.described import described
from fedcore.data.features import agreed
from fedcore.data.prepare import prepare
from fedcore.data.schema import Categorical, Numeric, Schema
from fedcore.errors import BadInput, PlanRefused
from fedcore.local.client import Client
from fedcore.parallel.job import job_of
from fedcore.privacy.leaves import leaves
from fedcore.report import plan_facts
from fedcore.session import seen
from fedcore.simulation import SerialFleet
from fedcore.types import Reply, Task

AGREED = ("data.encoding=schema",)
PRIVATE = (
    *AGREED,
    "privacy.mode=central",
    "privacy.delta=0.01",
    "privacy.noise=seeded",
    "privacy.epsilon=1000",
    "privacy.max_noise_ratio=1000",
    "combine.weights=equal",
    "local.algorithm=sgd",
    "run.rounds=2",
)
TABLE = Schema(
    "t",
    "classification",
    "y",
    ("a", "b"),
    (Numeric("age", 0, 100, nullable=True), Numeric("same", 3, 3)),
    (Categorical("town", ("oslo", "bergen")),),
)


def test_a_range_becomes_minus_one_to_one_and_its_middle_stands_for_what_is_missing():
    features = agreed(TABLE)
    rows = {
        "age": np.array([0.0, 100, np.nan]),
        "same": np.full(3, 3.0),
        "town": np.array(["oslo", "x", "bergen"]),
    }
    assert features.names == ("age", "age is missing", "same", "town=bergen", "town=oslo")
    np.testing.assert_array_equal(features.encode(rows), [[-1, 0, 0, 0, 1], [1, 0, 0, 0, 0], [0, 1, 0, 1, 0]])


def test_without_standardizing_numbers_stay_as_they_are():
    features = agreed(TABLE, standardize=False)
    assert [(s.center, s.scale, s.fill) for s in features.scales] == [
        ((0.0,), (1.0,), (50.0,)),
        ((0.0,), (1.0,), (3.0,)),
    ]
    open_ended = Schema("t", "regression", "y", numeric=(Numeric("weight"),))
    assert agreed(open_ended, standardize=False).scales[0].scale == (1.0,)
    assert agreed(Schema("t", "classification", "y", ("a",), shape=(2, 2))).scales[0].center == (0.0,) * 4


@pytest.mark.parametrize(
    ("schema", "standardize", "why"),
    [
        (
            Schema("t", "regression", "y", numeric=(Numeric("weight", 0),)),
            True,
            "column 'weight' has no range",
        ),
        (
            Schema("t", "regression", "y", numeric=(Numeric("w", nullable=True),)),
            False,
            "column 'w' has no range",
        ),
        (
            Schema("t", "regression", "y", numeric=(Numeric("w", "0", 1),)),  # type: ignore[arg-type]
            True,
            "column 'w' has the limit '0'",
        ),
        (
            Schema("t", "regression", "y", categorical=(Categorical("town"),)),
            True,
            "no words of column 'town'",
        ),
    ],
)
def test_a_schema_that_says_too_little_is_named(schema, standardize, why):
    with pytest.raises(BadInput, match=f"data.encoding schema: .*{why}"):
        agreed(schema, standardize)


@pytest.mark.parametrize(("more", "rows"), [((), True), (PRIVATE, False)], ids=["no privacy", "private"])
def test_a_client_says_that_it_can_take_part_and_no_more(more, rows, settings, workdir):
    client = Client("client-001", workdir / "data/sites", settings(*AGREED, *more))
    facts = dict(client.answer(Task("describe", "r", -1)).facts)
    assert "statistics" not in facts
    assert facts.pop("rows") > 1 if rows else facts.pop("rows") == 1
    assert set(facts) <= {"seconds"}


def test_a_run_trains_and_nobody_knows_how_many_rows_there_are(settings, workdir):
    noised = ("privacy.evaluation=noised", "privacy.evaluation_noise=0.02", "privacy.epsilon=1e7")
    result = simulate(settings(*PRIVATE, *noised), workdir, "r")
    assert result.metrics["accuracy"] > 0
    assert "rows" not in result.metrics
    with seen(workdir, "r") as opened:
        assert set(opened.body["rows"].values()) == {1}
        assert set(plan_facts(opened, tracked=True)["clients"].values()) == {None}
    words = (workdir / "runs/r/guarantee.txt").read_text()
    assert "feature statistics" not in words
    assert "what the checks of the data found" in words


def test_tracking_is_not_told_how_many_rows_where_the_server_is(settings, workdir):
    open_run(settings(*PRIVATE, "data.encoding=statistics"), workdir, "r")
    with seen(workdir, "r") as opened:
        assert set(plan_facts(opened, tracked=True)["clients"].values()) == {None}
        assert min(plan_facts(opened)["clients"].values()) > 1
    open_run(settings(), workdir, "clear")
    with seen(workdir, "clear") as opened:
        assert min(plan_facts(opened, tracked=True)["clients"].values()) > 1


def test_nobody_who_can_take_part_is_an_error(settings, workdir):
    sites = workdir / "data/sites"
    fleet = SerialFleet(sites, ("nobody",), settings(*AGREED))
    with pytest.raises(BadInput, match="no site's data can be used"):
        described(fleet, "r", Schema.load(sites), DataConfig(encoding="schema"))


@pytest.mark.parametrize("rows", [None, 0, -5, "x", float("nan"), True])
def test_a_number_of_rows_that_is_none_is_refused(rows, workdir):
    class Lying:
        clients = ("a",)

        def ask(self, task, clients):
            return iter([Reply("a", {} if rows is None else {"rows": rows})])

    with pytest.raises(BadInput, match="client a says it has .* training rows"):
        described(Lying(), "r", Schema.load(workdir / "data/sites"), DataConfig(encoding="schema"))


def test_another_encoding_of_the_same_data_prepares_nothing_anew(settings, workdir):
    first = prepare(settings(), workdir)
    assert prepare(settings(*AGREED), workdir).sites == first.sites


def test_what_goes_by_rows_is_refused_where_none_are_told(settings, workdir):
    quality = (
        "privacy.mode=local", "cohort.sampling=quality", "cohort.size=2", "privacy.noise_multiplier=0.1",
    )  # fmt: skip
    with pytest.raises(
        PlanRefused, match="cohort.sampling quality with data.encoding schema and privacy.mode local"
    ):
        open_run(settings(*PRIVATE, *quality), workdir, "r")


def test_data_parallel_training_encodes_alike(settings, workdir):
    config = settings(*AGREED)
    prepared = prepare(config, workdir)
    schema = Schema.load(prepared.sites)
    job = job_of(config, prepared)
    assert asdict(job.spec)["input_shape"] == agreed(schema).input_shape
    assert float(job.data.x_train.min()) >= 0  # as they are: pixels


def test_with_every_gap_closed_the_strict_report_passes(root, monkeypatch, capsys):
    monkeypatch.chdir(root)
    closed = ["-S", "data.encoding=schema", "-S", "tracking.enabled=false", "-S", "privacy.evaluation=noised"]
    with pytest.raises(SystemExit) as ended:
        main(["privacy", "report", "--preset", "digits-private", *closed, "--strict", "--json"])
    assert ended.value.code == 0
    told = json.loads(capsys.readouterr().out)
    assert {what.split(":")[0] for what in told["uncovered"]} == {"checks", "that the site is enrolled"}
    with pytest.raises(SystemExit) as ended:
        main(["privacy", "report", "--preset", "digits-private", *closed[2:], "--strict"])
    assert ended.value.code == 3


def test_row_counts_of_silos_are_said_to_be_public(settings):
    silo = settings(*AGREED, "privacy.mode=record", "privacy.unit=record")
    (counts,) = (leaving for leaving in leaves(silo) if leaving.what == "number of training rows")
    assert (counts.covered, counts.closable) == (False, False)
