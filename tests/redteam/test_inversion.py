"""Real pictures are rebuilt from a client's own update, and less of them the better the defence."""

import numpy as np
import pytest

from fedcore.errors import BadInput
from fedcore.redteam.inversion import defences, invert, open_scenes
from fedcore.redteam.inversion_report import as_json, as_markdown, blind


@pytest.fixture(scope="module")
def config(settings):
    return settings("model.framework=torch", "model.hidden=[32]", "data.partition.scheme=iid")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("inversion")


def test_a_single_picture_is_rebuilt_however_many_steps_the_client_took(config, place):
    for steps in (1, 5):
        scenes = open_scenes(config, place, 1, steps, 2)
        through = {name: defences(4, 0.1)[name] for name in ("none", "clipping")}
        for one in invert(scenes, through, ["first layer"]):
            assert one.psnr > 40
            assert one.ssim > 0.99
            assert one.labels == 1.0


def test_noise_and_a_secure_sum_leave_less_than_no_defence(config, place):
    scenes = open_scenes(config, place, 2, 1, 2)
    through = {
        n: d for n, d in defences(4, 0.1).items() if n in ("none", "clipping, noise 1", "secure sum of 4")
    }
    heard = []
    found = invert(scenes, through, ["first layer", "DLG"], 0.2, heard.append)
    got = {(one.defence, one.attack): one.psnr for one in found}
    assert got["none", "DLG"] > got["clipping, noise 1", "DLG"] + 10
    assert got["none", "first layer"] > got["secure sum of 4", "first layer"] + 2
    assert heard[:2] == ["none: first layer", "none: DLG"]
    facts = as_json(scenes, found)
    assert facts["blind_psnr"] == blind(scenes)
    assert 5 < blind(scenes) < 20
    assert "| none | DLG |" in as_markdown(scenes, found, "digits")


def test_equal_seeds_give_equal_pictures(config, place):
    scenes = open_scenes(config, place, 1, 1, 1)
    through = {"noise": defences(4, 0.1)["clipping, noise 0.01"]}
    first, second = (invert(scenes, through, ["inverting"], 0.05)[0] for _ in range(2))
    assert first.pictures.tobytes() == second.pictures.tobytes()


def test_pictures_are_those_of_the_clients(config, place):
    scene = open_scenes(config, place, 3, 1, 1)[0]
    assert scene.pictures.shape == (3, 8, 8)
    np.testing.assert_allclose(scene.pictures * 16, np.round(scene.pictures * 16), atol=1e-3)
    assert len(scene.updates) == len(scene.everyone) == 4
    assert scene.truth == scene.everyone[0]


@pytest.mark.parametrize(
    ("given", "rows", "steps", "victims", "sentence"),
    [
        (("model.framework=numpy",), 1, 1, 1, "needs a built-in model in torch, got numpy"),
        ((), 0, 1, 1, "batch must be between 1 and"),
        ((), 1, 0, 1, "steps must be 1 or more, got 0"),
        ((), 1, 1, 5, "victims must be between 1 and 4 here, got 5"),
    ],
)
def test_what_cannot_be_attacked_is_refused(settings, place, given, rows, steps, victims, sentence):
    config = settings("model.framework=torch", "model.hidden=[32]", "data.partition.scheme=iid", *given)
    with pytest.raises(BadInput, match=sentence):
        open_scenes(config, place, rows, steps, victims)


def test_rows_that_are_no_pictures_are_refused(settings, tmp_path):
    rows = [f"{c},{i},{'ab'[i % 2]}" for c in "uv" for i in range(30)]
    (tmp_path / "own.csv").write_text("\n".join(["who,x,y", *rows, ""]))
    own = settings(
        "model.framework=torch",
        "data.name=own",
        f"data.path={tmp_path / 'own.csv'}",
        "data.client_column=who",
        "data.label=y",
        "data.partition.scheme=natural",
    )
    with pytest.raises(BadInput, match="draws pictures of three classes or more"):
        open_scenes(own, tmp_path / "work", 1, 1, 1)
