"""``fedcore distill``: a smaller student of a run, written like any trained model, and what cannot be taught."""

import json

import numpy as np
import pytest

from fedcore.adapters.trained import TrainedModel
from fedcore.cli import main
from fedcore.coordinator import simulate

PRIVATE = ("privacy.mode=central", "combine.weights=equal", "privacy.delta=0.01", "privacy.noise=seeded")


@pytest.fixture
def distill(workdir, settings, capsys):
    """Trains a run of digits and distils it; exit code, standard output and error."""

    def run(*words: str, overrides: tuple[str, ...] = (), name: str = "a") -> tuple[int, str, str]:
        simulate(settings("model.hidden=[32]", *overrides), workdir, name)
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(["distill", "--run", name, "--workdir", str(workdir), *words])
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return run


def test_a_student_is_smaller_and_is_written_as_a_trained_model(distill, workdir):
    words = ("--rows", "client-001", "-S", "model.hidden=[6]", "--epochs", "10")
    code, out, _ = distill(*words, "--json", overrides=("run.rounds=6", "local.epochs=3"))
    found = json.loads(out)
    assert code == 0
    assert found["student"]["parameters"] < found["teacher"]["parameters"] / 3
    assert found["student"]["bytes"] == 4 * found["student"]["parameters"]
    assert found["student"]["parameters"] == found["labels"]["parameters"]
    assert found["student"]["metrics"]["accuracy"] > 0.5
    student = TrainedModel.load(workdir / "runs/a/student")
    assert student.vector.size == found["student"]["parameters"]
    assert student.predict({"x": np.zeros((2, 8, 8), np.float32)}).shape == (2, 10)
    code, out, _ = distill(*words, overrides=("run.rounds=6", "local.epochs=3"))
    assert "labels alone" in out
    np.testing.assert_array_equal(TrainedModel.load(workdir / "runs/a/student").vector, student.vector)


@pytest.mark.parametrize(
    ("words", "overrides", "code", "why"),
    [
        (("--rows", "nobody"), (), 2, "'nobody' is neither a site of run a nor a folder; sites: client-000"),
        (("--rows", "client-001"), PRIVATE, 3, "without the noise that the run's guarantee stands on"),
        (("--rows", "client-001", "-S", "model.hiden=[2]"), (), 2, "nearest known: model.hidden"),
        (("--rows", "client-001", "--lr", "1e30"), (), 11, "the student is not finite; lower --lr"),
    ],
)
def test_what_cannot_be_taught_is_refused_in_a_sentence(distill, words, overrides, code, why):
    ended, out, err = distill(
        "-S", "model.hidden=[6]", *words, "--epochs", "2", overrides=("run.rounds=1", *overrides)
    )
    assert (ended, out) == (code, "")
    assert err.count("\n") == 1
    assert why in err
