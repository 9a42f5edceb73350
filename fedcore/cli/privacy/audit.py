"""``fedcore privacy audit``: train with canaries, and see whether the claimed ε stands."""

import json
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from fedcore.cli.run import AsJson, Override, Params, Preset, ShownRounds, Workdir
from fedcore.redteam.verdict import WORDS, Verdict, took_part


def audit(
    preset: Preset = None,
    override: Override = None,
    params: Params = None,
    workdir: Workdir = Path("runs"),
    sites: Annotated[
        Path | None,
        typer.Option("--sites", help="Folder with one folder a site; default: made from the data section."),
    ] = None,
    canaries: Annotated[
        int, typer.Option(help="Clients of our own that are enrolled with the others.")
    ] = 200,
    guesses: Annotated[
        int | None,
        typer.Option(help="Coins guessed on each side, declared now; default: a tenth of the canaries."),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Repeats coins and directions; default: from the system's source.")
    ] = None,
    confidence: Annotated[float, typer.Option(help="Of each lower bound by itself.")] = 0.99,
    sees: Annotated[
        Literal["rounds", "final"],
        typer.Option(help="What the auditor sees: every release, or the last model."),
    ] = "rounds",
    picture: Annotated[Path | None, typer.Option("--picture", help="Another file for the picture.")] = None,
    as_json: AsJson = False,
) -> None:
    """Train with canary clients, bound ε from below, and fail where that exceeds the accountant's ε.

    Half of the canaries, by secret coins, send as much as one client may, each in a direction of its own; what can
    be told of the coins from what was released bounds the true ε from below. The training is a release: the
    population's account is charged, and `--workdir` says whose. What was interrupted goes on where it was.
    Exit code 10: more leaks than the accountant says.

    Examples:

        fedcore privacy audit --preset digits-private

        fedcore privacy audit --preset digits-private --canaries 1000 --seed 1 --json

        fedcore privacy audit --preset digits-private --sees final --picture audit.png
    """
    from fedcore.config import load_config
    from fedcore.redteam.audit import audit_and_report
    from fedcore.redteam.course import Asked
    from fedcore.redteam.verdict import as_json as facts_of

    config = load_config(params, preset=preset, overrides=override or ())
    asked = Asked(canaries, guesses, seed, confidence, sees)
    with ShownRounds(config, Console(stderr=True)) as show:
        verdict, files = audit_and_report(config, workdir, asked, sites=sites, picture=picture, progress=show)
    _show(verdict, files)
    if as_json:
        hidden = ("scores", "included")
        facts = {name: value for name, value in facts_of(verdict).items() if name not in hidden}
        print(json.dumps({**facts, "files": files}, sort_keys=True, ensure_ascii=False))
    verdict.require()


def _show(verdict: Verdict, files: dict[str, str]) -> None:
    console = Console(highlight=False, width=None if Console().is_terminal else 110)
    table = Table(f"at δ = {verdict.delta:g}", "bound", box=SIMPLE_HEAD)
    table.add_row(f"ε ≤ {verdict.upper:.3f}", f"accountant, {verdict.rounds} rounds")
    for name, value in verdict.lower.items():
        table.add_row(f"ε ≥ {value:.3f}", WORDS[name], style="red" if name in verdict.exceeding else None)
    console.print(table)
    console.print(
        f"canaries     {verdict.canaries}: {took_part(verdict)}; "
        f"{verdict.correct} of {verdict.guesses} guesses right"
    )
    console.print(f"audit        {'passed' if verdict.passed else 'failed'}: {verdict.run}")
    for name, place in files.items():
        console.print(f"{name:12} {place}", markup=False, soft_wrap=True)
