"""How n updates become one: pure functions ``(updates (n, d), weights (n,), *, f=…, …) -> (d,)``.

`RULES` and `MIXERS` map names to them, `aggregation` builds what a round runs. Where to read: a
rule is in the file named after its idea; `mean` says why order never matters, `geometry` how
rules see distances, `blocks` how memory and threads are used.
"""

from fedcore.rules.decide import MIXERS, RULES, Aggregation, Decision, aggregation, decide, mixer, rule
from fedcore.rules.mean import streaming_mean

__all__ = [
    "MIXERS",
    "RULES",
    "Aggregation",
    "Decision",
    "aggregation",
    "decide",
    "mixer",
    "rule",
    "streaming_mean",
]
