"""A round's numbers under the names people see: in MLflow, in `fedcore compare`, in gates.

Pure: no tracking library here. Metrics keep their name (``auc``); quantiles over clients are
``client.auc_p10``; phases are ``seconds.ask``; a configuration key is its dotted path.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from fedcore.types import Json, RoundRecord, canonical_json


def points(record: RoundRecord) -> dict[str, float]:
    """Every number of a round, name to value: bytes, counts, seconds; where privacy is on, ε and δ;
    on the virtual clock the time at the round's end.

    How many took part in a private round is no number to show: its ε counts on a secret cohort.
    """
    counts = {
        "cohort": len(record.cohort),
        "replied": len(record.replied),
        "dropped": len(record.dropped),
        "refused": len(record.refused),
        "unusual": len({*record.unusual, *(client for group in record.groups for client in group)}),
        "excluded": len(record.excluded),
        "bytes_up": record.bytes_up,
        "bytes_down": record.bytes_down,
    }
    named = {name: float(value) for name, value in counts.items() if record.delta is None}
    named["rolled_back"] = float(record.verdict == "rollback")
    named |= {"update_norm": record.update_norm, **record.metrics}
    named |= {f"client.{name}": value for name, value in record.client_metrics.items()}
    named |= {f"asynchrony.{name}": value for name, value in (record.asynchrony or {}).items()}
    named |= {f"seconds.{phase}": value for phase, value in record.seconds.items()}
    there = {"epsilon": record.epsilon, "delta": record.delta, "virtual_s": record.virtual_s}
    return named | {name: value for name, value in there.items() if value is not None}


def flatten(tree: Mapping[str, Json], prefix: str = "") -> dict[str, str]:
    """Dotted paths to text; lists and None as JSON.

    >>> flatten({"local": {"lr": 0.1, "name": "sgd"}, "months": [1, 2]})
    {'local.lr': '0.1', 'local.name': 'sgd', 'months': '[1,2]'}
    """
    flat: dict[str, str] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value if isinstance(value, str) else canonical_json(value)
    return flat


def last_kept(records: Sequence[RoundRecord]) -> RoundRecord | None:
    """The record of the newest round whose model was kept: the one the trained model comes from.

    A later round that was rolled back has the metrics of the model that was thrown away.
    """
    return max((r for r in records if r.verdict == "keep"), key=lambda r: r.round, default=None)


def participation(records: Iterable[RoundRecord]) -> str:
    """CSV text: how often each client was chosen, answered, was lost or refused, its suspicion, its last reason."""
    table: dict[str, list[int]] = {}
    reasons: dict[str, str] = {}
    suspicion: Mapping[str, float] = {}
    for record in records:
        for client, column in _events(record):
            table.setdefault(client, [0, 0, 0, 0])[column] += 1
        reasons |= {**record.unusual, **record.refused}
        suspicion = record.suspicion
    rows = [
        ",".join([_cell(c), *map(str, table[c]), f"{suspicion.get(c, 0.0):g}", _cell(reasons.get(c, ""))])
        for c in sorted(table)
    ]
    return "\n".join(["client,chosen,replied,dropped,refused,suspicion,last_reason", *rows]) + "\n"


def _events(record: RoundRecord) -> Iterator[tuple[str, int]]:
    groups = (record.cohort, record.replied, record.dropped, record.refused)
    return ((client, column) for column, group in enumerate(groups) for client in group)


def _cell(text: str) -> str:
    return '"' + text.replace('"', '""') + '"' if any(mark in text for mark in ',"\n') else text
