"""``fedcore simulate`` and ``fedcore doctor``: train in this process; see what is installed."""

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from fedcore.config import Config, load_config
from fedcore.types import RoundRecord

Params = Annotated[
    Path | None, typer.Option("--params", help="Parameter file; default: params.yaml of this folder.")
]
Preset = Annotated[
    str | None, typer.Option("--preset", help="A file of params/ laid over the parameters, e.g. digits.")
]
Override = Annotated[
    list[str] | None, typer.Option("--set", "-S", help="KEY=VALUE over both, e.g. local.lr=0.05. Repeatable.")
]
Workdir = Annotated[Path, typer.Option("--workdir", help="Where everything the command writes goes.")]
AsJson = Annotated[bool, typer.Option("--json", help="End standard output with one JSON object.")]


def simulate(
    run: Annotated[
        str | None, typer.Option("--run", help="Name of the run; the same name resumes it.")
    ] = None,
    preset: Preset = None,
    override: Override = None,
    params: Params = None,
    workdir: Workdir = Path("runs"),
    sites: Annotated[
        Path | None,
        typer.Option("--sites", help="Folder with one folder a site; default: made from the data section."),
    ] = None,
    engine: Annotated[
        str | None,
        typer.Option(
            "--engine",
            help="serial, threads, workers or ray: the same bytes; batched: a cohort in one computation.",
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers", min=0, max=64, help="How many threads, workers or Ray actors; 0: one a core."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Train federatedly in this process: data, checks, all rounds, tracking, model.

    A run that was interrupted goes on where it was when the same command is given again, and
    ends in the same bytes.

    Examples:

        fedcore simulate --preset digits

        fedcore simulate --preset digits --engine threads

        fedcore simulate --preset digits --engine workers --workers 2

        fedcore simulate --preset digits-private --run dp -S privacy.noise_multiplier=2

        fedcore simulate --run mine -S data.name=own -S data.path=clients/ --json

        fedcore simulate --preset digits -S time.mode=virtual -S asynchrony.mode=fedbuff -S local.algorithm=sgd
    """
    from fedcore.coordinator import simulate as train

    chosen = [f"run.engine={engine}"] if engine else []
    chosen += [f"run.workers={workers}"] if workers is not None else []
    config = load_config(params, preset=preset, overrides=[*(override or ()), *chosen])
    name = run or config.run.name or preset or "run"
    with ShownRounds(config, Console(stderr=True)) as show:
        result = train(config, workdir, name, sites, progress=show, announce=show.say)
    facts = {**asdict(result), "model_dir": str(result.model_dir)}
    print_result(facts, workdir, config.privacy.unit)
    if as_json:
        print(json.dumps(facts, sort_keys=True))


def doctor(as_json: AsJson = False) -> None:
    """Say which parts are installed and which tools are found.

    Example:

        fedcore doctor
    """
    from fedcore.doctor import examine

    findings = examine()
    if as_json:
        print(json.dumps(findings))
        return
    for name, found in findings.items():
        print(f"{name:24} {found or 'not installed'}")


def add_to(app: typer.Typer) -> None:
    """Add this room's commands."""
    app.command()(simulate)
    app.command()(doctor)


def print_result(facts: dict[str, object], workdir: Path, unit: str) -> None:
    """What a person wants to know of a finished run, one fact a line, the place of the run last."""
    console = Console(highlight=False, soft_wrap=True)
    for site, why in dict(facts["left_out"]).items():  # type: ignore[call-overload]
        console.print(f"left out     {site}: {why}", markup=False)
    metrics = dict(facts["metrics"])  # type: ignore[call-overload]
    console.print(f"run          {facts['run']}: {facts['rounds']} rounds, {facts['stopped']}")
    if facts["best_round"] is not None:
        still = "still improving" if facts["improving"] else "no longer improving"
        console.print(f"best         round {facts['best_round']}, {still}")
    if facts["epsilon"] is not None:
        console.print(f"privacy      ε = {facts['epsilon']:.4f} at δ = {facts['delta']:g} ({unit} level)")
    console.print(f"bytes        {_size(facts['bytes_up'])} up, {_size(facts['bytes_down'])} down")
    console.print(
        f"model        {facts['model_dir']} (sha256 {str(facts['model_sha256'])[:16]}…)", markup=False
    )
    console.print(f"pictures     {workdir / 'runs' / str(facts['run']) / 'report'}", markup=False)
    for name in ("auc", "accuracy", "personal_accuracy", "c_index", "r2", "mae", "loss", "personal_loss"):
        if name in metrics:
            console.print(f"{name:12} {metrics[name]:.4f}")
    console.print(
        f"MLflow run   {facts['tracking_url'] or 'tracking is off (tracking.enabled: false)'}", markup=False
    )


def _size(count: object) -> str:
    value = float(str(count))
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.4g} {unit}"
        value /= 1000
    return f"{value:.4g} TB"


class ShownRounds:
    """A bar on a terminal, a line a round elsewhere: rounds, metric, ε; the bar also rounds a second and time left."""

    def __init__(self, config: Config, console: Console) -> None:
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[pace]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._console, self._rounds = console, config.run.rounds
        self._task = self._bar.add_task("data and checks", total=config.run.rounds, pace="")
        self._began: tuple[int, float] | None = None  # first round seen and when

    def __enter__(self) -> "ShownRounds":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def say(self, words: str) -> None:
        """Show a sentence, begun in small letters, on a line of its own."""
        self._console.print(f"{words[0].upper()}{words[1:]}.", markup=False, highlight=False, soft_wrap=True)

    def __call__(self, record: RoundRecord) -> None:
        """Show a round that is done."""
        words, pace = _words(record), self._pace(record.round)
        self._bar.update(self._task, completed=record.round + 1, description=words, pace=pace)
        if not self._console.is_terminal:
            self._console.print(
                f"round {record.round + 1}/{self._rounds}  {words}", markup=False, highlight=False
            )

    def _pace(self, number: int) -> str:
        """Rounds a second since the first round that was seen; nothing yet at that one."""
        if self._began is None:
            self._began = (number, time.monotonic())
        first, start = self._began
        took = time.monotonic() - start
        return f"{(number - first) / took:.2f} rounds/s" if number > first and took > 0 else ""


def _words(record: RoundRecord) -> str:
    parts = [
        f"{name} {record.metrics[name]:.4f}"
        for name in ("auc", "accuracy", "loss", "mae")
        if name in record.metrics
    ]
    parts += [f"ε {record.epsilon:.3f}"] if record.epsilon is not None else []
    parts += [f"staleness {record.asynchrony['staleness_mean']:.1f}"] if record.asynchrony else []
    parts += [f"{len(record.dropped)} dropped"] if record.dropped else []
    return "  ".join([*parts, f"{len(record.replied)} clients"])
