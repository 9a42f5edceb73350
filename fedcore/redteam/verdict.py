"""What an audit came to: lower bounds on ε beside the accountant's upper one, as JSON, as a page, as an error.

A lower bound above the upper one means that the training leaks more than its account says.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from fedcore.errors import AuditFailed
from fedcore.redteam.bounds import f_dp_epsilon, gaussian_limit_epsilon, guess, one_run_epsilon
from fedcore.redteam.canary import Canaries
from fedcore.redteam.written import copied, write_report
from fedcore.types import Floats, Json, RoundRecord

WORDS: Mapping[str, str] = {
    "one_run": "one run (Steinke et al. 2023), proven",
    "f_dp": "one run, under the Gaussian f-DP hypothesis (Mahloujifar et al. 2024)",
    "gaussian": "Gaussian model of the scores, lower limit",
}


@dataclass(frozen=True)
class Verdict:
    """What is known after an audit of `rounds` rounds.

    `upper` is the accountant's ε of these rounds at `delta`, `lower` the three lower bounds by name (`WORDS`), each
    by itself at `confidence`; `spent` is the ε of the population's account after each round, `at` (Unix seconds)
    when the last one was committed. `scores` (m,) are in clips: one for each round that a canary took part in, plus noise.
    `commitment` was made before the run and is opened by `secret`. With `opposite` all canaries took part, and those
    that were not `included` sent the opposite.
    """

    run: str
    rounds: int
    population: int
    canaries: int
    included: tuple[bool, ...]
    scores: tuple[float, ...]
    sight: str
    guesses: int
    correct: int
    confidence: float
    upper: float
    delta: float
    lower: Mapping[str, float]
    spent: tuple[float, ...]
    at: float
    metrics: Mapping[str, float]
    commitment: str
    secret: str
    opposite: bool = False

    @property
    def passed(self) -> bool:
        """Whether no lower bound exceeds the upper one."""
        return not self.exceeding

    @property
    def exceeding(self) -> tuple[str, ...]:
        """Names of the lower bounds above the upper one."""
        return tuple(name for name, value in self.lower.items() if value > self.upper)

    def require(self) -> None:
        """Raises `AuditFailed` unless it passed, by the bound that assumes least."""
        for name in self.exceeding:
            raise AuditFailed(self.lower[name], self.upper, WORDS[name], self.confidence)


def judged(
    run: str,
    canaries: Canaries,
    scores: Floats,
    records: Sequence[RoundRecord],
    population: int,
    each: int,
    confidence: float,
    upper: float,
    delta: float,
    opposite: bool = False,
) -> Verdict:
    """The verdict over `scores` (m,), with `each` guesses a side."""
    coins = canaries.included
    made = guess(scores, coins, each)
    measured = [record.metrics for record in records if record.metrics]
    return Verdict(
        run=run,
        rounds=len(records),
        population=population,
        canaries=canaries.count,
        included=tuple(bool(coin) for coin in coins),
        scores=tuple(float(score) for score in scores),
        sight=canaries.sight,
        guesses=made.made,
        correct=made.correct,
        confidence=confidence,
        upper=upper,
        delta=delta,
        lower={
            "one_run": one_run_epsilon(canaries.count, made, delta, confidence),
            "f_dp": f_dp_epsilon(canaries.count, made, delta, confidence),
            "gaussian": gaussian_limit_epsilon(scores[coins], scores[~coins], delta, confidence),
        },
        spent=tuple(record.epsilon for record in records if record.epsilon is not None),
        at=records[-1].committed_at,
        metrics=dict(measured[-1]) if measured else {},
        commitment=canaries.commitment,
        secret=canaries.secret,
        opposite=opposite,
    )


def as_json(verdict: Verdict) -> dict[str, Json]:
    """The verdict as JSON values, ``passed`` among them."""
    return {"passed": verdict.passed, "exceeding": list(verdict.exceeding), **asdict(verdict)}


def as_page(verdict: Verdict) -> str:
    """The verdict as a page of Markdown."""
    said = (
        "passed" if verdict.passed else "FAILED: " + ", ".join(verdict.exceeding) + " exceeds the accountant"
    )
    bounds = "\n".join(
        f"| {WORDS[name]} | ≥ {value:.3f} | {'**above**' if name in verdict.exceeding else 'below'} |"
        for name, value in verdict.lower.items()
    )
    return f"""# Privacy audit {verdict.run}: {said}

| bound on ε at δ = {verdict.delta:g} | value | beside the accountant |
|---|---|---|
| accountant (privacy loss distributions), {verdict.rounds} rounds | ≤ {verdict.upper:.3f} | |
{bounds}

Each lower bound is wrong at most {100 * (1 - verdict.confidence):.2g} % of the time where its assumption holds, so a correct
pipeline fails some of its audits: repeat one that failed by little, with more canaries.

{verdict.canaries} canaries were enrolled among {verdict.population} clients; {took_part(verdict)},
as independent coins said. The auditor saw {"the release of every round" if verdict.sight == "rounds" else "the last model"}
and declared {verdict.guesses // 2} guesses a side beforehand: {verdict.correct} of {verdict.guesses} were right.

Coins and directions were committed to before the run by `{verdict.commitment}`
and are opened by the secret `{verdict.secret}` (`fedcore.redteam.canary.Canaries`).

An audit finds bugs. It does not measure ε: what it cannot see (a leak that no canary moves, more rounds,
other adversaries) it does not bound.
"""


def took_part(verdict: Verdict) -> str:
    """What the coins made the canaries do."""
    held = sum(verdict.included)
    if verdict.opposite:
        return f"{held} sent what their coin said, the others the opposite"
    return f"{held} took part, the others never answered"


def write(verdict: Verdict, folder: Path, picture: Path | None = None) -> dict[str, str]:
    """``audit.json``, ``audit.md`` and ``audit.png`` in `folder`, by kind; the picture at `picture` too if that is given.

    Raises `StorageError`, and `MissingExtra` without matplotlib.
    """
    from fedcore.redteam.audit_picture import draw

    files = write_report(folder, "audit", as_json(verdict), as_page(verdict), lambda: draw(verdict))
    return files if picture is None else {**files, "picture": copied(Path(files["picture"]), picture)}
