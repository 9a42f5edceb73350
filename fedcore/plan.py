"""Config -> Plan: names become functions, and compositions that would break a guarantee are refused."""

from collections.abc import Callable, Mapping
from math import ceil

import numpy as np

from fedcore.config import CombineConfig, Config, PrivacyConfig
from fedcore.data.schema import Schema
from fedcore.errors import PlanRefused, TooFewClients, UnknownName
from fedcore.local.control import control
from fedcore.local.metrics import summarize
from fedcore.local.sgd import algorithm
from fedcore.optimizers import optimizer
from fedcore.privacy.events import GaussianSum
from fedcore.rng import generator, secret_generator
from fedcore.rules import Aggregation, aggregation
from fedcore.rules.decide import accepted_options, mixer, rule
from fedcore.selection import Selection, selection
from fedcore.state import Charge, Noise, Plan
from fedcore.transforms.client import client_chain
from fedcore.transforms.noise import Normal, seeded_normal, system_normal
from fedcore.types import Json


def build_plan(config: Config, rows: Mapping[str, int], schema: Schema, features: Json, run: str) -> Plan:
    """The functions of each round of `config` over clients with `rows` training rows each.

    Raises `PlanRefused` for a composition that cannot keep what it promises, `UnknownName` and
    `TooFewClients` for what cannot be built.
    """
    clients = tuple(sorted(rows))
    chosen = selection(config)
    combined = _aggregation(config.combine)
    _refuse_too_few(config, len(clients), combined)
    if config.privacy.mode != "none":
        _refuse_unprovable(config, combined, len(clients))
    equal = config.combine.weights == "equal"
    weights = {client: 1.0 if equal else float(rows[client]) for client in clients}
    algorithm(config.local.algorithm)
    return Plan(
        seed=config.seed,
        clients=clients,
        draw=chosen.draw,
        chance=_chance(config),
        max_suspicion=config.cohort.max_suspicion,
        needed=_needed(config, combined),
        weights=weights,
        guard=client_chain(config.privacy),
        aggregate=combined,
        control=control(config.local, {client: rows[client] for client in clients}, weights),
        noise=_noise(config, chosen, len(clients), run),
        charge=_charge(config, chosen),
        optimizer=optimizer(config.server),
        evaluate_every=config.evaluate.every,
        rounds=config.run.rounds,
        rollback_factor=config.evaluate.rollback_factor,
        summarize=lambda replies: summarize(replies, schema.task),
        features=features,
    )


def _aggregation(combine: CombineConfig) -> Aggregation:
    """Mixers and rule of `combine`, with f where they take it."""
    for name in combine.mixer_options:
        if name not in combine.mixers:
            raise UnknownName("mixer of combine.mixer_options", name, combine.mixers)
    mixers = [
        (name, _with_f(combine, mixer(name), combine.mixer_options.get(name, {}))) for name in combine.mixers
    ]
    options = _with_f(combine, rule(combine.rule), combine.options)
    if "root" in accepted_options(rule(combine.rule)):
        raise PlanRefused(
            f"combine.rule {combine.rule} needs an update that the server trained itself, and a run has none; "
            f"call fedcore.rules.{combine.rule} directly or choose another rule"
        )
    if combine.f and not any("f" in given for given in (options, *(given for _, given in mixers))):
        raise PlanRefused(
            f"combine.f {combine.f} with combine.rule {combine.rule}: nothing in it survives a single liar; "
            "choose a robust rule such as trimmed_mean, or remove combine.f"
        )
    return aggregation(combine.rule, options, mixers)


def _with_f(
    combine: CombineConfig, function: Callable[..., object], options: Mapping[str, float]
) -> dict[str, float]:
    """`options` and f, if `function` takes it. Raises `PlanRefused` where it must be said and is not."""
    needs_f = accepted_options(function).get("f")
    if "f" in options:
        raise PlanRefused("f is one number for the whole aggregation; write it as combine.f")
    if needs_f is None or (combine.f is None and not needs_f):
        return dict(options)
    if combine.f is None:
        raise PlanRefused(
            f"{function.__name__} needs to know how many liars it must survive, and nobody can guess that; "
            "set combine.f"
        )
    return {**options, "f": combine.f}


def _needed(config: Config, combined: Aggregation) -> Callable[[int], int]:
    cohort = config.cohort
    if config.privacy.mode == "central":
        return lambda asked: 0  # a private round is released whoever answered: skipping it would tell
    return lambda asked: max(cohort.min_clients, ceil(cohort.quorum * asked), combined.least)


def _refuse_too_few(config: Config, clients: int, combined: Aggregation) -> None:
    asked = min(clients, config.cohort.size) if config.cohort.sampling == "uniform" else clients
    if asked < combined.least:
        raise TooFewClients(
            combined.least, asked, f"combine.rule {combined.name} with combine.f {config.combine.f}"
        )
    if clients < config.cohort.min_clients:
        raise TooFewClients(config.cohort.min_clients, clients, "federated training (cohort.min_clients)")
    if config.cohort.sampling == "uniform" and clients < config.cohort.size:
        raise TooFewClients(config.cohort.size, clients, "cohort.size")


def _charge(config: Config, chosen: Selection) -> Charge | None:
    """What each round of a private plan costs."""
    privacy = config.privacy
    if privacy.mode == "none":
        return None
    event = GaussianSum(privacy.noise_multiplier, chosen.amplifies_at)
    return Charge(lambda round_number: event, privacy.delta)


def _noise(config: Config, chosen: Selection, clients: int, run: str) -> Noise | None:
    """The noise of a central plan."""
    privacy = config.privacy
    if privacy.mode == "none":
        return None
    rate = chosen.amplifies_at
    return Noise(
        deviation=privacy.noise_multiplier * client_chain(privacy).bound(float("inf")),
        expected_cohort=clients * (1.0 if rate is None else rate),
        normal=_normal(privacy, config.seed, run),
    )


def _refuse_unprovable(config: Config, combined: Aggregation, clients: int) -> None:
    """Raise `PlanRefused` for what breaks the accountant's assumptions."""
    privacy = config.privacy
    built = {"mode": "central", "unit": "client", "mechanism": "gaussian", "clipping": "flat"}
    for key, value in built.items():
        if getattr(privacy, key) != value:
            raise PlanRefused(
                f"privacy.{key} {getattr(privacy, key)} cannot be run yet; set privacy.{key}: {value}"
            )
    if config.combine.weights != "equal":
        raise PlanRefused(
            "privacy.mode central with combine.weights samples: one large client would move the sum by more than "
            "the clip the noise is made for; set combine.weights: equal"
        )
    if not combined.sums:
        raise PlanRefused(
            f"privacy.mode central with combine.rule {config.combine.rule} and combine.mixers "
            f"{list(config.combine.mixers)}: the noise is accounted for a plain sum; set combine.rule: mean without mixers"
        )
    if config.local.algorithm == "scaffold":
        raise PlanRefused(
            "privacy.mode central with local.algorithm scaffold: control variates are made of single updates and "
            "would reach other clients without noise; set local.algorithm: sgd"
        )
    if config.cohort.max_suspicion < 1:
        raise PlanRefused(
            f"privacy.mode central with cohort.max_suspicion {config.cohort.max_suspicion:g}: who is asked would depend "
            "on what clients sent, which no accountant here covers; set cohort.max_suspicion: 1"
        )
    if config.cohort.sampling == "uniform":
        raise PlanRefused(
            "privacy.mode central with cohort.sampling uniform: a fixed-size cohort has another neighbouring relation "
            "than the accountant's; set cohort.sampling: poisson or all"
        )
    if privacy.delta >= 1 / clients:
        raise PlanRefused(
            f"privacy.delta {privacy.delta:g} with {clients} clients: δ must stay below 1/{clients}, "
            f"or publishing one client whole would count as private; set privacy.delta below {1 / clients:.2g}"
        )


def _chance(config: Config) -> Callable[[str, int], np.random.Generator]:
    """What cohorts are drawn with: the seed, or for a private release what nobody can know.

    Amplification counts on a secret cohort, and the seed stands in ``params.yaml``. A draw from the
    seed depends on the run's name: two private runs of one seed must not share their cohorts, or
    their amplification would not compose.
    """
    if config.privacy.mode == "central" and config.privacy.noise == "system":
        return lambda run, round_number: secret_generator()
    return lambda run, round_number: generator(config.seed, "cohort", run, round_number)


def _normal(privacy: PrivacyConfig, seed: int, run: str) -> Callable[[int], Normal]:
    if privacy.noise == "seeded":
        return lambda round_number: seeded_normal(generator(seed, "noise", run, round_number))
    return lambda round_number: system_normal
