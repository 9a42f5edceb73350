"""Attacks on our own aggregation: what liars send, a fleet that has some, and how training ends under them.

`attacks.py` is the table, `fleet.py` puts liars among honest clients, `trial.py` trains under attack, and
`matrix.py` does so for every rule and attack. Nothing here runs in a real federation.
"""

from fedcore.redteam.attacks import ATTACKS, Attack, attack

__all__ = ["ATTACKS", "Attack", "attack"]
