"""DP-SGD: what a client does under ``privacy.mode: record``. Only the noisy update leaves it.

A record is the unit. Each step takes each record with a fixed chance, clips each gradient, adds
noise to the sum, and divides by the expected number of records; a step without records is taken
like any other. The accountant charges for the same `RecordSampling`. The training loss does not
leave. Not covered: what the client describes of its columns and rows before, and its test rows.
"""

from collections.abc import Mapping

import numpy as np

from fedcore.adapters.model import Model, Training
from fedcore.config import PrivacyConfig
from fedcore.data.federated import SiteData
from fedcore.local.sgd import Algorithm
from fedcore.privacy.records import record_sampling
from fedcore.rng import secret_generator
from fedcore.transforms.noise import Normal, add_gaussian, seeded_normal, system_normal
from fedcore.types import Floats, Vector


def dp_sgd(privacy: PrivacyConfig) -> Algorithm:
    """The local algorithm that makes each step differentially private: (update (d,), no facts).

    Records and noise are drawn from the system's source, and the generator given is not used,
    except with ``privacy.noise: seeded``. Abadi et al. 2016, arXiv:1607.00133, algorithm 1.
    """

    def train(
        model: Model, start: Vector, data: SiteData, settings: Training, rng: np.random.Generator
    ) -> tuple[Vector, Mapping[str, float]]:
        seeded = privacy.noise == "seeded"
        chance = rng if seeded else secret_generator()
        normal = seeded_normal(rng) if seeded else system_normal
        vector = start.copy()
        velocity = np.zeros_like(start)
        sampling = record_sampling(len(data.y_train), settings.batch_size, settings.epochs)
        for _ in range(sampling.steps):
            chosen = np.flatnonzero(chance.random(len(data.y_train)) < sampling.rate)
            summed = model.clipped_sum(
                vector, data.x_train[chosen], data.y_train[chosen], privacy.clip, chance
            )
            gradient = noisy_gradient(summed, privacy, sampling.expected, normal)
            gradient += np.float32(settings.weight_decay) * vector
            velocity = np.float32(settings.momentum) * velocity + gradient
            vector -= np.float32(settings.lr) * velocity
        return vector - start, {}

    return train


def noisy_gradient(summed: Floats, privacy: PrivacyConfig, expected: float, normal: Normal) -> Vector:
    """(sum (d,) of clipped gradients + noise) / the expected number of records."""
    noisy = add_gaussian(summed, privacy.noise_multiplier * privacy.clip, normal)
    return (noisy / expected).astype(np.float32)
