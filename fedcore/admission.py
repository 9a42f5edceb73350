"""What the server checks before anything is combined: which reply is taken, which update is refused, what is noted.

Every reply is untrusted. A reason never aborts the round: it goes into the record, and the round goes
on with the others.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from fedcore.rules.blocks import over_rows
from fedcore.suspicion import unusual_norms
from fedcore.transforms.clip import norm
from fedcore.types import Reply, Vector, vector_sha256


def uncalled(reply: Reply, cohort: Sequence[str], kept: Mapping[str, Reply]) -> dict[str, str]:
    """The reply's client and why the reply is not taken; empty if it is."""
    if reply.client not in cohort:
        return {reply.client: "answered without being asked"}
    return {reply.client: "answered twice, the first answer counts"} if reply.client in kept else {}


def refusal(reply: Reply, round_number: int, digest: str, model: Vector) -> str | None:
    """Why the update of a reply may not be combined in this round, None if it may.

    A reply must belong to the round and start from the model whose SHA-256 is `digest`; its update
    must be float32 of the shape of `model` (d,), and finite.
    """
    return _stray(reply, round_number, digest) or _unusable(reply.vector, model)


def noted(replies: Mapping[str, Reply], accepted: Sequence[str]) -> dict[str, str]:
    """What is worth noting about accepted updates: zero, far from the others in size, or the same bytes."""
    vectors = {client: v for client in accepted if (v := replies[client].vector) is not None}
    norms = np.array(over_rows(norm, list(vectors.values())))
    found = {accepted[row]: why for row, why in unusual_norms(norms).items()}
    first: dict[str, str] = {}
    values, counts = np.unique(norms, return_counts=True)
    shared = set(values[counts > 1].tolist())  # the same bytes have the same norm
    for client, vector in [(c, v) for (c, v), n in zip(vectors.items(), norms, strict=True) if n in shared]:
        same = first.setdefault(vector_sha256(vector), client)
        if same != client and client not in found:
            found[client] = f"the same update as {same}"
    return found


def _stray(reply: Reply, round_number: int, digest: str) -> str | None:
    """Why a reply does not belong to the round."""
    if reply.error is not None:
        return reply.error
    if reply.round not in (None, round_number):
        return f"the update is of round {reply.round}, this is round {round_number}"
    if reply.model_sha256 not in (None, digest):
        return f"the update starts from model {reply.model_sha256:.12}, this round's is {digest:.12}"
    return None


def _unusable(update: Vector | None, model: Vector) -> str | None:
    """Why an update cannot be combined."""
    if update is None:
        return "the reply holds no update"
    if update.dtype != np.float32 or update.shape != model.shape:
        return (
            f"the update is {update.dtype} of shape {update.shape}, expected float32 of shape {model.shape}"
        )
    return None if np.isfinite(update).all() else "the update is not finite; lower local.lr"
