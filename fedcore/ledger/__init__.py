"""The privacy budget of a population: append-only, hash-chained, shared by all its runs.

An account is a population and a data version. A round reserves its event before anyone is asked
and settles it when something was released; a reservation counts as spent for ever, so a crash can
only overcount, and is charged once under any number of retries. `chain.py` is the table and its
hashes, `account.py` what the entries of one account add up to, `spend.py` how a run spends,
`version.py`
which data an account is of, `run.py` which account a run draws on, `summary.py` and `picture.py` who spent what.
"""

from fedcore.ledger.chain import GENESIS, Entry, entries, verified
from fedcore.ledger.run import ledger_of
from fedcore.ledger.spend import PrivacyLedger, raise_limit
from fedcore.ledger.summary import AccountSpend, RunSpend, spending
from fedcore.ledger.version import data_version

__all__ = [
    "GENESIS",
    "AccountSpend",
    "Entry",
    "PrivacyLedger",
    "RunSpend",
    "data_version",
    "entries",
    "ledger_of",
    "raise_limit",
    "spending",
    "verified",
]
