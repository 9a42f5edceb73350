"""The guarantee in words: what is protected, from whom, how much, and what is not covered.

The first sentence says it in one line; `fedcore compare` shows that one, promotion all of it.
"""

from fedcore.config import Config, PrivacyConfig
from fedcore.privacy.leaves import counts_stay
from fedcore.privacy.planning import Affordable

_NAMES = {
    "gaussian": "Gaussian noise",
    "discrete_gaussian": "discrete Gaussian noise on a grid of integers",
    "laplace": "Laplace noise",
    "skellam": "Skellam noise on a grid of integers",
    "tree": "Gaussian noise correlated over the rounds (tree aggregation)",
    "banded": "Gaussian noise correlated over the rounds (banded matrix factorisation)",
}
_CORRELATED = ("tree", "banded")


def statement(config: Config, clients: int, epsilon: float | None, afforded: Affordable | None = None) -> str:
    """A paragraph for people, logged with the run and shown before promotion.

    `epsilon` is what was spent so far, None before the first round; `afforded` how many of the rounds the budget pays
    for, None where nobody asked.
    """
    privacy = config.privacy
    if privacy.mode == "none":
        return (
            "No differential privacy: the server sees each client's update and sample count; "
            "raw rows stay with the client."
        )
    spent = "ε not yet spent" if epsilon is None else f"ε = {epsilon:.4f}"
    parts = [
        f"{_unit(privacy).capitalize()}-level differential privacy: {spent} at δ = {privacy.delta:g}, "
        f"{_NAMES[privacy.mechanism]} ({privacy.mode}).",
        f"Budget ε = {privacy.epsilon:g}, shared by all runs on the same population and data; {clients} clients.",
        *([f"Of the rounds planned, {afforded.words}."] if afforded else []),
        f"Relation: {_relation(config)}.",
        _mechanism(privacy),
        *_evaluation(config),
        f"Sampling: {_sampling(config)}.",
        f"Noise: {_source(privacy)}.",
        f"Accountant: {_accountant(config)}.",
        f"Trusted: {_trusted(privacy)}.",
        f"Not covered: {'; '.join(_uncovered(config))}.",
    ]
    return " ".join(parts)


def in_one_line(words: str) -> str:
    """The first sentence of a statement.

    >>> in_one_line("Client-level differential privacy: ε = 1.5000 at δ = 0.001. Budget ε = 8.")
    'Client-level differential privacy: ε = 1.5000 at δ = 0.001'
    """
    return words.split(". ", maxsplit=1)[0].removesuffix(".")


def _unit(privacy: PrivacyConfig) -> str:
    return "record" if privacy.mode == "record" else privacy.unit


def _relation(config: Config) -> str:
    privacy = config.privacy
    if privacy.mode == "local":
        return "one client's update replaced by any other (the noise stands against two clips)"
    if privacy.mode == "record":
        return "one record of one silo added or removed; silos hold disjoint records"
    if privacy.mechanism in _CORRELATED:
        return "one client's updates set to zero in all rounds"
    if config.cohort.sampling == "uniform":
        return "one client replaced by another (the noise stands against two clips)"
    return "one client added or removed"


def _mechanism(privacy: PrivacyConfig) -> str:
    norm = "L1" if privacy.mechanism == "laplace" else "L2"
    noise = f"{_NAMES[privacy.mechanism]} of {privacy.noise_multiplier:g} × the clip"
    if privacy.mode == "record":
        return (
            f"Each silo trains by DP-SGD: every record's gradient is clipped to {norm} norm {privacy.clip:g}, {noise} is "
            "added to each step's sum, and the sum divided by the expected batch."
        )
    clip = f"{norm} norm {privacy.clip:g}"
    if privacy.clipping == "adaptive":
        clip += f" at first, then along the {privacy.quantile:g} quantile of the norms"
    if privacy.mode == "local":
        return f"Each client clips its update to {clip} and adds {noise} before it leaves."
    count = (
        " The clip follows a noisy count of the clients within it, whose price is part of ε."
        if privacy.clipping == "adaptive"
        else ""
    )
    return (
        f"Each update is clipped to {clip}, equal weights; {noise} is added to the sum and the sum divided by the "
        f"expected cohort.{count}"
    )


def _evaluation(config: Config) -> list[str]:
    privacy, every = config.privacy, config.evaluate.every
    if privacy.evaluation != "noised":
        return []
    adds = {"central": "the server", "local": "each client", "record": "each silo"}[privacy.mode]
    often = "each round" if every == 1 else f"every {every} rounds"
    if privacy.mode == "central" and config.cohort.sampling == "poisson":
        often += ", over a secret Poisson sample of its own"
    return [
        f"Evaluation, {often}: {adds} adds Gaussian noise of {privacy.evaluation_noise:g} × what one {_unit(privacy)} can "
        "move the sums of metrics by, and ε counts it."
    ]


def _sampling(config: Config) -> str:
    privacy, cohort = config.privacy, config.cohort
    if privacy.mode == "record":
        return "each step takes a secret Poisson sample of a silo's records (amplification counted)"
    if privacy.mode == "local":
        return "each client pays in every round it may be asked in (no amplification counted)"
    if privacy.mechanism in _CORRELATED:
        return f"cohorts as they come, a client at most once in {privacy.bands} rounds (no amplification counted)"
    if cohort.sampling == "poisson":
        return f"Poisson sampling at rate {cohort.rate:g} by the server, cohort kept secret (amplification counted)"
    if cohort.sampling == "uniform":
        return f"exactly {cohort.size} clients drawn by the server without replacement, cohort kept secret"
    return "every client in every round (no amplification counted)"


def _source(privacy: PrivacyConfig) -> str:
    if privacy.noise == "system":
        return "noise from the operating system's source, drawn once for each release"
    return "noise from a seed: a simulation that repeats, not a private release"


def _accountant(config: Config) -> str:
    sampled_without = config.cohort.sampling == "uniform" and config.privacy.mode == "central"
    if config.privacy.mechanism == "skellam" or sampled_without:
        return "Rényi divergences, as no loss distribution is proven for this mechanism"
    return "privacy loss distributions, with Rényi divergences beside them (dp-accounting)"


def _trusted(privacy: PrivacyConfig) -> str:
    if privacy.mode == "local":
        return "each client, to clip and to add its own noise; the server sees noised updates only"
    if privacy.mode == "record":
        return "each silo, with its own records; the server and the other silos see noised models only"
    return "the server, which sees single updates; clients need not be, as the server clips again"


def _uncovered(config: Config) -> list[str]:
    privacy = config.privacy
    told = ["feature statistics and row counts that clients report before the first round"]
    if config.data.encoding == "schema":
        told = [] if counts_stay(config) else ["row counts that clients report before the first round"]
    open_ends = [
        *told,
        "what the checks of the data found",
        "which clients are enrolled and who answered when",
        "choices made by looking at other runs on the same data that were not charged",
    ]
    if privacy.evaluation == "clear":
        open_ends.insert(len(told), "evaluation metrics and row counts, which leave the clients in the clear")
    if privacy.mode == "record":
        open_ends.append("a client as a whole, and a record that several silos hold")
    return open_ends
