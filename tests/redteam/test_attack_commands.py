"""``fedcore privacy membership`` and ``inversion``: reports, pictures, JSON; a mistake is one sentence."""

import json
import sys

import pytest

from fedcore.cli import main
from fedcore.errors import MissingExtra, StorageError
from fedcore.redteam.written import copied, write_report

MEMBERSHIP = ["membership", "--shadows", "8", "-S", "run.rounds=1", "-S", "data.partition.clients=4"]
INVERSION = [
    "inversion",
    "--batch",
    "1",
    "--victims",
    "1",
    "--attacks",
    "first layer,DLG",
    "--effort",
    "0.02",
]


@pytest.fixture
def fedcore(root, monkeypatch, capsys):
    """Runs a privacy command in the repository; its exit code, standard output and standard error."""
    monkeypatch.chdir(root)

    def run(*words):
        with pytest.raises(SystemExit) as ended:
            main(["privacy", *(str(word) for word in words)])
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return run


def written(folder, name):
    assert (folder / f"{name}.png").read_bytes()[:4] == b"\x89PNG"
    assert (folder / f"{name}.md").read_text().startswith("# ")
    return json.loads((folder / f"{name}.json").read_text())


def test_membership_writes_report_and_picture(fedcore, tmp_path):
    code, out, err = fedcore(
        *MEMBERSHIP, "--defences", "none,central-1", "--seed", 3, "--workdir", tmp_path, "--json",
        "--picture", tmp_path / "copy.png",
    )  # fmt: skip
    assert code == 0, err
    facts = json.loads(out.splitlines()[-1])
    assert [one["defence"] for one in facts["defences"]] == ["none", "central-1"]
    assert facts["defences"] == written(tmp_path, "membership")
    assert set(facts["defences"][0]["attacks"]) == {"online", "offline", "threshold"}
    assert (tmp_path / "copy.png").read_bytes() == (tmp_path / "membership.png").read_bytes()
    assert "TPR at FPR 0.001" in out


def test_inversion_writes_report_and_picture(fedcore, tmp_path):
    code, out, err = fedcore(*INVERSION, "--workdir", tmp_path, "--json", "--picture", tmp_path / "copy.png")
    assert code == 0, err
    facts = json.loads(out.splitlines()[-1])
    first = facts["rebuilt"][0]
    assert (first["defence"], first["attack"]) == ("none", "first layer")
    assert first["psnr"] > 40
    assert facts["rebuilt"] == written(tmp_path, "inversion")["rebuilt"]
    assert (tmp_path / "copy.png").exists()
    assert "secure sum of 10" in out


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        ([*MEMBERSHIP, "--defences", "nothing"], 2, "unknown defence 'nothing'"),
        ([*MEMBERSHIP, "--shadows", "3"], 2, "at least 8 shadow models, got 3"),
        ([*MEMBERSHIP, "--preset", "digit"], 2, "unknown preset 'digit'"),
        ([*INVERSION, "--attacks", "DLC"], 2, "unknown attack 'DLC'; did you mean 'DLG'"),
        ([*INVERSION, "--effort", "0"], 2, "effort must be above 0 and at most 100, got 0"),
        ([*INVERSION, "--clip", "-1"], 2, "privacy.clip: must be finite and above zero, got -1.0"),
        ([*INVERSION, "--batch", "100000"], 2, "batch must be between 1 and"),
    ],
)
def test_a_mistake_is_one_sentence_and_its_exit_code(fedcore, tmp_path, words, code, sentence):
    got, _, err = fedcore(*words, "--workdir", tmp_path)
    assert got == code
    assert sentence in err
    assert len(err.strip().splitlines()) == 1


@pytest.mark.parametrize("name", ["membership", "inversion"])
def test_help_has_examples(fedcore, name):
    code, out, _ = fedcore(name, "--help")
    assert code == 0
    assert f"fedcore privacy {name}" in out
    assert "Examples:" in out


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    from matplotlib.figure import Figure

    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="choose another --workdir"):
        write_report(tmp_path / "file" / "folder", "name", {}, "", Figure)
    with pytest.raises(StorageError, match="name a file in a folder that exists"):
        copied(tmp_path / "file", tmp_path / "none" / "copy.png")


def test_without_matplotlib_or_torch_the_extra_is_named(tmp_path, monkeypatch):
    def draw():
        import matplotlib.figure  # noqa: F401

        raise AssertionError

    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtra, match="pip install"):
        write_report(tmp_path, "name", {}, "", draw)
