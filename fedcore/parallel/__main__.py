"""``torchrun --nproc-per-node N -m fedcore.parallel``: train one model on all rows with N processes."""

import json
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from fedcore.adapters.trained import TrainedModel
from fedcore.config import Config, config_from, config_tree, load_config
from fedcore.data.prepare import Prepared, prepare
from fedcore.errors import BadConfig, BadData, FedcoreError, PeerLost, StorageError, UnknownName
from fedcore.parallel.job import Job, job_of, refuse, settings_of
from fedcore.parallel.kept import Kept
from fedcore.parallel.server import train_async
from fedcore.parallel.sync import Trained, train_sync
from fedcore.parallel.world import REDUCES, Place, World, joined, place
from fedcore.types import Json, canonical_json, vector_sha256

MODES = ("sync", "async")
app = typer.Typer(
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.command()
def parallel(
    preset: Annotated[
        str | None, typer.Option(help="A file of params/ over the parameters, e.g. digits.")
    ] = None,
    mode: Annotated[str, typer.Option(help="sync, or async with rank 0 as parameter server.")] = "sync",
    reduce: Annotated[str, typer.Option(help="Who adds up in sync: our ring, or the library.")] = "ring",
    epochs: Annotated[int | None, typer.Option(help="Default: local.epochs.")] = None,
    batch: Annotated[
        int | None, typer.Option(help="Rows of a step, over all ranks; default: local.batch_size.")
    ] = None,
    lr: Annotated[float | None, typer.Option(help="Default: local.lr.")] = None,
    override: Annotated[
        list[str] | None, typer.Option("--set", "-S", help="KEY=VALUE over the parameters. Repeatable.")
    ] = None,
    params: Annotated[
        Path | None, typer.Option(help="Parameter file; default: params.yaml of this folder.")
    ] = None,
    workdir: Annotated[Path, typer.Option(help="Where everything the command writes goes.")] = Path("runs"),
    name: Annotated[
        str, typer.Option(help="Name of the training; the same name goes on with it.")
    ] = "parallel",
    timeout: Annotated[
        float, typer.Option(min=1, help="Seconds a rank waits for another before it ends.")
    ] = 60.0,
    join: Annotated[float, typer.Option(min=1, help="Seconds to wait for all ranks and the data.")] = 600.0,
    as_json: Annotated[
        bool, typer.Option("--json", help="End standard output with one JSON object.")
    ] = False,
) -> None:
    """Train one model on the rows of all sites together, with as many processes as torchrun starts.

    Data, features, model and local settings are those of `fedcore simulate`. Synchronous training gives
    the model of one process within rounding, whatever their number; it keeps every epoch, and the same
    command goes on after the last one.

    Examples:

        torchrun --nproc-per-node 2 -m fedcore.parallel --preset digits --epochs 5

        torchrun --nproc-per-node 2 -m fedcore.parallel --preset digits --reduce library --json

        torchrun --nproc-per-node 3 -m fedcore.parallel --mode async -S local.algorithm=sgd --batch 512 --lr 0.02
    """
    config = _settings(load_config(params, preset=preset, overrides=override or ()), epochs, batch, lr)
    here = place()
    _refuse(config, mode, reduce, name)
    ready: list[Prepared] = []

    def prepared() -> None:
        ready.append(prepare(config, workdir))

    start = time.monotonic()
    with joined(here, prepared, join, timeout, mode == "sync") as world:
        world.agree("configuration", settings_of(config) + mode + reduce)
        job = job_of(config, ready[0] if ready else prepare(config, workdir))
        world.agree("set of training rows", job.identity())
        folder = workdir / "parallel" / name
        began = time.monotonic()
        trained = _train(job, world, mode, reduce, folder, _progress(here, config.local.epochs))
        took = time.monotonic() - began
    if here.rank == 0:
        facts = _finish(job, trained, folder) | {"mode": mode, "backend": world.backend, "world": world.size}
        facts |= {"reduce": reduce if mode == "sync" else None, "device": str(world.device)}
        facts |= {"seconds": {"training": took, "all": time.monotonic() - start}}
        _show(facts)
        if as_json:
            print(json.dumps(facts, sort_keys=True))


def _settings(config: Config, epochs: int | None, batch: int | None, lr: float | None) -> Config:
    """`config` with what the options say. Raises `BadConfig`."""
    tree = config_tree(config)
    for key, value in {"epochs": epochs, "batch_size": batch, "lr": lr}.items():
        tree["local"][key] = tree["local"][key] if value is None else value
    return config_from(tree)


def _refuse(config: Config, mode: str, reduce: str, name: str) -> None:
    if mode not in MODES:
        raise UnknownName("mode", mode, MODES)
    if reduce not in REDUCES:
        raise UnknownName("reduce", reduce, REDUCES)
    refuse(config)
    try:
        config_from({**config_tree(config), "run": {"name": name}})
    except BadConfig as error:
        raise BadConfig("run.name", name, "--name cannot name a folder") from error


def _train(
    job: Job, world: World, mode: str, reduce: str, folder: Path, progress: Callable[[int, float], None]
) -> Trained:
    if mode == "async":
        return train_async(job, world, progress)
    identity = canonical_json({"job": job.identity(), "reduce": reduce, "world": world.size})
    return train_sync(job, world, REDUCES[reduce], Kept(folder, identity), progress)


def _finish(job: Job, trained: Trained, folder: Path) -> dict[str, Json]:
    """What rank 0 says of a finished training, once its model lies in `folder`."""
    TrainedModel(job.spec, trained.vector, job.features, job.schema).save(folder / "model")
    behind = sum(steps * count for steps, count in trained.staleness.items())
    return {
        "epochs": len(trained.losses),
        "losses": list(trained.losses),
        "metrics": dict(job.judge(trained.vector)),
        "model_dir": str(folder / "model"),
        "model_sha256": vector_sha256(trained.vector),
        "parameters": len(trained.vector),
        "rows": len(job.data.y_train),
        "staleness": {
            "mean": behind / trained.steps,
            "max": max(trained.staleness, default=0),
            "counts": {str(steps): count for steps, count in trained.staleness.items()},
        },
        "steps": trained.steps,
    }


def _progress(here: Place, epochs: int) -> Callable[[int, float], None]:
    def show(epoch: int, loss: float) -> None:
        if here.rank == 0:
            print(f"epoch {epoch}/{epochs}  loss {loss:.4f}", file=sys.stderr, flush=True)

    return show


def _show(facts: dict[str, Json]) -> None:
    """What a person wants to know, one fact a line."""
    by = f"reduce {facts['reduce']}, " if facts["reduce"] else ""
    print(
        f"training     {facts['mode']}, {by}{facts['world']} processes over {facts['backend']} on {facts['device']}"
    )
    print(
        f"steps        {facts['steps']} in {facts['epochs']} epochs of {facts['rows']} rows, "
        f"{facts['seconds']['training']:.1f} s"
    )
    if facts["mode"] == "async":
        print(
            f"staleness    {facts['staleness']['mean']:.2f} steps in the mean, {facts['staleness']['max']} at most"
        )
    for name in ("auc", "accuracy", "r2", "mae", "loss"):
        if name in facts["metrics"]:
            print(f"{name:12} {facts['metrics'][name]:.4f}")
    print(f"model        {facts['model_dir']} (sha256 {facts['model_sha256'][:16]}…)")


def _told_to_end(*_: object) -> None:
    here = place()
    raise PeerLost(
        here.rank, "the training", 0, "this process was told to end: torchrun was, or it lost a rank"
    )


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; exits with the code of the error tree.

    An error that all ranks meet is said once on each machine; one that is a rank's own is said by it.
    """
    signal.signal(signal.SIGTERM, _told_to_end)
    try:
        app(arguments, prog_name="fedcore.parallel", standalone_mode=True)
    except FedcoreError as error:
        if isinstance(error, (PeerLost, StorageError, BadData)) or place().first:
            print(f"fedcore: {error}", file=sys.stderr, flush=True)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
