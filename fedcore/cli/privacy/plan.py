"""``fedcore privacy plan``: what a guarantee costs, before anyone trains."""

import io
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from fedcore.cli.run import AsJson, Override, Params, Preset
from fedcore.config import Config, load_config
from fedcore.config.evaluate import times_due
from fedcore.errors import BadInput, MissingExtra, StorageError
from fedcore.privacy.events import GaussianSum
from fedcore.privacy.planning import REASONABLE, Answer, Question, answer, least_clients, refuse_hopeless
from fedcore.types import Json

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_INK, _SOFT, _ALERT = "#1f4e79", "#9db8d2", "#c0392b"
_MODELS = {650: "linear, 64 features", 10_000: "small network", 1_200_000: "small convolutional network"}


def plan(
    clients: Annotated[
        int | None, typer.Option(help="How many take part; default: of --preset, else unknown.")
    ] = None,
    epsilon: Annotated[float | None, typer.Option(help="ε to keep; the answer is the noise.")] = None,
    noise_multiplier: Annotated[
        float | None, typer.Option(help="Noise on the sum over the clip; the answer is ε.")
    ] = None,
    sampling_rate: Annotated[
        float | None, typer.Option(help="Share of the clients in a cohort; default: cohort.rate.")
    ] = None,
    rounds: Annotated[int | None, typer.Option(help="Default: run.rounds.")] = None,
    delta: Annotated[float | None, typer.Option(help="Default: privacy.delta.")] = None,
    sampling: Annotated[
        Literal["poisson", "fixed", "none"] | None,
        typer.Option(
            help="poisson: a secret draw by the server; fixed: exactly so many, in secret; none: no "
            "amplification. Default: none if everyone is asked, else poisson."
        ),
    ] = None,
    dimension: Annotated[int | None, typer.Option(help="Parameters of the model.")] = None,
    clip: Annotated[float | None, typer.Option(help="Default: privacy.clip.")] = None,
    picture: Annotated[Path | None, typer.Option(help="Draw ε over rounds: PNG or SVG.")] = None,
    preset: Preset = None,
    override: Override = None,
    params: Params = None,
    as_json: AsJson = False,
) -> None:
    """Say what noise an ε needs, or what ε a noise costs, and whether a model can be learned under it.

    What is not given is taken from the parameters, noisy evaluations (privacy.evaluation) among it, which are paid
    too. Give exactly one of --epsilon and --noise-multiplier.

    Examples:

        fedcore privacy plan --clients 10000 --epsilon 1 --sampling-rate 0.05 --rounds 1000 --dimension 650

        fedcore privacy plan --noise-multiplier 6 --sampling-rate 0.05 --rounds 1000 --delta 1e-5 --json

        fedcore privacy plan --preset digits-private --epsilon 4 --picture epsilon.png
    """
    config = load_config(params, preset=preset, overrides=override or ())
    question = Question(
        sampling=sampling
        or ("none" if sampling_rate is None and config.cohort.sampling == "all" else "poisson"),
        rate=config.cohort.rate if sampling_rate is None else sampling_rate,
        rounds=config.run.rounds if rounds is None else rounds,
        delta=config.privacy.delta if delta is None else delta,
        clients=_clients(config) if clients is None and preset else clients,
        dimension=dimension,
    )
    question = _with_evaluations(question, config)
    if clip is not None and not 0 < clip < math.inf:
        raise BadInput(f"clip must be above 0, got {clip:g}: updates longer than it are scaled down to it")
    found = answer(
        question, epsilon=epsilon, noise_multiplier=noise_multiplier, budget=config.privacy.epsilon
    )
    if question.clients is not None:
        rate = 1.0 if question.sampling == "none" else question.rate
        refuse_hopeless(
            question.clients,
            rate,
            found.noise_multiplier,
            question.dimension or 1,
            config.privacy.max_noise_ratio,
        )
    drawn = None if picture is None else str(_draw(question, found, picture))
    facts = _facts(question, found, config.privacy.clip if clip is None else clip)
    if as_json:
        print(json.dumps(facts | ({"picture": drawn} if drawn else {}), ensure_ascii=False, sort_keys=True))
        return
    console = Console(highlight=False, width=None if Console().is_terminal else 110)
    console.print(_table(question, found, facts))
    console.print(facts["statement"])
    if drawn:
        console.print(f"picture  {drawn}", markup=False, soft_wrap=True)


def _with_evaluations(question: Question, config: Config) -> Question:
    """The question with the noisy evaluations of the parameters.

    Where a silo adds the noise, rounds here are its steps, and it judges by all its records. A local
    evaluation counts half its noise: it may be replaced by any other.
    """
    privacy, rounds, every = config.privacy, config.run.rounds, config.evaluate.every
    if privacy.evaluation != "noised":
        return question
    if privacy.mode in ("none", "central"):
        rate = question.rate if question.sampling == "poisson" and question.rate < 1 else None
        return replace(question, evaluation=GaussianSum(privacy.evaluation_noise, rate), every=every)
    noise = privacy.evaluation_noise / 2 if privacy.mode == "local" else privacy.evaluation_noise
    spread = max(1, question.rounds // times_due(rounds, every, rounds))
    return replace(question, evaluation=GaussianSum(noise, None), every=spread)


def _clients(config: Config) -> int | None:
    """How many clients the parameters name, None where only the data would tell."""
    if config.data.sites:
        return len(config.data.sites)
    return None if config.data.partition.scheme == "natural" else config.data.partition.clients


def _facts(question: Question, found: Answer, clip: float) -> dict[str, Json]:
    rate = 1.0 if question.sampling == "none" else question.rate
    on_mean = found.noise_multiplier * clip / (rate * question.clients) if question.clients else None
    return {
        "epsilon": {"pld": found.spent.pld, "rdp": found.spent.rdp},
        "delta": question.delta,
        "noise_multiplier": found.noise_multiplier,
        "rounds": question.rounds,
        "sampling": question.sampling,
        "sampling_rate": rate,
        "relation": "replace" if question.sampling == "fixed" else "add_or_remove",
        "clients": question.clients,
        "dimension": question.dimension,
        "clip": clip,
        "evaluation_noise": question.evaluation.noise_multiplier if question.evaluation else None,
        "noise_on_sum": found.noise_multiplier * clip,
        "noise_on_mean": on_mean,
        "noise_ratio": found.noise_ratio,
        "least_clients": found.least_clients,
        "budget": found.affordable.limit if found.affordable else None,
        "affordable_rounds": found.affordable.rounds if found.affordable else None,
        "curve": [list(point) for point in found.curve],
        "statement": _statement(question, found),
    }


def _statement(question: Question, found: Answer) -> str:
    drawn = {
        "poisson": f"each round asks a secret Poisson sample of the clients at rate {question.rate:g}",
        "fixed": f"each round asks exactly {question.rate:g} of the clients, drawn in secret without replacement",
        "none": "cohorts are not drawn at random, or everyone is asked: no amplification is claimed",
    }[question.sampling]
    relation = "one client replaced" if question.sampling == "fixed" else "one client added or removed"
    proven = "privacy loss distributions" if found.spent.pld is not None else "Rényi divergences"
    return (
        f"ε = {found.spent.epsilon:.4g} at δ = {question.delta:g} after {question.rounds} rounds ({relation}; {proven}), "
        f"if {drawn}, every update is clipped with equal weights, Gaussian noise of {found.noise_multiplier:.4g} clips is "
        "added to the sum, and the sum is divided by the expected cohort. The server is trusted."
        f"{_judged(question)}{_afforded(found)}"
    )


def _judged(question: Question) -> str:
    """What noisy evaluations add, as one more sentence; none where there are none."""
    if question.evaluation is None:
        return ""
    often = "each round" if question.every == 1 else f"every {question.every} rounds"
    return f" That includes a noisy evaluation {often}, of noise multiplier {question.evaluation.noise_multiplier:g}."


def _afforded(found: Answer) -> str:
    """How many rounds the budget pays for, as one more sentence; none where it pays for all."""
    within = found.affordable
    if within is None or within.rounds == within.of:
        return ""
    end = (
        "training would not begin"
        if within.rounds == 0
        else f"training would end after round {within.rounds}"
    )
    return f" But {within.words}: {end}; add noise, plan fewer rounds, or raise privacy.epsilon."


def _table(question: Question, found: Answer, facts: dict[str, Json]) -> Table:
    table = Table(box=SIMPLE_HEAD, show_header=False, title="Privacy plan", title_justify="left")
    table.add_column(no_wrap=True, style="bold")
    table.add_column()
    table.add_row("noise multiplier", f"{found.noise_multiplier:.4f}  (standard deviation on the sum / clip)")
    for name, spent in (("PLD", found.spent.pld), ("RDP", found.spent.rdp)):
        table.add_row(f"ε by {name}", "not provable" if spent is None else f"{spent:.4f}")
    table.add_row("δ", f"{question.delta:g}")
    table.add_row("rounds", f"{question.rounds}")
    if found.affordable:
        within = found.affordable
        table.add_row("budget", f"ε = {within.limit:g} affords {within.rounds} of {within.of} rounds")
    table.add_row("sampling", f"{question.sampling}, rate {facts['sampling_rate']:g}")
    table.add_row("clients", "unknown" if question.clients is None else f"{question.clients:,}")
    if facts["noise_on_mean"] is not None:
        table.add_row(
            "noise on the mean", f"{facts['noise_on_mean']:.3g} a coordinate, clip {facts['clip']:g}"
        )
    if found.noise_ratio is not None:
        table.add_row(
            "noise / signal", f"R = z·√d/(q·N) = {found.noise_ratio:.3g} clips; {_verdict(found.noise_ratio)}"
        )
    for size in [question.dimension] if question.dimension else _MODELS:
        needed = least_clients(facts["sampling_rate"], found.noise_multiplier, size, REASONABLE)
        name = f" ({_MODELS[size]})" if size in _MODELS else ""
        table.add_row(
            "clients for R ≤ 2", f"{needed:,} for {size:,} parameters{name}, at the same rate and noise"
        )
    table.add_row(
        "ε over rounds",
        "  ".join(f"{n}: {cost:.3g}" for n, cost in found.curve[:: -(len(found.curve) // 5 or 1)][::-1]),
    )
    return table


def _verdict(ratio: float) -> str:
    if ratio <= REASONABLE:
        return "reasonable (rule of thumb: at most 2)"
    return "training will suffer (rule of thumb: at most 2)"


def _draw(question: Question, found: Answer, picture: Path) -> Path:
    """`picture` (PNG or SVG), once it shows ε over the rounds."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtra("matplotlib", "tracking") from None
    from fedcore.blobs import write_whole

    kind = picture.suffix.lstrip(".").lower() or "png"
    if kind not in ("png", "svg", "pdf"):
        raise BadInput(f"a picture of kind {picture.suffix} cannot be drawn; name a .png, .svg or .pdf")
    figure = Figure(figsize=(7.5, 4.4), layout="constrained")
    _curve(figure.subplots(), question, found)
    drawn = io.BytesIO()
    figure.savefig(drawn, format=kind, dpi=130)
    try:
        picture.parent.mkdir(parents=True, exist_ok=True)
        write_whole(picture, drawn.getvalue())
    except OSError as error:
        raise StorageError(f"cannot write {picture}: {error.strerror}; name another --picture") from None
    return picture


def _curve(axes: "Axes", question: Question, found: Answer) -> None:
    rounds, costs = zip(*found.curve, strict=True)
    axes.plot(rounds, costs, color=_INK, linewidth=2)
    axes.fill_between(rounds, costs, color=_SOFT, alpha=0.3)
    axes.scatter(rounds[-1], costs[-1], color=_INK, zorder=3)
    axes.annotate(
        f"ε = {costs[-1]:.3g} after {rounds[-1]:,} rounds",
        (rounds[-1], costs[-1]),
        (-8, 8),
        textcoords="offset points",
        ha="right",
        color=_INK,
        fontweight="bold",
    )
    if found.spent.pld is not None and found.spent.rdp is not None:
        axes.scatter(rounds[-1], found.spent.rdp, color=_ALERT, marker="_", s=160, zorder=3)
        axes.annotate(
            f"{found.spent.rdp:.3g} by Rényi divergences",
            (rounds[-1], found.spent.rdp),
            (-14, 6),
            textcoords="offset points",
            ha="right",
            color=_ALERT,
        )
    who = f"{question.clients:,} clients, " if question.clients else ""
    named = {"poisson": "Poisson sampling", "fixed": "fixed cohorts"}.get(question.sampling)
    drawn = f"{named} at rate {question.rate:g}" if named else "no amplification"
    axes.set_title(
        f"Privacy spent over the rounds\n{who}{drawn}, "
        f"noise multiplier {found.noise_multiplier:.4g}, δ = {question.delta:g}",
        loc="left",
        fontsize=10,
    )
    axes.set_xlabel("rounds")
    axes.set_ylabel("ε (upper bound)")
    axes.set_xlim(left=0, right=rounds[-1] * 1.03)
    axes.set_ylim(bottom=0, top=max(costs[-1], found.spent.rdp or 0) * 1.2)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.25)
