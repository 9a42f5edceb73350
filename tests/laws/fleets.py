"""What laws over fleets of the small digits share: the encoding their clients agree on, and a model of its size."""

import json

import numpy as np

from fedcore.config import DataConfig
from fedcore.data import described as data_described
from fedcore.data.schema import Schema
from fedcore.rng import generator
from fedcore.types import Fleet, Json


def described(fleet: Fleet, schema: Schema) -> Json:
    return json.loads(data_described.described(fleet, "r", schema, DataConfig()).features.to_json())


def model_of(features: Json, size: int = 64 * 8 + 8 + 8 * 10 + 10) -> np.ndarray:
    """Parameters of the small digits model of the settings, or of one of `size`."""
    return generator(1, "start").normal(0, 0.1, size).astype(np.float32)
