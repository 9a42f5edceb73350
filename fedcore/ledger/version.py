"""Which data an account is of: the version of all sites' data together."""

import hashlib
from collections.abc import Mapping

from fedcore.store import Store
from fedcore.types import canonical_json


def data_version(store: Store, digests: Mapping[str, str], all_sites: Mapping[str, str]) -> str:
    """The version of all sites' data together, whose budget a private run over `digests` spends.

    A run that leaves sites out must not find a fresh budget for the others: sites and data that
    are all in an earlier run of the store have that run's version.
    """
    for name in store.runs():
        found = store.run(name)
        if found is not None and digests.items() <= found[0]["data"].items():
            return str(found[0]["data_version"])
    return hashlib.sha256(canonical_json(all_sites).encode()).hexdigest()[:16]
