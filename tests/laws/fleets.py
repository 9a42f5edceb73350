"""What laws over fleets of the small digits share: the encoding their clients agree on, and a model of its size."""

import json

import numpy as np

from fedcore.data.features import SiteStatistics, merge
from fedcore.data.schema import Schema
from fedcore.rng import generator
from fedcore.types import Fleet, Json, Task, canonical_json


def described(fleet: Fleet, schema: Schema) -> Json:
    replies = sorted(fleet.ask(Task("describe", "r", -1), fleet.clients), key=lambda reply: reply.client)
    found = [SiteStatistics.from_json(canonical_json(reply.facts["statistics"])) for reply in replies]
    return json.loads(merge(found, schema).to_json())


def model_of(features: Json, size: int = 64 * 8 + 8 + 8 * 10 + 10) -> np.ndarray:
    """Parameters of the small digits model of the settings, or of one of `size`."""
    return generator(1, "start").normal(0, 0.1, size).astype(np.float32)
