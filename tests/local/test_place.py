"""What the clients of one process share is read once, and the rows it keeps stay under their limit."""

import json

import pytest

from fedcore.config import DataConfig
from fedcore.data.described import described
from fedcore.data.federated import load_site
from fedcore.data.schema import Schema
from fedcore.local.place import Place
from fedcore.local.recent import Recent
from fedcore.simulation import SerialFleet
from fedcore.types import Json


@pytest.fixture
def sites(workdir):
    return workdir / "data/sites"


@pytest.fixture
def names(sites) -> list[str]:
    return sorted(folder.name for folder in sites.iterdir() if folder.is_dir())


@pytest.fixture
def features(sites, names, settings) -> Json:
    fleet = SerialFleet(sites, tuple(names), settings())
    return json.loads(described(fleet, "r", Schema.load(sites), DataConfig()).features.to_json())


class Counted:
    """Reads rows as a place does, and remembers whose."""

    def __init__(self) -> None:
        self.read: list[str] = []

    def __call__(self, client, encoding, encode):
        self.read.append(client)
        return encode()


def test_rows_and_model_are_made_once(sites, names, features, settings):
    counted = Counted()
    place = Place(sites, settings(), counted)
    found = [place.ready(name, features) for _ in range(3) for name in names]
    assert counted.read == names
    assert len({id(model) for _, model in found}) == 1
    again = json.loads(json.dumps(features))
    assert place.ready(names[0], again)[0] is found[0][0]


def test_another_encoding_is_another_place(sites, names, features, settings):
    place = Place(sites, settings())
    first, _ = place.ready(names[0], features)
    other = json.loads(json.dumps(features))
    other["scales"][0]["center"][0] += 1.0
    moved, _ = place.ready(names[0], other)
    assert (first.x_train != moved.x_train).any()


def test_rows_over_the_limit_are_read_again_and_are_the_same(sites, names, features, settings, monkeypatch):
    config, counted = settings(), Counted()
    place = Place(sites, config, counted)
    monkeypatch.setattr(place, "_kept", Recent(2 * place.ready(names[0], features)[0].x_train.nbytes))
    for _ in range(2):
        for name in names:
            data, _ = place.ready(name, features)
            fresh = load_site(sites / name, place.schema, place._encoding[1], config.seed, name, 0.2)
            assert data.x_train.tobytes() == fresh.x_train.tobytes()
    assert len(counted.read) > len(names)
    assert len(place._kept) < len(names)
