"""Canaries enrolled among a population's clients: data, features, plan, journal and account of an audited training."""

import hashlib
import json
import secrets
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict
from pathlib import Path

from fedcore.adapters.model import build_model, model_spec
from fedcore.config import Config, config_tree
from fedcore.data.described import described
from fedcore.data.prepare import prepare, prepared_at
from fedcore.data.schema import Schema
from fedcore.errors import RunConflict
from fedcore.ledger import data_version, ledger_of
from fedcore.plan import build_plan
from fedcore.redteam.canary import Canaries, CanaryFleet, Sight
from fedcore.redteam.course import Asked, Audited
from fedcore.redteam.noised import NoisedFleet
from fedcore.rng import generator
from fedcore.simulation import open_fleet
from fedcore.state import State
from fedcore.store import Store
from fedcore.transforms.matrix import Correlated, correlated
from fedcore.types import Fleet, Json, canonical_json

CORRELATED = ("tree", "banded")
_WHERE = ("engine", "workers", "device", "memory_mb")
_NOT_THE_TRAINING = ("checks", "promotion", "edge", "monitor", "tracking", "store")


@contextmanager
def enrolled(
    config: Config, workdir: Path, asked: Asked, sites: Path | None = None, checks: Path | None = None
) -> Iterator[tuple[str, Audited]]:
    """The name of the audit and its training, entered in the store or found again, held for this process.

    `sites` and `checks` are those of `fedcore.coordinator.open_run`. Raises what `build_plan` raises, `RunBusy`
    where another process audits the same, `RunConflict` where the data are others than when it began.
    """
    name = audit_name(config, asked)
    with ExitStack() as held:
        store = held.enter_context(Store.at(workdir, config.store.url, config.store.blobs))
        held.enter_context(store.lock(name))
        data = prepared_at(sites, checks, config) if sites else prepare(config, workdir)
        kept = workdir / "runs" / name / "clients"
        fleet = held.enter_context(closing(open_fleet(config, data.sites, data.passing, kept)))
        steady = config.privacy.mechanism in CORRELATED or config.privacy.mode == "local"
        canaries = Canaries(asked.canaries, _secret(store, name, asked), asked.sight, steady)
        schema = Schema.load(data.sites)
        features, rows, left_out = described(fleet, name, schema, config.data, data.left_out)
        digests = {site: data.digests.get(site, "") for site in rows}
        body = {
            "audit": {**asdict(asked), "commitment": canaries.commitment},
            "config": _training(config),
            "features": json.loads(features.to_json()),
            "rows": {**rows, **dict.fromkeys(canaries.names, 1)},
            "left_out": left_out,
            "data": digests,
            "data_version": _version(store, name, digests, data.digests),
            "schema": hashlib.sha256(schema.to_json().encode()).hexdigest(),
        }
        plan = build_plan(config, body["rows"], schema, body["features"], name)
        model = build_model(model_spec(config.model, schema, features)).init(generator(plan.seed, "init"))
        canaries.directions(model.size)
        _enter(
            store, name, body, {"config": config_tree(config), "sites": str(data.sites.resolve())}, canaries
        )
        start = State(name, 0, model, plan.optimizer.init(model), rule=plan.aggregate.initial(model))
        yield (
            name,
            Audited(
                plan=plan,
                start=start,
                fleet=with_canaries(config, fleet, canaries),
                canaries=canaries,
                scale=(plan.noise.expected_cohort if plan.noise else 1.0)
                / config.privacy.clip
                / config.server.lr,
                journal=lambda number: store.journal(name, number),
                committed_at=lambda number: store.journal(name, number).committed_at("record"),
                account=ledger_of(store, config, body),
                correlated=correlated_noise(config, asked.sight),
                own_noise=config.privacy.clip
                if config.privacy.mode == "local" and asked.sight == "rounds"
                else None,
            ),
        )


def with_canaries(config: Config, fleet: Fleet, canaries: Canaries) -> Fleet:
    """`fleet` with canaries among its clients, who noise what they send where `config` lets clients do that."""
    if config.privacy.mode == "local":
        return NoisedFleet(fleet, canaries, config.privacy, config.seed)
    return CanaryFleet(fleet, canaries, config.privacy.clip)


def correlated_noise(config: Config, sight: Sight) -> Correlated | None:
    """The noise of `config` where it is correlated over the rounds and the auditor sees them, else None."""
    privacy = config.privacy
    if privacy.mechanism not in CORRELATED or sight == "final":
        return None
    return correlated(privacy.mechanism, config.run.rounds, privacy.bands)


def audit_name(config: Config, asked: Asked) -> str:
    """The audit's name in the store: equal for equal settings, so that one that was killed is found again."""
    text = canonical_json({"settings": _training(config), "asked": asdict(asked)})
    return f"audit-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def _training(config: Config) -> dict[str, Json]:
    """The settings that decide what is trained: not where, which changes an update by its rounding at most."""
    tree = {key: value for key, value in config_tree(config).items() if key not in _NOT_THE_TRAINING}
    return tree | {"run": {key: value for key, value in tree["run"].items() if key not in _WHERE}}


def _secret(store: Store, name: str, asked: Asked) -> str:
    """What coins and directions are made from: the seed that was asked for, else what nobody can know."""
    if asked.seed is not None:
        return f"seed {asked.seed}"
    found = store.run(name)
    return secrets.token_hex(16) if found is None else str(found[1]["canaries"])


def _enter(
    store: Store, name: str, body: Mapping[str, Json], notes: Mapping[str, Json], canaries: Canaries
) -> None:
    """Enter the audit, its commitment for all to see. Raises `RunConflict` if it was begun on something else."""
    found = store.run(name)
    if found is None:
        store.create_run(name, body, {**notes, "canaries": canaries.secret})
    elif found[0] != json.loads(canonical_json(body)):
        raise RunConflict(
            f"{name} was begun on other data than there are now; put them back, or give another --seed or --workdir"
        )


def _version(store: Store, name: str, digests: Mapping[str, str], all_sites: Mapping[str, str]) -> str:
    """The data version whose budget the audit spends: that of when it was begun, if it was."""
    found = store.run(name)
    return data_version(store, digests, all_sites) if found is None else str(found[0]["data_version"])
