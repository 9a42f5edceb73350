"""Config -> Plan: names become functions, and compositions that would break a guarantee are refused."""

from collections.abc import Callable, Mapping
from functools import partial
from math import ceil

import numpy as np

from fedcore import versions
from fedcore.adapters.model import ModelSpec, build_model, model_spec
from fedcore.clock import Devices
from fedcore.config import CombineConfig, Config, LocalConfig
from fedcore.convergence import followed, refuse_unseen
from fedcore.data.features import Features
from fedcore.data.schema import Schema
from fedcore.errors import BadConfig, PlanRefused, TooFewClients, UnknownName
from fedcore.local.control import control
from fedcore.local.metrics import summarize
from fedcore.local.personal import HEADS, judged_by, refuse_personal
from fedcore.local.sgd import algorithm
from fedcore.local.shares import DOUBT
from fedcore.optimizers import optimizer
from fedcore.pace import pace
from fedcore.privacy.leaves import counts_stay
from fedcore.protection import Setting, noisy_summary, protection
from fedcore.rules import Aggregation, aggregation
from fedcore.rules.decide import accepted_options, mixer, rule
from fedcore.selection import Population, selection
from fedcore.state import Plan
from fedcore.types import Json, Layout, canonical_json


def build_plan(config: Config, rows: Mapping[str, int], schema: Schema, features: Json, run: str) -> Plan:
    """The functions of each round of `config` over clients with `rows` training rows each.

    Raises `PlanRefused` for a composition that cannot keep what it promises, `UnknownName` and
    `TooFewClients` for what cannot be built.
    """
    clients = tuple(sorted(rows))
    devices = Devices.of(config, clients) if config.time.mode == "virtual" else None
    counts = np.array([rows[client] for client in clients], np.float64)
    chosen = selection(config, Population(clients, counts, devices))
    combined = _aggregation(config.combine)
    _refuse_unknown_rows(config)
    _refuse_too_few(config, len(clients), combined, chosen.sized)
    spec = _spec(config, schema, features)
    layout = _layout(config, spec)
    refuse_personal(config, layout)
    timing = pace(config, rows, devices, chosen.sized, spec)
    setting = Setting(config, rows, chosen, combined, layout.size if layout else None, run)
    private = protection(setting)
    overlapping = versions.rules(config, len(rows), combined, timing, layout.size if layout else 0)
    equal = config.combine.weights == "equal"
    weights = {client: 1.0 if equal else float(rows[client]) for client in clients}
    _refuse_algorithm(config, combined)
    refuse_unseen(config, schema, private.evaluates)
    return Plan(
        seed=config.seed,
        clients=clients,
        draw=chosen.draw,
        chance=private.chance,
        max_suspicion=config.cohort.max_suspicion,
        needed=_needed(config, combined, overlapping.size if overlapping else None),
        weights=weights,
        guard=private.guard,
        aggregate=combined,
        control=control(config.local, rows, weights),
        adaptive=private.adaptive,
        noise=private.noise,
        charge=private.charge,
        optimizer=optimizer(config.server),
        evaluate_every=config.evaluate.every if private.evaluates else 0,
        rounds=config.run.rounds,
        judged_by=judged_by(config),
        rollback_factor=config.evaluate.rollback_factor,
        doubt=DOUBT * config.privacy.evaluation_clip,
        follow=partial(followed, rules=config.evaluate),
        summarize=noisy_summary(setting, schema)
        if config.privacy.evaluation == "noised"
        else lambda replies, round_number: summarize(replies, schema.task),
        judges=private.judges,
        judged_once=private.judged_once,
        features=features,
        timing=timing,
        remembers=chosen.remembers or (timing is not None and config.time.battery is not None),
        asynchrony=overlapping,
    )


def _refuse_algorithm(config: Config, combined: Aggregation) -> None:
    """Raise for a local algorithm that is not known, or whose server part does not hold with the rest."""
    local, name = config.local, config.local.algorithm
    algorithm(name)
    for key, user in (("mu", "fedprox"), ("alpha", "feddyn")):
        if name != user and (value := getattr(local, key)) != getattr(LocalConfig(), key):
            raise PlanRefused(
                f"local.{key} {value:g} with local.algorithm {name}: nothing would use it; "
                f"set local.algorithm: {user}, or remove local.{key}"
            )
    end = local.warmup + local.period
    if local.schedule == "cosine" and config.run.rounds > end:
        raise PlanRefused(
            f"local.schedule cosine with local.period {local.period} and run.rounds {config.run.rounds}: from round {end} "
            f"on the rate is zero and nobody learns; set local.period: {config.run.rounds - local.warmup} or more"
        )
    if name == "scaffold" and not combined.sums:
        raise PlanRefused(
            f"local.algorithm scaffold with combine.rule {config.combine.rule} and combine.mixers "
            f"{list(config.combine.mixers)}: each client's control variate reaches all others past the rule, so one liar "
            "would steer them; set local.algorithm: sgd, fedprox, fednova or feddyn"
        )
    if name == "feddyn" and config.server.optimizer != "sgd":
        raise PlanRefused(
            f"local.algorithm feddyn with server.optimizer {config.server.optimizer}: FedDyn's server takes a step of its "
            "own, which another optimizer would bend; set server.optimizer: sgd"
        )


def _refuse_unknown_rows(config: Config) -> None:
    """Raise `PlanRefused` for what goes by how many rows clients have, where they do not say."""
    asks = {
        "cohort.sampling quality": config.cohort.sampling == "quality",
        "time.mode virtual": config.time.mode == "virtual",
    }
    needing = [what for what, asked in asks.items() if asked]
    if needing and counts_stay(config):
        raise PlanRefused(
            f"{needing[0]} with data.encoding schema and privacy.mode {config.privacy.mode}: it goes by how many rows "
            "clients have, and none says so; set data.encoding: statistics"
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


def _needed(config: Config, combined: Aggregation, buffer: int | None) -> Callable[[int], int]:
    cohort = config.cohort
    if config.privacy.mode == "central":
        return lambda asked: 0  # a private round is released whoever answered: skipping it would tell
    return lambda asked: max(cohort.min_clients, ceil(cohort.quorum * (buffer or asked)), combined.least)


def _refuse_too_few(config: Config, clients: int, combined: Aggregation, sized: bool) -> None:
    asked = min(clients, config.cohort.size) if sized else clients
    if config.cohort.sampling == "turns":
        asked = 1
        if config.cohort.min_clients > 1:
            raise BadConfig(
                "cohort.min_clients",
                config.cohort.min_clients,
                "must be 1 where clients take turns, one a round",
            )
    if asked < combined.least:
        raise TooFewClients(
            combined.least, asked, f"combine.rule {combined.name} with combine.f {config.combine.f}"
        )
    if clients < config.cohort.min_clients:
        raise TooFewClients(config.cohort.min_clients, clients, "federated training (cohort.min_clients)")
    if sized and clients < config.cohort.size:
        raise TooFewClients(config.cohort.size, clients, "cohort.size")


def _spec(config: Config, schema: Schema, features: Json) -> ModelSpec | None:
    """The model; None while the features are not known."""
    if not features:
        return None
    return model_spec(config.model, schema, Features.from_json(canonical_json(features)))


def _layout(config: Config, spec: ModelSpec | None) -> Layout | None:
    """Where the model's parameters lie; None while it is not known, or nothing asks for it."""
    if spec is None or (config.privacy.mode == "none" and config.personal.algorithm not in HEADS):
        return None
    return build_model(spec).layout
