"""``fedcore privacy ledger``: who spent what of which population's budget."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Column, Table

from fedcore.errors import BadInput, UnknownName
from fedcore.ledger import GENESIS, AccountSpend, Entry, raise_limit, spending, verified
from fedcore.store import Store


def ledger(
    workdir: Annotated[Path, typer.Option("--workdir", help="Where the runs lie.")] = Path("runs"),
    account: Annotated[
        str | None, typer.Option("--account", help="Only this one: POPULATION@DATA_VERSION.")
    ] = None,
    show_entries: Annotated[bool, typer.Option("--entries", help="List every entry too.")] = False,
    picture: Annotated[
        Path | None, typer.Option("--picture", help="Draw ε over the charges into this .png, .svg or .pdf.")
    ] = None,
    limit: Annotated[
        float | None,
        typer.Option("--raise", help="Raise the account's limit to this ε first; with --reason."),
    ] = None,
    reason: Annotated[str, typer.Option("--reason", help="Why; kept in the ledger for ever.")] = "",
    as_json: Annotated[
        bool, typer.Option("--json", help="End standard output with one JSON object.")
    ] = False,
) -> None:
    """Show who spent what: each account's limit, ε spent and left, by run. The chain is verified first.

    An account is a population and a version of its data; all runs on them share its limit. The first
    run sets the limit. A run may ask for less (privacy.epsilon); only --raise allows more.

    Examples:

        fedcore privacy ledger

        fedcore privacy ledger --workdir runs --picture budget.png

        fedcore privacy ledger --account digits@0f3a… --raise 10 --reason "board decision of 3 May"
    """
    with Store.at(workdir) as store:
        if limit is not None:
            if account is None or not reason:
                raise BadInput(
                    "--raise needs --account and --reason: a budget is raised by someone who says why"
                )
            raise_limit(store, account, limit, reason)
        found = verified(store)
    accounts = [one for one in spending(found) if account in (None, one.account)]
    if account is not None and not accounts:
        raise UnknownName("account", account, {entry.account for entry in found})
    if not accounts:
        print(f"nothing was charged in {workdir}")
    elif not as_json:
        _show(accounts, found if show_entries else (), found[-1])
    if picture is not None and accounts:
        from fedcore.ledger.picture import draw

        place = draw(accounts, picture)
        if not as_json:
            print(f"picture  {place}")
    if as_json:
        facts = {"accounts": [asdict(one) for one in accounts], "entries": len(found)}
        facts |= {"head": found[-1].sha256 if found else GENESIS}
        print(json.dumps(facts | ({"ledger": [e._asdict() for e in found]} if show_entries else {})))


def _show(accounts: Sequence[AccountSpend], found: Sequence[Entry], last: Entry) -> None:
    console = Console(highlight=False, width=None if Console().is_terminal else 200)
    for account in accounts:
        terms = account.terms
        console.print(
            f"account {account.account}: ε = {account.spent:.4f} of {account.limit:g} spent, {account.remaining:.4f} left "
            f"(δ = {terms.delta:g}, {terms.unit} level, {terms.relation.replace('_', ' ')})",
            markup=False,
        )
        console.print(_runs(account))
    if found:
        names = {account.account for account in accounts}
        console.print(_entries([entry for entry in found if entry.account in names]))
    console.print(f"entries {last.sequence + 1}, chain verified, head {last.sha256}", soft_wrap=True)


def _runs(account: AccountSpend) -> Table:
    table = Table(
        Column("run", no_wrap=True), "rounds charged", "released", "ε alone", "share of ε", box=SIMPLE_HEAD
    )
    for run in account.runs:
        table.add_row(
            run.run, str(run.charged), str(run.released), f"{run.epsilon:.4f}", f"{100 * run.share:.1f} %"
        )
    return table


def _entries(found: Sequence[Entry]) -> Table:
    table = Table("#", "account", "run", "round", "what", "facts", "hash", box=SIMPLE_HEAD)
    for entry in found:
        facts = ", ".join(f"{name} {_short(value)}" for name, value in _facts(entry).items())
        place = "" if entry.round is None else str(entry.round)
        table.add_row(
            str(entry.sequence), entry.account, entry.run or "", place, entry.kind, facts, entry.sha256[:12]
        )
    return table


def _facts(entry: Entry) -> dict[str, object]:
    if entry.kind == "reserve":
        return {"ε": entry.body["epsilon"], **entry.body["event"]}
    return {**entry.body["released"]} if entry.kind == "settle" else dict(entry.body)


def _short(value: object) -> str:
    return f"{value:.5g}" if isinstance(value, float) else str(value)
