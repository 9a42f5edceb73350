"""The contenders of `simulation.py`: each does the same rounds in an environment of its own and prints one line of JSON.

Nothing of fedcore is imported here: the rows of the clients come as arrays, encoded once for all. Threads are as many as
$OMP_NUM_THREADS says.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

CLIENTS, COHORT, BATCH, RATE = 100, 10, 20, 0.1


class Rows:
    """Clients' training rows and all test rows: arrays in a folder, mapped."""

    def __init__(self, folder: Path) -> None:
        arrays = {
            name: np.load(folder / f"{name}.npy", mmap_mode="c") for name in ("x", "y", "x_test", "y_test")
        }
        self.start = np.load(folder / "start.npy")
        self.x, self.x_test = (torch.from_numpy(np.array(arrays[name])) for name in ("x", "x_test"))
        self.y, self.y_test = (torch.from_numpy(np.array(arrays[name])).long() for name in ("y", "y_test"))

    def of(self, client: int) -> tuple[torch.Tensor, torch.Tensor]:
        own = slice(int(self.start[client]), int(self.start[client + 1]))
        return self.x[own], self.y[own]


def network() -> torch.nn.Sequential:
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Flatten(),
        torch.nn.Linear(784, 200),
        torch.nn.ReLU(),
        torch.nn.Linear(200, 200),
        torch.nn.ReLU(),
        torch.nn.Linear(200, 10),
    )


def accuracy(model: torch.nn.Module, rows: Rows) -> float:
    with torch.no_grad():
        return float((model(rows.x_test).argmax(1) == rows.y_test).float().mean())


class Stamps:
    """When each round ended, and how good the model was then."""

    def __init__(self) -> None:
        self.began = time.perf_counter()
        self.times: list[float] = []
        self.cpu: list[float] = []
        self.scores: list[float] = []

    def __call__(self, score: float) -> None:
        self.times.append(time.perf_counter())
        self.cpu.append(time.process_time())
        self.scores.append(score)

    def told(self) -> None:
        seconds, cpu = np.diff(self.times).tolist(), np.diff(self.cpu).tolist()
        start = self.times[0] - self.began
        print(json.dumps({"start": start, "seconds": seconds, "cpu": cpu, "accuracy": self.scores[-1]}))


def bare(folder: Path, rounds: int, processes: int) -> None:
    """The loop anyone would write in PyTorch, without a framework."""
    stamps, rows = Stamps(), Rows(folder)
    model, rng = network(), np.random.default_rng(1)
    loss = torch.nn.CrossEntropyLoss()
    for _ in range(rounds):
        start = {name: value.clone() for name, value in model.state_dict().items()}
        total = {name: torch.zeros_like(value) for name, value in start.items()}
        for client in rng.choice(CLIENTS, COHORT, replace=False):
            model.load_state_dict(start)
            optimizer = torch.optim.SGD(model.parameters(), RATE)
            x, y = rows.of(int(client))
            for chosen in torch.randperm(len(x)).split(BATCH):
                optimizer.zero_grad()
                loss(model(x[chosen]), y[chosen]).backward()
                optimizer.step()
            for name, value in model.state_dict().items():
                total[name] += value / COHORT
        model.load_state_dict(total)
        stamps(accuracy(model, rows))
    stamps.told()


def pfl(folder: Path, rounds: int, processes: int) -> None:
    """Apple's pfl-research; with several processes by torchrun, as its documentation says."""
    stamps, rows = Stamps(), Rows(folder)
    users = {client: rows.of(client) for client in range(CLIENTS)}
    test = (rows.x_test, rows.y_test)
    pfl_training(network(), users, test, (rounds, COHORT, BATCH, RATE, 1), lambda score: stamps(score or 0.0))
    if int(os.environ.get("RANK", "0")) == 0:
        stamps.told()


Pair = tuple[torch.Tensor, torch.Tensor]


def pfl_training(
    net: torch.nn.Module,
    users: dict[int, Pair],
    test: Pair,
    asked: tuple[int, int, int, float, int],
    heard: Callable[[float | None], None],
) -> None:
    """FedAvg by pfl-research: (rounds, cohort, batch, rate, every so many rounds judged); `heard` after each round.

    `heard` is told the accuracy on `test`, None where the round was not judged.
    """
    from pfl.aggregate.simulate import SimulatedBackend
    from pfl.algorithm.base import NNAlgorithmParams
    from pfl.algorithm.federated_averaging import FederatedAveraging
    from pfl.callback.base import TrainingProcessCallback
    from pfl.callback.central_evaluation import CentralEvaluationCallback
    from pfl.data.federated_dataset import FederatedDataset
    from pfl.data.pytorch import PyTorchTensorDataset
    from pfl.data.sampling import get_user_sampler
    from pfl.hyperparam import NNEvalHyperParams, NNTrainHyperParams
    from pfl.metrics import Weighted
    from pfl.model.pytorch import PyTorchModel

    rounds, cohort, batch, rate, every = asked

    class Network(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.net(x)

        def loss(self, x: torch.Tensor, y: torch.Tensor, eval: bool = False) -> torch.Tensor:  # noqa: A002
            self.train(not eval)
            return torch.nn.functional.cross_entropy(self(x), y)

        @torch.no_grad()
        def metrics(self, x: torch.Tensor, y: torch.Tensor, eval: bool = True) -> dict[str, object]:  # noqa: A002
            self.eval()
            hits = (self(x).argmax(1) == y).float().sum().item()
            return {"accuracy": Weighted(hits, len(y))}

    class Watch(TrainingProcessCallback):
        def after_central_iteration(self, aggregate_metrics, model, *, central_iteration):
            found = {str(name): value for name, value in aggregate_metrics.to_simple_dict().items()}
            judged = [float(v) for name, v in found.items() if "accuracy" in name and "Central" in name]
            heard(judged[0] if judged else None)
            return False, type(aggregate_metrics)()

    rows_of = {
        user: PyTorchTensorDataset(rows, user_id=str(user), train_kwargs={"eval": False})
        for user, rows in users.items()
    }
    dataset = FederatedDataset(rows_of.__getitem__, get_user_sampler("random", list(users)))
    module, judging = Network(), NNEvalHyperParams(local_batch_size=10_000)
    model = PyTorchModel(module, torch.optim.SGD, torch.optim.SGD(module.parameters(), 1.0))
    held_out = PyTorchTensorDataset(test, eval_kwargs={"eval": True})
    FederatedAveraging().run(
        NNAlgorithmParams(rounds, 10**9, cohort, 0),
        SimulatedBackend(dataset, dataset),
        model,
        NNTrainHyperParams(local_batch_size=batch, local_num_epochs=1, local_learning_rate=rate),
        judging,
        [CentralEvaluationCallback(held_out, judging, frequency=every), Watch()],
        send_metrics_to_platform=False,
    )


def flower(folder: Path, rounds: int, processes: int) -> None:
    """Flower's simulation engine on Ray, one CPU a client, evaluation at the server."""
    from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
    from flwr.clientapp import ClientApp
    from flwr.serverapp import ServerApp
    from flwr.serverapp.strategy import FedAvg
    from flwr.simulation import run_simulation

    stamps, client_app, server_app = Stamps(), ClientApp(), ServerApp()
    place, kept = str(folder), {}

    @client_app.train()
    def train(message: Message, context: object) -> Message:
        torch.set_num_threads(1)
        if "rows" not in kept:
            kept["rows"], kept["model"] = Rows(Path(place)), network()
        model = kept["model"]
        model.load_state_dict(message.content["arrays"].to_torch_state_dict())
        x, y = kept["rows"].of(int(context.node_config["partition-id"]))  # type: ignore[attr-defined]
        optimizer, loss = torch.optim.SGD(model.parameters(), RATE), torch.nn.CrossEntropyLoss()
        for chosen in torch.randperm(len(x)).split(BATCH):
            optimizer.zero_grad()
            loss(model(x[chosen]), y[chosen]).backward()
            optimizer.step()
        content = {
            "arrays": ArrayRecord(model.state_dict()),
            "metrics": MetricRecord({"num-examples": len(x)}),
        }
        return Message(content=RecordDict(content), reply_to=message)

    @server_app.main()
    def main(grid: object, context: object) -> None:
        rows, model = Rows(Path(place)), network()

        def judged(number: int, arrays: ArrayRecord) -> MetricRecord:
            model.load_state_dict(arrays.to_torch_state_dict())
            score = accuracy(model, rows)
            if number:
                stamps(score)
            return MetricRecord({"accuracy": score})

        strategy = FedAvg(fraction_train=COHORT / CLIENTS, fraction_evaluate=0.0, min_available_nodes=CLIENTS)
        strategy.start(
            grid=grid,  # type: ignore[arg-type]
            initial_arrays=ArrayRecord(model.state_dict()),
            num_rounds=rounds,
            train_config=ConfigRecord({"lr": RATE}),
            evaluate_fn=judged,
        )

    run_simulation(
        server_app,
        client_app,
        CLIENTS,
        backend_config={
            "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
            "init_args": {"num_cpus": processes},
        },
    )
    stamps.told()


if __name__ == "__main__":
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    {"bare": bare, "pfl": pfl, "flower": flower}[sys.argv[1]](
        Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    )
