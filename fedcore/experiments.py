"""Is federated training worth it? The federated model beside the pooled one and each site's own.

This is an experiment on one machine, where all sites' folders lie side by side: outside of it
nobody may pool rows. All models have the same architecture, encoding and local settings.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedcore.adapters.model import Model
from fedcore.adapters.trained import TrainedModel
from fedcore.blobs import write_whole
from fedcore.config import Config
from fedcore.data.federated import SiteData, load_site
from fedcore.errors import BadInput
from fedcore.local.metrics import measure, summarize
from fedcore.local.sgd import training
from fedcore.rng import generator
from fedcore.types import Json, Reply, Vector

Say = Callable[[str], None]


@dataclass(frozen=True)
class SiteResult:
    """One site's test rows under three models; None where the metric is not defined (one class only)."""

    site: str
    rows: int
    alone: float | None
    federated: float | None
    pooled: float | None


@dataclass(frozen=True)
class Comparison:
    """`metric` on all sites' test rows together, and site by site, smallest site first."""

    metric: str
    federated: float
    pooled: float
    alone: float
    sites: tuple[SiteResult, ...]

    def to_json(self) -> Json:
        """The comparison as JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class Baselines:
    """What federated training is compared with: a model of the pooled rows, and each site's own."""

    pooled: Vector
    own: Mapping[str, Vector]


def fit_baselines(
    like: TrainedModel, sites: Path, clients: tuple[str, ...], config: Config, say: Say = lambda line: None
) -> Baselines:
    """Baselines of `like`'s architecture and encoding; its parameters do not matter.

    Each takes the passes over its rows, in each round at that round's learning rate, that a
    client takes in federated training.
    """
    if not clients:
        raise BadInput("there is no client to compare; train first")
    data, model = _load_all(like, sites, clients, config), like.model
    say(f"pooled model on {sum(len(d.y_train) for d in data.values())} rows")
    pooled = _fit(model, _pool(list(data.values())), config, "pooled")
    own = {}
    for site in clients:
        say(f"{site} alone on {len(data[site].y_train)} rows")
        own[site] = _fit(model, data[site], config, site)
    return Baselines(pooled, own)


def compare_models(trained: TrainedModel, baselines: Baselines, sites: Path, config: Config) -> Comparison:
    """The federated model and the baselines on the same held-out rows.

    The metric is AUC for two classes, accuracy for more, R² for regression.
    """
    clients = tuple(baselines.own)
    data, model = _load_all(trained, sites, clients, config), trained.model
    vectors = {
        "federated": dict.fromkeys(clients, trained.vector),
        "pooled": dict.fromkeys(clients, baselines.pooled),
        "alone": baselines.own,
    }
    replies = {name: _judge(model, by_site, data, trained) for name, by_site in vectors.items()}
    return _compare(replies, data, trained.schema.task)


def _load_all(
    trained: TrainedModel, sites: Path, clients: tuple[str, ...], config: Config
) -> dict[str, SiteData]:
    return {site: _load(trained, sites, site, config) for site in clients}


def _load(trained: TrainedModel, sites: Path, site: str, config: Config) -> SiteData:
    return load_site(
        sites / site, trained.schema, trained.features, config.seed, site, config.data.test_fraction
    )


def _pool(parts: list[SiteData]) -> SiteData:
    def stacked(pick: Callable[[SiteData], NDArray[np.float32]]) -> NDArray[np.float32]:
        return np.concatenate([pick(part) for part in parts])

    return SiteData(
        stacked(lambda d: d.x_train),
        stacked(lambda d: d.y_train),
        stacked(lambda d: d.x_test),
        stacked(lambda d: d.y_test),
    )


def _fit(model: Model, data: SiteData, config: Config, name: str) -> Vector:
    """A model trained on these rows alone, with the passes and learning rates of every round."""
    vector = model.init(generator(config.seed, "init"))
    for number in range(config.run.rounds):
        rng = generator(config.seed, "baseline", name, number)
        vector, _ = model.train(vector, data.x_train, data.y_train, training(config.local, number), rng)
    return vector


def _judge(
    model: Model, vectors: Mapping[str, Vector], data: Mapping[str, SiteData], trained: TrainedModel
) -> list[Reply]:
    task = trained.schema.task
    return [
        Reply(site, measure(model.scores(vector, data[site].x_test), data[site].y_test, task))
        for site, vector in vectors.items()
    ]


def _compare(replies: Mapping[str, list[Reply]], data: Mapping[str, SiteData], task: str) -> Comparison:
    overall = {name: summarize(of, task)[0] for name, of in replies.items()}
    metric = next(
        name for name in ("auc", "accuracy", "c_index", "r2", "mse") if name in overall["federated"]
    )
    single = {
        name: {r.client: summarize([r], task)[0].get(metric) for r in of} for name, of in replies.items()
    }
    by_size = sorted(data, key=lambda site: (len(data[site].y_train), site))
    results = tuple(
        SiteResult(
            site,
            len(data[site].y_train),
            single["alone"][site],
            single["federated"][site],
            single["pooled"][site],
        )
        for site in by_size
    )
    return Comparison(
        metric, overall["federated"][metric], overall["pooled"][metric], overall["alone"][metric], results
    )


def draw_comparison(comparison: Comparison, picture: Path) -> None:
    """A picture: each site's own model and the federated one joined by a line, smallest site at the top."""
    from matplotlib.figure import Figure

    shown = [
        (f"{site.site}  ({site.rows:,} rows)", site.alone, site.federated)
        for site in comparison.sites
        if site.alone is not None and site.federated is not None
    ]
    figure = Figure(figsize=(7, 0.6 + 0.36 * max(len(shown), 3)), layout="constrained")
    axes = figure.subplots()
    for at, (_, alone, federated) in enumerate(shown):
        color = "#2a7f62" if federated >= alone else "#b5483a"
        axes.plot([alone, federated], [at, at], color=color, lw=2, zorder=1)
    places = range(len(shown))
    axes.scatter([s[1] for s in shown], places, color="white", edgecolor="#444", zorder=2, label="alone")
    axes.scatter([s[2] for s in shown], places, color="#1f4e79", zorder=3, label="federated")
    axes.axvline(comparison.pooled, color="#999", ls="--", lw=1, label="pooled, all sites")
    axes.set_yticks(places, [s[0] for s in shown])
    axes.invert_yaxis()
    axes.set_xlabel(f"{comparison.metric} on held-out rows")
    axes.legend(
        loc="upper center", bbox_to_anchor=(0.5, 1.12 if len(shown) < 6 else 1.08), ncols=3, frameon=False
    )
    axes.spines[["top", "right"]].set_visible(False)
    picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(picture, dpi=130)


@dataclass(frozen=True)
class Evaluation:
    """A model on held-out rows: all sites together, quantiles over sites, and site by site."""

    metrics: Mapping[str, float]
    spread: Mapping[str, float]
    sites: Mapping[str, Mapping[str, float]]


def evaluate(trained: TrainedModel, sites: Path, clients: tuple[str, ...], config: Config) -> Evaluation:
    """The model on every client's held-out rows."""
    data = _load_all(trained, sites, clients, config)
    replies = _judge(trained.model, dict.fromkeys(clients, trained.vector), data, trained)
    task = trained.schema.task
    overall, spread = summarize(replies, task)
    return Evaluation(overall, spread, {reply.client: summarize([reply], task)[0] for reply in replies})


def passing_sites(checks: Path, config: Config) -> tuple[str, ...]:
    """Sites of `config` that passed their checks. Raises `CorruptState` for a file that holds none."""
    from fedcore.data.checks import read_results

    chosen = config.data.sites
    return tuple(
        site
        for site, result in sorted(read_results(checks).items())
        if result.passed and (not chosen or site in chosen)
    )


def write_evaluation(evaluation: Evaluation, folder: Path) -> None:
    """``evaluation.json`` (all sites and their spread) and ``sites.csv`` (one row a site)."""
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(
        folder / "evaluation.json",
        _pretty({"metrics": dict(evaluation.metrics), "spread": dict(evaluation.spread)}),
    )
    names = sorted({name for metrics in evaluation.sites.values() for name in metrics})
    lines = [",".join(["site", *names])]
    lines += [
        ",".join([site, *(f"{of[n]:.6f}" if n in of else "" for n in names)])
        for site, of in evaluation.sites.items()
    ]
    write_whole(folder / "sites.csv", "\n".join([*lines, ""]).encode())


def write_comparison(comparison: Comparison, folder: Path) -> None:
    """``compare.json`` and the picture ``compare.png``."""
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / "compare.json", _pretty(comparison.to_json()))
    draw_comparison(comparison, folder / "compare.png")


def _pretty(tree: Json) -> bytes:
    return (json.dumps(tree, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()
