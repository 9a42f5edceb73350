"""From a run's settings and data to the account it draws on."""

from collections.abc import Mapping

from fedcore.config import Config
from fedcore.errors import BadInput
from fedcore.ledger.spend import PrivacyLedger
from fedcore.store import Store
from fedcore.types import Json


def ledger_of(store: Store, config: Config, body: Mapping[str, Json]) -> PrivacyLedger | None:
    """The account of the population and its data version, for the run with that body; None without privacy.

    An audit has no identity of its own: its name stands for its settings.

    Raises `BadInput` for data of which not every site has a version: nobody could tell later whose
    budget was spent.
    """
    privacy = config.privacy
    if privacy.mode == "none":
        return None
    unknown = sorted(site for site, digest in body["data"].items() if not digest)
    if unknown:
        raise BadInput(
            f"the data version of {len(unknown)} sites is not registered ({', '.join(unknown[:3])}), so their budget "
            "has no account; run the check stage again, it gives each site's data a version"
        )
    settings = {name: getattr(privacy, name) for name in ("mode", "mechanism", "clipping", "clip", "noise")}
    return PrivacyLedger(
        store,
        f"{privacy.population or config.data.name}@{body['data_version']}",
        limit=privacy.epsilon,
        delta=privacy.delta,
        identity=body.get("identity"),
        settings={**settings, "sampling": config.cohort.sampling},
    )
