"""All clients describe their rows, and out of that comes the encoding they share; nothing of a client is held on to."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from fedcore.config import DataConfig
from fedcore.data.features import Features, agreed, merge
from fedcore.data.schema import Schema
from fedcore.data.statistics import SiteStatistics
from fedcore.errors import BadInput, TooFewClients
from fedcore.types import Fleet, Reply, Task


class Described(NamedTuple):
    """The encoding, training rows by client, and who was left out and why; clients in order of name."""

    features: Features
    rows: dict[str, int]
    left_out: dict[str, str]


def described(
    fleet: Fleet,
    run: str,
    schema: Schema,
    data: DataConfig,
    left_out: Mapping[str, str] | None = None,
) -> Described:
    """What the clients of `fleet` have in common, added to those who were `left_out` before they were asked.

    With ``data.encoding`` schema they only say that they can take part, and with how many rows unless that is private.
    Raises `BadInput` where no client could describe its rows, or for statistics that are none.
    """
    rows: dict[str, int] = {}
    out = dict(left_out or {})

    def said() -> Iterator[Reply]:
        for reply in fleet.ask(Task("describe", run, -1), fleet.clients):
            if reply.error is not None:
                out[reply.client] = reply.error
                continue
            rows[reply.client] = _told_rows(reply)
            yield reply

    try:
        if data.encoding == "schema":
            features = agreed(schema, data.standardize)
            if not sum(1 for _ in said()):
                raise TooFewClients(1, 0, "describing the features")
        else:
            statistics = (SiteStatistics.from_tree(reply.facts["statistics"]) for reply in said())
            features = merge(statistics, schema, data.standardize)
    except TooFewClients:
        reasons = "; ".join(f"{site}: {why}" for site, why in sorted(out.items())[:3])
        raise BadInput(
            f"no site's data can be used ({reasons}); mend the data or the checks in params.yaml"
        ) from None
    return Described(features, dict(sorted(rows.items())), dict(sorted(out.items())))


def _told_rows(reply: Reply) -> int:
    """How many training rows the client says it has. Raises `BadInput` for what is no such number."""
    told = reply.facts.get("rows")
    if type(told) is not int or told < 1:
        raise BadInput(
            f"client {reply.client} says it has {told!r} training rows; it must be a whole number above 0"
        )
    return told
