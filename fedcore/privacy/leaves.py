"""What leaves a site, and whether a declared mechanism covers it.

Under differential privacy nothing about single clients may travel beside the update: no loss, no
count, no reason, no time it took. What travels all the same is listed by `leaves`, the uncovered
with the way to close it, so that nobody has to find out.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from fedcore.config import Config, PersonalConfig, PrivacyConfig
from fedcore.types import Json, RoundRecord, TaskKind

# Facts of a step that say who took part in a private round, or how many did.
_WHO = frozenset(
    {"cohort", "replied", "accepted", "refused", "ignored", "unusual", "bytes_up", "bytes_down", "schedule"}
    | {"began", "handed", "late", "course"}  # of an asynchronous version
)
_COVERED = frozenset({"unclipped"})  # counted with noise of its own: adaptive clipping
SHARES = "shares"  # under this name a client's part of a noisy evaluation leaves it
_SHARED = {"noised": frozenset({SHARES}), "off": frozenset[str]()}  # of an evaluation
_NOTHING = "nothing"  # closes what a federation cannot do without
_SILENT = "stays with the site"
_BY_SCHEMA = f"{_SILENT} (data.encoding: schema)"
_ONCE = "in the clear, once"


@dataclass(frozen=True)
class Leaving:
    """One kind of thing: where it goes, under which mechanism, and what closes it if none covers it.

    `goes` is None for what does not leave. `covered` is None where there is nothing to cover.
    """

    what: str
    goes: str | None
    mechanism: str
    covered: bool | None
    close: str = ""

    @property
    def closable(self) -> bool:
        """Whether it leaves uncovered, and a setting would change that."""
        return self.covered is False and not self.close.startswith(_NOTHING)


def facts_sent(kind: TaskKind, facts: Mapping[str, Json], privacy: PrivacyConfig) -> dict[str, Json]:
    """Of a reply's `facts`, those that leave the site beside the update."""
    if privacy.mode == "none":
        return dict(facts)
    if kind == "train":
        return {name: value for name, value in facts.items() if name in _COVERED}
    if kind == "evaluate" and privacy.evaluation != "clear":
        return {name: value for name, value in facts.items() if name in _SHARED[privacy.evaluation]}
    return {name: value for name, value in facts.items() if name != "seconds"}


def error_sent(kind: TaskKind, client: str, error: str, privacy: PrivacyConfig) -> str:
    """What leaves the site of an error: under privacy that there was one, for its text may quote a row."""
    if privacy.mode == "none" or kind == "describe":
        return error
    return f"{client} could not {kind}; under privacy the reason stays there: run the site alone to see it"


def counts_stay(config: Config) -> bool:
    """Whether no client says how many rows it has: no statistics ask for that, and the unit of privacy is a client."""
    return config.data.encoding == "schema" and config.privacy.mode in ("central", "local")


def facts_shown(facts: Mapping[str, Json], private: bool) -> dict[str, Json]:
    """A step's facts for whoever drives the round: without who took part where that must stay secret."""
    return {name: value for name, value in facts.items() if not (private and name in _WHO)}


def disclosed(record: RoundRecord) -> RoundRecord:
    """The record as it leaves the server: under privacy without who took part, how many, and why not."""
    if record.delta is None:
        return record
    return replace(
        record,
        cohort=(),
        replied=(),
        dropped=(),
        refused={},
        unusual={},
        bytes_up=0,
        bytes_down=0,
        asynchrony=None,
    )


def leaves(config: Config) -> tuple[Leaving, ...]:
    """Everything that leaves a site under `config`, and what stays although others send it."""
    return (
        *_described(config),
        _update(config.privacy),
        *_training(config.privacy),
        *_own(config.personal),
        _evaluation(config.privacy, config.personal),
        *_about(config.privacy),
    )


def _described(config: Config) -> tuple[Leaving, ...]:
    """What a site tells before the first round, with or without privacy."""
    digest = Leaving(
        "digest of the data version",
        "the server, tracking",
        "hashed with a key that only the site has",
        True,
    )
    return _statistics(config), _counts(config), _checks(config), digest


def _statistics(config: Config) -> Leaving:
    what = "feature statistics: count, mean and deviation of each column, words that occur"
    if config.data.encoding == "schema":
        return Leaving(what, None, _BY_SCHEMA, None)
    goes = "the server, and with the model whoever gets it"
    return Leaving(what, goes, _ONCE, False, "set data.encoding: schema")


def _counts(config: Config) -> Leaving:
    what, private = "number of training rows", config.privacy.mode != "none"
    if counts_stay(config):
        return Leaving(what, None, _BY_SCHEMA, None)
    close = "set data.encoding: schema" + ("" if private else " and privacy.mode")
    if config.privacy.mode == "record":
        close = f"{_NOTHING}: they set rates, steps and weights"
    return Leaving(what, "the server" if private else "the server, tracking", _ONCE, False, close)


def _checks(config: Config) -> Leaving:
    what = "checks: passed or why not, a range of rows, shares of missing cells"
    if config.tracking.enabled:
        close = "tracking.enabled: false keeps them with the server"
        return Leaving(what, "the server, tracking", _ONCE, False, close)
    return Leaving(what, "the server", _ONCE, False, f"{_NOTHING}: who may take part must be known")


def _update(privacy: PrivacyConfig) -> Leaving:
    noise = f"{privacy.mechanism.replace('_', ' ')} noise of {privacy.noise_multiplier:g} × the clip {privacy.clip:g}"
    if privacy.mode == "none":
        return Leaving(
            "model update", "the server, and in the mean whoever gets the model", "in the clear", False,
            "set privacy.mode",
        )  # fmt: skip
    if privacy.mode == "central":
        how = f"clipped; {noise} is added to the sum before it is used: the server sees each update and is trusted"
        return Leaving("model update", "the server; the noisy sum to everyone", how, True)
    if privacy.mode == "local":
        how = f"clipped, and {noise} is added before it leaves: the server is not trusted"
        return Leaving("model update", "the server, and whoever gets the model", how, True)
    how = f"trained by DP-SGD, {noise} on each step: covers a record of the site, not the site"
    return Leaving("model update", "the server, and whoever gets the model", how, True)


def _training(privacy: PrivacyConfig) -> tuple[Leaving, ...]:
    """What training finds out beside the update."""
    what = ("training loss", "seconds a task took", "reasons why an update is missing, which may quote a row")
    if privacy.mode == "none":
        close = "set privacy.mode"
        return tuple(Leaving(name, "the server, its journal", "in the clear", False, close) for name in what)
    silent = tuple(Leaving(name, None, _SILENT, None) for name in what)
    if privacy.clipping != "adaptive":
        return silent
    vote = "summed with noise of privacy.count_noise, charged with the update"
    return (Leaving("whether the update was shorter than the clip", "the server", vote, True), *silent)


def _own(personal: PersonalConfig) -> tuple[Leaving, ...]:
    """What a site keeps for itself between rounds."""
    name = personal.algorithm
    if name in ("none", "per_fedavg", "reptile"):
        return ()
    what = f"what the client keeps for itself between rounds (personal.algorithm: {name})"
    return (Leaving(what, None, _SILENT, None),)


def _evaluation(privacy: PrivacyConfig, personal: PersonalConfig) -> Leaving:
    own = personal.algorithm != "none" or personal.finetune_steps > 0
    which = "the model, and of the client's own model," if own else "the model"
    what = (
        f"evaluation of {which} on the site's held-out rows: sums of loss, hits, rows, histograms of scores"
    )
    if privacy.mode != "none" and privacy.evaluation == "off":
        return Leaving(what, None, f"{_SILENT} (privacy.evaluation: off)", None)
    if privacy.mode != "none" and privacy.evaluation == "noised":
        unit = "record" if privacy.mode == "record" else "client"
        adds = {"central": "the server", "local": "the client", "record": "its site"}[privacy.mode]
        how = (
            f"each {unit}'s part is bounded; Gaussian noise of {privacy.evaluation_noise:g} × the bound is added to the "
            f"sums by {adds} and charged with the round"
        )
        return Leaving(what, "the server; noisy means to tracking", how, True)
    goes = "the server; sums and quantiles over clients to tracking"
    return Leaving(
        what, goes, "in the clear, each round it is due", False, "set privacy.evaluation: noised or off"
    )


def _about(privacy: PrivacyConfig) -> tuple[Leaving, ...]:
    """What others can see of a site without its saying a word."""
    enrolled = Leaving(
        "that the site is enrolled",
        "everyone",
        "in the clear",
        False,
        f"{_NOTHING}: whom to ask must be known",
    )
    who = "who took part in a round, and how many"
    if privacy.mode == "none":
        return enrolled, Leaving(who, "the server, tracking", "in the clear", False, "set privacy.mode")
    secret = "kept in the server's journal; tracking, schedulers and reports are not told"
    return enrolled, Leaving(who, "the server", secret, True)
