"""``fedcore privacy ledger`` shows who spent what, ``fedcore verify`` proves it; neither reads without verifying."""

import json

import pytest

from fedcore.ledger import GENESIS, PrivacyLedger, spending, verified
from fedcore.ledger.picture import draw
from fedcore.privacy.events import GaussianSum
from fedcore.store import Store

EVENT = GaussianSum(noise_multiplier=8.0, sampling_rate=None)


@pytest.fixture
def place(tmp_path):
    """A work directory with two accounts: one of two runs, one of a run."""
    charge(tmp_path, "flights@v1", ["first"] * 3 + ["second"] * 2 + ["first"])
    charge(tmp_path, "digits@v1", ["third"])
    return tmp_path


def charge(place, account, runs):
    with Store.at(place) as store:
        ledger = PrivacyLedger(store, account, limit=5.0, delta=1e-5, settings={"clip": 1.0})
        numbers = dict.fromkeys(runs, 0)
        for run in runs:
            ledger.reserve(run, numbers[run], EVENT)
            ledger.settle(run, numbers[run], EVENT)
            numbers[run] += 1


def tamper(place, statement):
    with Store.at(place) as store, store.engine.begin() as connection:
        for act in ("update", "delete"):
            connection.exec_driver_sql(f"DROP TRIGGER IF EXISTS ledger_no_{act}")
        connection.exec_driver_sql(statement)


def test_the_table_says_who_spent_what(fedcore, place):
    code, out, _ = fedcore("privacy", "ledger", "--workdir", place)
    assert code == 0
    assert "account flights@v1: ε = " in out
    assert "of 5 spent" in out
    assert "(δ = 1e-05, client level, add or remove)" in out
    assert [line.split()[:3] for line in out.splitlines() if line.split()[:1] == ["first"]] == [
        ["first", "4", "4"]
    ]
    assert "account digits@v1" in out
    assert "entries 16, chain verified, head " in out


def test_one_account_and_its_entries(fedcore, place):
    code, out, _ = fedcore("privacy", "ledger", "--workdir", place, "--account", "digits@v1", "--entries")
    assert code == 0
    assert "flights" not in out
    assert "kind gaussian_sum, noise_multiplier 8" in out
    assert "clip 1" in out
    assert "data_version v1, delta 1e-05, limit 5" in out


def test_an_account_that_is_not_there_is_named_with_the_known_ones(fedcore, place):
    code, _, err = fedcore("privacy", "ledger", "--workdir", place, "--account", "flights@v2")
    assert code == 2
    assert "unknown account 'flights@v2'; did you mean 'flights@v1'? known: digits@v1, flights@v1" in err


def test_the_same_as_json(fedcore, place):
    code, out, _ = fedcore("privacy", "ledger", "--workdir", place, "--json")
    facts = json.loads(out)
    assert code == 0
    flights = facts["accounts"][0]
    assert [run["charged"] for run in flights["runs"]] == [4, 2]
    assert sum(run["share"] for run in flights["runs"]) == pytest.approx(1)
    assert flights["spent"] + flights["remaining"] == pytest.approx(5)
    assert facts["entries"] == 16
    assert "ledger" not in facts
    full = json.loads(fedcore("privacy", "ledger", "--workdir", place, "--json", "--entries")[1])
    assert [entry["sha256"] for entry in full["ledger"]][-1] == facts["head"]


def test_nothing_charged_is_said_and_is_json_too(fedcore, tmp_path):
    assert "nothing was charged" in fedcore("privacy", "ledger", "--workdir", tmp_path)[1]
    out = fedcore("privacy", "ledger", "--workdir", tmp_path, "--json")[1].splitlines()[-1]
    assert json.loads(out) == {"accounts": [], "entries": 0, "head": GENESIS}


def test_a_limit_is_raised_by_who_says_why(fedcore, place):
    code, _, err = fedcore("privacy", "ledger", "--workdir", place, "--raise", 9)
    assert (code, "--raise needs --account and --reason" in err) == (2, True)
    words = ("--account", "flights@v1", "--raise", 9, "--reason", "decided in May")
    code, out, _ = fedcore("privacy", "ledger", "--workdir", place, *words)
    assert (code, "of 9 spent" in out) == (0, True)


@pytest.mark.parametrize("kind", ["png", "svg", "pdf"])
def test_the_picture_is_drawn(fedcore, place, kind):
    file = place / "pictures" / f"budget.{kind}"
    code, out, _ = fedcore("privacy", "ledger", "--workdir", place, "--picture", file)
    assert (code, file.stat().st_size > 5000, str(file) in out.replace("\n", "")) == (0, True, True)


def test_a_picture_of_another_kind_or_place_is_refused_in_a_sentence(fedcore, place):
    code, _, err = fedcore("privacy", "ledger", "--workdir", place, "--picture", place / "budget.doc")
    assert (code, "name it .png, .svg or .pdf" in err) == (2, True)
    code, _, err = fedcore(
        "privacy", "ledger", "--workdir", place, "--picture", "/proc/nowhere/a.png", "--json"
    )
    assert (code, "choose another --picture" in err) == (5, True)


def test_many_runs_fit_the_picture(tmp_path):
    charge(tmp_path, "flights@v1", [f"run-{number % 11}" for number in range(22)])
    with Store.at(tmp_path) as store:
        accounts = spending(verified(store))
    text = draw(accounts, tmp_path / "many.svg").read_text(encoding="utf-8")
    assert "other runs: 6 rounds" in text


@pytest.mark.parametrize("words", [["verify"], ["verify", "ledger"]])
def test_a_whole_chain_is_proved(fedcore, place, words):
    code, out, _ = fedcore(*words, "--workdir", place)
    assert code == 0
    assert "16 entries of 2 accounts, the chain holds" in out
    assert "account  digits@v1: ε = " in out
    assert "note the head" in out
    facts = json.loads(fedcore(*words, "--workdir", place, "--json")[1])
    assert facts["entries"] == 16
    assert facts["head"] in out
    assert facts["accounts"]["digits@v1"]["limit"] == 5


def test_a_break_is_exit_five_and_names_the_entry_everywhere(fedcore, place):
    tamper(place, "UPDATE ledger SET body = replace(body, '8.0', '80.0') WHERE sequence = 4")
    for words in (["verify"], ["verify", "ledger"], ["privacy", "ledger"]):
        code, out, err = fedcore(*words, "--workdir", place)
        assert (code, out) == (5, "")
        assert "chain breaks at entry 4" in err
    assert fedcore("privacy", "ledger", "--workdir", place, "--json")[0] == 5


def test_only_a_noted_head_shows_that_the_end_was_cut_off(fedcore, place):
    noted = json.loads(fedcore("verify", "--workdir", place, "--json")[1])["head"]
    charge(place, "others@v1", ["fourth"])
    code, out, _ = fedcore("verify", "ledger", "--workdir", place, "--head", noted)
    assert (code, "3 entries after the head that you noted" in out) == (0, True)
    tamper(place, "DELETE FROM ledger WHERE sequence >= 15")
    assert fedcore("verify", "ledger", "--workdir", place)[0] == 0
    code, _, err = fedcore("verify", "ledger", "--workdir", place, "--head", noted[:12])
    assert (code, "do not hold the noted head" in err) == (5, True)
    assert fedcore("verify", "ledger", "--workdir", place, "--head", GENESIS)[0] == 0
    code, _, err = fedcore("verify", "ledger", "--workdir", place, "--head", "abc")
    assert (code, "must have 12 signs or more" in err) == (2, True)


def test_where_nothing_is_kept_nothing_is_proved_nor_made(fedcore, tmp_path):
    code, _, err = fedcore("verify", "--workdir", tmp_path)
    assert (code, "there is nothing to verify" in err) == (2, True)
    assert list(tmp_path.iterdir()) == []
