"""FLamby's tables: natural clients, 100 batches a client and round, and the mean of all clients' own test scores.

FLamby trains its pooled and local models with Adam. Here that is the server's Adam over one client that takes
one batch a round, which is the same rule; so the rounds of these rows are batches. Ogier du Terrail et al.
2022, arXiv:2210.04620, section 4 and its repository's settings.
"""

from fedcore.tables.published import published, source
from fedcore.tables.table import Part, Table, Tree

_ADAPTIVE = {"beta": 0.9, "beta2": 0.999, "tau": 1e-8}
_TURNS = {"sampling": "turns", "min_clients": 1}


def federated(name: str, lr: float, **sections: Tree) -> Part:
    """A row of all clients at the learning rate `lr`, with other `sections` over it."""
    local = {"lr": lr, **sections.pop("local", {})}
    return Part(name, {"local": local, **sections})


def adaptive(name: str, lr: float, optimizer: str, server_lr: float) -> Part:
    """A row with an adaptive server."""
    return federated(name, lr, server={"optimizer": optimizer, "lr": server_lr, **_ADAPTIVE})


def alone(name: str, data: Tree, judged_on: Tree, lr: float, batches: int) -> Part:
    """A row that trains in one place: Adam for so many batches, judged at all clients."""
    tree = {
        "data": data,
        "run": {"rounds": batches},
        "local": {"lr": 1.0, "steps": 1},
        "cohort": {"min_clients": 1},
        "server": {"optimizer": "adam", "lr": lr, "bias_correction": True, **_ADAPTIVE},
    }
    return Part(name, tree, judged_on)


_BRCA = {"name": "brca", "standardize": False}
_BRCA_BATCHES = (31, 20, 21, 17, 17, 5)  # one epoch of each region, 8 patients each
_BRCA_EPOCHS = 30
BRCA = Table(
    name="brca",
    title="FLamby's Fed-TCGA-BRCA: concordance index, mean of the six regions' test sets",
    source=source("brca"),
    metric="c_index",
    over="clients",
    when="last",
    base={
        "run": {"rounds": 5},
        "data": _BRCA,
        "model": {"framework": "numpy", "name": "logistic"},
        "local": {"algorithm": "sgd", "momentum": 0.0, "batch_size": 8, "steps": 100},
        "tracking": {"enabled": False},
    },
    rows=(
        federated("FedAvg", 0.1),
        federated("FedProx", 0.1, local={"algorithm": "fedprox", "mu": 0.1}),
        federated("SCAFFOLD", 0.01, local={"algorithm": "scaffold"}),
        adaptive("FedAdam", 0.01, "adam", 0.1),
        adaptive("FedYogi", 0.01, "yogi", 0.1),
        adaptive("FedAdagrad", 0.01, "adagrad", 1.0),
        federated("Cyclic", 0.01, cohort=_TURNS),
        *(
            alone(f"Local {k}", {**_BRCA, "sites": [f"region-{k}"]}, _BRCA, 0.1, _BRCA_EPOCHS * batches)
            for k, batches in enumerate(_BRCA_BATCHES)
        ),
        alone("Pooled", {**_BRCA, "name": "brca-pooled"}, _BRCA, 0.1, _BRCA_EPOCHS * 109),
    ),
    columns=(Part("mean of 6 regions", {}),),
    published=published("brca"),
    seeds=5,
    notes=(
        "Rounds of the local and pooled rows are batches: Adam over 30 epochs, as published.",
        "Ties in time share their risk set here (Breslow); in FLamby their order in the batch decides.",
    ),
)
_HEART = {"name": "heart-flamby", "standardize": False}
_HEART_BATCHES = {"cleveland": 50, "hungarian": 43, "switzerland": 8, "va": 22}  # one epoch, 4 patients each
_HEART_EPOCHS = 50
HEART = Table(
    name="heart",
    title="FLamby's Fed-Heart-Disease: accuracy, mean of the four hospitals' test sets",
    source=source("heart"),
    metric="accuracy",
    over="clients",
    when="last",
    base={
        "run": {"rounds": 15},
        "data": _HEART,
        "model": {"framework": "numpy", "name": "logistic"},
        "local": {"algorithm": "sgd", "momentum": 0.0, "batch_size": 4, "steps": 100},
        "tracking": {"enabled": False},
    },
    rows=(
        federated("FedAvg", 0.001),
        federated("FedProx", 0.001, local={"algorithm": "fedprox", "mu": 0.01}),
        federated("SCAFFOLD", 0.001, local={"algorithm": "scaffold"}),
        adaptive("FedAdam", 10**-2, "adam", 10**-2),
        adaptive("FedYogi", 10**-2.5, "yogi", 10**-2),
        adaptive("FedAdagrad", 10**-2.5, "adagrad", 10**-0.5),
        federated("Cyclic", 0.01, cohort=_TURNS),
        *(
            alone(f"Local {site}", {**_HEART, "sites": [site]}, _HEART, 0.001, _HEART_EPOCHS * batches)
            for site, batches in _HEART_BATCHES.items()
        ),
        alone("Pooled", {**_HEART, "name": "heart-flamby-pooled"}, _HEART, 0.001, _HEART_EPOCHS * 122),
    ),
    columns=(Part("mean of 4 hospitals", {}),),
    published=published("heart"),
    seeds=5,
    notes=("Rounds of the local and pooled rows are batches: Adam over 50 epochs, as published.",),
)
