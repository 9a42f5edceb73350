"""DP-SGD: what a client does under ``privacy.mode: record``. Only the noisy update leaves it.

A record is the unit. Each step takes each record with a fixed chance, clips each gradient, adds
noise to the sum, and divides by the expected number of records; a step without records is taken
like any other. The accountant charges for the same `RecordSampling`. The training loss does not
leave. Not covered: what the client describes of its columns and rows before, and its test rows.
"""

import numpy as np

from fedcore.adapters.model import Model, Training
from fedcore.config import PrivacyConfig
from fedcore.data.federated import SiteData
from fedcore.privacy.records import record_sampling
from fedcore.rng import secret_generator
from fedcore.transforms.noise import Normal, add_gaussian, seeded_normal, system_normal
from fedcore.types import Floats, Vector


def dp_sgd(
    model: Model,
    start: Vector,
    data: SiteData,
    settings: Training,
    privacy: PrivacyConfig,
    seeded: np.random.Generator | None = None,
) -> Vector:
    """The update (d,) of local SGD each step of which is differentially private.

    Records and noise are drawn from the system's source, or in a simulation from `seeded`. Weight decay
    and the pull to `settings.anchor` (where training starts, if that is None) look at no record, and so
    cost nothing. Abadi et al. 2016, arXiv:1607.00133, algorithm 1.
    """
    chance = secret_generator() if seeded is None else seeded
    normal = system_normal if seeded is None else seeded_normal(seeded)
    vector, velocity = start.copy(), np.zeros_like(start)
    anchor = start if settings.anchor is None else settings.anchor
    sampling = record_sampling(len(data.y_train), settings.batch_size, settings.epochs, privacy.record_rate)
    for _ in range(sampling.steps):
        chosen = np.flatnonzero(chance.random(len(data.y_train)) < sampling.rate)
        summed = model.clipped_sum(vector, data.x_train[chosen], data.y_train[chosen], privacy.clip, chance)
        gradient = noisy_gradient(summed, privacy, sampling.expected, normal)
        gradient += np.float32(settings.weight_decay) * vector
        if settings.proximal:
            gradient += np.float32(settings.proximal) * (vector - anchor)
        velocity = np.float32(settings.momentum) * velocity + gradient
        vector -= np.float32(settings.lr) * velocity
    return vector - start


def noisy_gradient(summed: Floats, privacy: PrivacyConfig, expected: float, normal: Normal) -> Vector:
    """(sum (d,) of clipped gradients + noise) / the expected number of records."""
    noisy = add_gaussian(summed, privacy.noise_multiplier * privacy.clip, normal)
    return (noisy / expected).astype(np.float32)


def refuse_mixed_records(model: Model) -> None:
    """Raise `PlanRefused` for a model in which records see one another, such as one with batch norm."""
    nothing = np.zeros((0, *model.spec.input_shape), np.float32)
    rng = np.random.default_rng(0)
    model.clipped_sum(model.init(rng), nothing, np.zeros(0, np.float32), 1.0, rng)
