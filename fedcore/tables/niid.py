"""NIID-Bench on Fashion-MNIST: 10 parties, 10 local epochs, one model judged on the published test pictures.

Li et al. 2022, arXiv:2102.02079, as replicated in Flower's baselines.
"""

from fedcore.tables.published import published, source
from fedcore.tables.table import Part, Table, Tree

_PARTIES = 10


def split(name: str, scheme: str, **options: float) -> Part:
    """A column: Fashion-MNIST's training pictures among the parties by `scheme`."""
    return Part(name, {"data": {"partition": {"scheme": scheme, "clients": _PARTIES, **options}}})


def client(name: str, algorithm: str, **options: float) -> Part:
    """A row: what a client does."""
    local: Tree = {"algorithm": algorithm, **options}
    return Part(name, {"local": local})


FASHION = Table(
    name="niid-fmnist",
    title="NIID-Bench on Fashion-MNIST: accuracy of the model of all, best round",
    source=source("niid-fmnist"),
    metric="accuracy",
    over="rows",
    when="best",
    base={
        "run": {"rounds": 50},
        "data": {"name": "fashion-mnist", "published_split": True, "standardize": False},
        "model": {"framework": "torch", "factory": "fedcore.tables.pytorch:niid_cnn"},
        "local": {"lr": 0.01, "momentum": 0.9, "weight_decay": 1e-5, "epochs": 10, "batch_size": 64},
        "tracking": {"enabled": False},
    },
    rows=(
        client("FedAvg", "sgd"),
        client("FedProx", "fedprox", mu=0.01),
        client("SCAFFOLD", "scaffold"),
        client("FedNova", "fednova"),
    ),
    columns=(
        split("IID", "iid"),
        split("Dirichlet 0.5", "dirichlet", alpha=0.5),
        split("2 labels a client", "labels", labels_per_client=2),
    ),
    published=published("niid-fmnist"),
    seeds=3,
    short=2,
    short_seeds=1,
    scale=100.0,
    notes=(
        "Each seed draws its partition, its start and its batches. FedProx has μ 0.01; published is the best of "
        "0.001, 0.01, 0.1 and 1.",
    ),
)
