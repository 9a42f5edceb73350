"""NIID-Bench on Fashion-MNIST and CIFAR-10: 10 parties, 10 local epochs, one model judged on the published test pictures.

Li et al. 2022, arXiv:2102.02079, as replicated in Flower's baselines.
"""

from fedcore.tables.published import published, source
from fedcore.tables.table import Part, Table, Tree
from fedcore.types import Json

_PARTIES = 10


_LOCAL: Tree = {"lr": 0.01, "momentum": 0.9, "weight_decay": 1e-5, "epochs": 10, "batch_size": 64}


# Who has which labels, from 0, in all published seeds: the baseline divides with a seed of its own, 42, whatever
# ``dataset_seed`` is given (its main.py hands none to load_datasets).
_TWO_LABELS = ((0, 7), (1, 6), (2, 4), (3, 4), (4, 8), (5, 0), (6, 2), (7, 0), (8, 5), (9, 7))


def split(name: str, scheme: str, **options: Json) -> Part:
    """A column: the training pictures among the parties by `scheme`."""
    return Part(name, {"data": {"partition": {"scheme": scheme, "clients": _PARTIES, **options}}})


def client(name: str, algorithm: str, **options: float) -> Part:
    """A row: what a client does."""
    local: Tree = {"algorithm": algorithm, **options}
    return Part(name, {"local": local})


def base(pictures: str, factory: str) -> Tree:
    """What all cells of a table share."""
    return {
        "run": {"rounds": 50},
        "data": {"name": pictures, "published_split": True, "standardize": False},
        "model": {"framework": "torch", "factory": f"fedcore.tables.pytorch:{factory}"},
        "local": _LOCAL,
        "tracking": {"enabled": False},
    }


ROWS = (
    client("FedAvg", "sgd"),
    client("FedProx", "fedprox", mu=0.01),
    client("SCAFFOLD", "scaffold"),
    client("FedNova", "fednova"),
)
DIRICHLET = split("Dirichlet 0.5", "dirichlet", alpha=0.5)
_SEEDS = "Each seed draws its partition, its start and its batches."
_PROXIMAL = "FedProx has μ 0.01; published is the best of 0.001, 0.01, 0.1 and 1."

FASHION = Table(
    name="niid-fmnist",
    title="NIID-Bench on Fashion-MNIST: accuracy of the model of all, best round",
    source=source("niid-fmnist"),
    metric="accuracy",
    over="rows",
    when="best",
    base=base("fashion-mnist", "niid_cnn"),
    rows=ROWS,
    columns=(
        split("IID", "iid"),
        DIRICHLET,
        split("2 labels a client", "labels", labels_of_clients=_TWO_LABELS),
    ),
    published=published("niid-fmnist"),
    seeds=3,
    short=2,
    short_seeds=1,
    scale=100.0,
    notes=(f"{_SEEDS} {_PROXIMAL}",),
)

CIFAR = Table(
    name="niid-cifar10",
    title="NIID-Bench on CIFAR-10: accuracy of the model of all, best round",
    source=source("niid-cifar10"),
    metric="accuracy",
    over="rows",
    when="best",
    base=base("cifar10", "niid_color_cnn"),
    rows=ROWS,
    columns=(DIRICHLET,),
    published=published("niid-cifar10"),
    seeds=3,
    short=2,
    short_seeds=1,
    scale=100.0,
    notes=(
        f"{_SEEDS} {_PROXIMAL}",
        "Training pictures are padded by 4, cut at a random place and mirrored half of the time, as there.",
    ),
)
