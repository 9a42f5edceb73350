"""The section ``personal``: what each client trains for itself beside the model of all."""

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from fedcore.config.kinds import CLOSED, Count, Positive, PositiveInt, Share

NotNegative = Annotated[float, Field(ge=0)]


@dataclass(frozen=True, config=CLOSED)
class PersonalConfig:
    """How the model of all becomes each client's own; what is a client's own never leaves it.

    ``ditto`` and ``mr_mtl`` pull a model of the client's own to the model of all with strength `lam`;
    `lr` is its rate and `epochs` its length (None: those of local training). ``apfl`` mixes both
    models, `alpha` the share of the client's own, which follows its gradient where `adaptive`.
    ``fedper`` and ``fedrep`` let the last `head` layers stay with the client; ``fedrep`` trains them
    for `head_epochs` before the rest. ``per_fedavg`` and ``reptile`` look for a model that adapts
    fast: `finetune_steps` steps of SGD at rate `inner_lr`; `meta` is how ``per_fedavg`` treats the
    second derivative: leaves it out (``first_order``) or takes it from a difference of gradients
    (``hessian_free``). With ``none``, `finetune_steps` above 0 measure what the model of all becomes
    after as many steps.

    `new_clients` of the clients, drawn by the seed, are not trained on: ``fedcore adapt`` shows what the
    model becomes there with a few rows.
    """

    algorithm: Literal["none", "ditto", "mr_mtl", "apfl", "fedper", "fedrep", "per_fedavg", "reptile"] = (
        "none"
    )
    lam: NotNegative = 1.0
    lr: Positive | None = None
    epochs: PositiveInt | None = None
    alpha: Share = 0.5
    adaptive: bool = False
    head: Count = 1
    head_epochs: PositiveInt = 1
    inner_lr: NotNegative = 0.01
    meta: Literal["first_order", "hessian_free"] = "first_order"
    new_clients: Count = 0
    finetune_steps: Annotated[int, Field(ge=0, le=10_000)] = 0
