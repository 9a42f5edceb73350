"""What the clients that one process answers for have in common, so that a thousand of them cost little more than one.

Schema, encoding and model are read once. Encoded rows are kept between rounds while they fit into `limit` bytes;
those of the client that was not asked for the longest time go first, and are read again when it is.
"""

from collections.abc import Callable
from functools import cached_property
from pathlib import Path

from fedcore.adapters.model import Model, build_model, model_spec
from fedcore.config import Config
from fedcore.data.features import Features
from fedcore.data.federated import SiteData, load_site
from fedcore.data.schema import Schema
from fedcore.local.recent import Recent
from fedcore.types import Json, canonical_json

# (client, digest of its encoding, how to encode its rows) -> the rows: where processes share them.
Rows = Callable[[str, str, Callable[[], SiteData]], SiteData]


class Place:
    """The folders of `sites` as one process reads them under `config`."""

    def __init__(self, sites: Path, config: Config, rows: Rows | None = None) -> None:
        self.sites, self._config = sites, config
        self._rows: Rows = rows or (lambda client, encoding, encode: encode())
        self._tree: Json = None  # the features as the last task gave them
        self._encoding: tuple[str, Features, Model] | None = None
        self._kept: Recent[SiteData] = Recent(config.run.memory_mb * 2**20)
        self.answered: dict[str, dict[str, int]] = {}  # client -> run -> last round it answered under noise

    @cached_property
    def schema(self) -> Schema:
        """What all sites' rows are."""
        return Schema.load(self.sites)

    def ready(self, client: str, features: Json) -> tuple[SiteData, Model]:
        """The client's rows encoded with `features`, and the model that fits them. Raises `BadData`."""
        text, encoded, model = self._encoded(features)
        data = self._kept.get(client)
        if data is None:
            data = self._rows(client, text, lambda: self._load(client, encoded))
            self._kept.keep(client, data, _size(data))
        return data, model

    def model(self, features: Json) -> Model:
        """The model that fits rows encoded with `features`."""
        return self._encoded(features)[2]

    def _encoded(self, features: Json) -> tuple[str, Features, Model]:
        """The encoding `features` describe; another one than before makes all rows be read anew."""
        if self._encoding is None or features is not self._tree:
            text = canonical_json(features)
            if self._encoding is None or self._encoding[0] != text:
                shared = Features.from_json(text)
                model = build_model(model_spec(self._config.model, self.schema, shared))
                self._encoding = (text, shared, model)
                self._kept.clear()
            self._tree = features
        return self._encoding

    def _load(self, client: str, features: Features) -> SiteData:
        data = self._config.data
        folder = self.sites / client
        return load_site(folder, self.schema, features, self._config.seed, client, data.test_fraction)


def _size(data: SiteData) -> int:
    return sum(part.nbytes for part in (data.x_train, data.y_train, data.x_test, data.y_test))
