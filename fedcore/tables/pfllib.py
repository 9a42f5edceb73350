"""PFLlib's leader board on Fashion-MNIST: 20 clients by Dirichlet 0.1, each judged on its own quarter of its rows.

Zhang et al. 2023, arXiv:2312.04992. Personal methods are judged by each client's own model.
"""

from fedcore.tables.published import published, source
from fedcore.tables.table import Part, Table


def personal(name: str, algorithm: str, **options: object) -> Part:
    """A row whose clients have models of their own."""
    return Part(name, {"personal": {"algorithm": algorithm, **options}}, metric="personal_accuracy")


FASHION = Table(
    name="pfllib-fmnist",
    title="PFLlib on Fashion-MNIST: accuracy over all clients' own test rows, best round",
    source=source("pfllib-fmnist"),
    metric="accuracy",
    over="rows",
    when="best",
    base={
        "run": {"rounds": 2000},
        "data": {
            "name": "fashion-mnist",
            "standardize": False,
            "test_fraction": 0.25,
            "partition": {"scheme": "dirichlet", "clients": 20, "alpha": 0.1},
        },
        "model": {"framework": "torch", "factory": "fedcore.tables.pytorch:pfllib_cnn"},
        "local": {"algorithm": "sgd", "lr": 0.005, "momentum": 0.0, "epochs": 1, "batch_size": 10},
        "tracking": {"enabled": False},
    },
    rows=(
        Part("FedAvg", {}),
        personal("Per-FedAvg", "per_fedavg", inner_lr=0.005, finetune_steps=10),
        personal("Ditto", "ditto", lam=0.1),
        personal("FedRep", "fedrep"),
        personal("FedPer", "fedper"),
        personal("APFL", "apfl", adaptive=True),
    ),
    columns=(Part("Dirichlet 0.1", {}),),
    published={key: number for key, number in published("pfllib-fmnist").items() if key[0] != "FedProx"},
    seeds=3,
    short=10,
    short_seeds=1,
    scale=100.0,
    notes=(
        "The leader board does not name its personal methods' own settings; ours: Ditto λ 0.1, APFL adaptive from "
        "α 0.5, FedRep 1 epoch of the head, Per-FedAvg first-order with 10 steps at 0.005.",
    ),
)
