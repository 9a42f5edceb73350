"""Shadow federations are trained through the round itself; a member is found where nothing hides it."""

from dataclasses import replace

import numpy as np
import pytest

from fedcore.data.federated import split
from fedcore.errors import BadInput, UnknownName
from fedcore.redteam.membership import DEFENCES, defence, infer, judge, train_shadows
from fedcore.redteam.membership_report import as_json, as_markdown
from fedcore.rng import generator


@pytest.fixture(scope="module")
def memorising(settings):
    """Four clients whose model learns its rows by heart."""
    return settings(
        "data.partition.scheme=iid",
        "model.hidden=[32]",
        "run.rounds=6",
        "local.epochs=10",
        "local.batch_size=64",
        "local.lr=0.2",
    )


@pytest.fixture(scope="module")
def shadows(memorising, tmp_path_factory):
    return train_shadows(memorising, tmp_path_factory.mktemp("shadows"), 8)


def test_each_record_is_in_about_half_of_the_models(shadows, memorising):
    """1,797 records in 8 models: the share lies within five deviations of a fair coin."""
    assert shadows.phi.shape == shadows.member.shape == (8, 1797)
    assert abs(shadows.member.mean() - 0.5) < 5 * 0.5 / shadows.member.size**0.5
    seed = int(generator(memorising.seed, "shadow", 0).integers(2**31))
    rows = 1797 // 4 + 1  # the first client has one row more
    train, _ = split(rows, seed, "client-000", 0.5)
    np.testing.assert_array_equal(np.flatnonzero(shadows.member[0, :rows]), train)


def test_members_of_a_memorising_model_are_found(shadows):
    assert shadows.train_accuracy > shadows.accuracy
    curve = infer(shadows)["online"]
    assert curve.powers[0].low > 0.01
    assert curve.auc > 0.52


def test_strangers_of_all_models_are_no_members(shadows):
    """With memberships drawn again nothing is left to find: within four deviations, threefold for shared records."""
    again = np.random.default_rng(8).permuted(shadows.member, axis=0)
    found = infer(replace(shadows, member=again))["online"].powers[0]
    assert abs(found.tpr - 0.01) < 4 * (3 * 0.01 * 0.99 * 2 / found.members) ** 0.5


def test_equal_seeds_give_equal_bytes_and_another_seed_does_not(settings, workdir):
    few = settings("run.rounds=1")
    first, second = (train_shadows(few, workdir, 8) for _ in range(2))
    assert first.phi.tobytes() == second.phi.tobytes()
    assert (first.member == second.member).all()
    other = train_shadows(replace(few, seed=2), workdir, 8)
    assert (other.member != first.member).any()


def test_a_report_says_what_each_defence_promises(settings, workdir):
    heard = []
    overrides = {name: defence(name).overrides for name in ("none", "central-1")}
    configs = {name: settings("run.rounds=1", *given) for name, given in overrides.items()}
    found = judge(configs, workdir, 8, trained=heard.append)
    assert heard == ["none"] * 8 + ["central-1"] * 8
    facts = as_json(found)
    assert facts[0]["epsilon"] is None
    assert facts[1]["epsilon"] == pytest.approx(4.4, rel=0.05)  # one Gaussian of multiplier 1, δ = 1e-5
    text = as_markdown(found, "digits")
    assert "the unit is the client" in text
    assert text.count("| online |") == 2


@pytest.mark.parametrize("name", DEFENCES)
def test_every_defence_is_a_configuration_that_trains(name, settings, workdir):
    config = settings("run.rounds=1", *defence(name).overrides)
    assert np.isfinite(train_shadows(config, workdir, 8).phi).all()


def test_a_regression_too_few_shadows_and_an_unknown_defence_are_refused(settings, tmp_path):
    with pytest.raises(BadInput, match="at least 8 shadow models, got 7"):
        train_shadows(settings(), tmp_path, 7)
    with pytest.raises(UnknownName, match="unknown defence 'clip'; did you mean 'clipping'"):
        defence("clip")
    rows = [f"{c},{i % 7},{i * 0.5}" for c in "ab" for i in range(30)]
    (tmp_path / "own.csv").write_text("\n".join(["who,x,y", *rows, ""]))
    own = settings(
        "data.name=own",
        f"data.path={tmp_path / 'own.csv'}",
        "data.client_column=who",
        "data.label=y",
        "data.task=regression",
        "data.partition.scheme=natural",
        "checks.max_duplicates=1",
    )
    with pytest.raises(BadInput, match="is a regression and LiRA compares confidences of classes"):
        train_shadows(own, tmp_path / "work", 8)
