"""``fedcore verify``: prove that what is kept is what was written."""

import json
from pathlib import Path
from typing import Annotated

import typer

from fedcore.errors import BadInput, CorruptState
from fedcore.ledger import GENESIS, Entry, spending, verified
from fedcore.store import Store
from fedcore.types import Json

app = typer.Typer(rich_markup_mode="markdown", invoke_without_command=True)
Workdir = Annotated[Path, typer.Option("--workdir", help="Where the runs lie.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
SHORTEST = 12  # signs of a hash that still name one entry


@app.callback()
def everything(context: typer.Context, workdir: Workdir = Path("runs"), as_json: AsJson = False) -> None:
    """Prove that what is kept is what was written: of the work directory, all there is to verify.

    Example:

        fedcore verify --workdir runs
    """
    if context.invoked_subcommand is None:
        ledger(workdir, None, as_json)


@app.command()
def ledger(
    workdir: Workdir = Path("runs"),
    head: Annotated[
        str | None, typer.Option("--head", help="A head noted earlier: the chain must still hold it.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Prove the privacy ledger from its first entry to its last, and that ε is what its charges cost.

    Entries cut off at the end leave a shorter chain that is whole: note the head that is printed
    somewhere else, and give it with --head next time.

    Examples:

        fedcore verify ledger --workdir runs

        fedcore verify ledger --head 5f0c1f7a9b3e
    """
    if not any((workdir / name).exists() for name in ("journal.db", "store.json")):
        raise BadInput(
            f"there is nothing to verify in {workdir}: no journal; give the folder of the runs (--workdir)"
        )
    with Store.at(workdir) as store:
        found = verified(store)
    accounts = spending(found)
    now = found[-1].sha256 if found else GENESIS
    facts: dict[str, Json] = {"entries": len(found), "head": now}
    facts["accounts"] = {one.account: {"epsilon": one.spent, "limit": one.limit} for one in accounts}
    if head is not None:
        facts["since_head"] = _since(found, head)
    if as_json:
        print(json.dumps(facts, sort_keys=True))
        return
    print(
        f"ledger   {len(found)} entries of {len(accounts)} accounts, the chain holds from the first to the last"
    )
    for one in accounts:
        print(f"account  {one.account}: ε = {one.spent:.4f} of {one.limit:g}, as its charges cost")
    if head is not None:
        print(f"since    {facts['since_head']} entries after the head that you noted")
    print(f"head     {now}")
    if head is None:
        print("note the head: a chain whose end was cut off is whole, and only --head shows it")


def _since(found: list[Entry], head: str) -> int:
    """How many entries follow the one of that hash. Raises `CorruptState` if there is none."""
    if len(head) < SHORTEST:
        raise BadInput(
            f"--head must have {SHORTEST} signs or more, got {head!r}; give the head that was printed"
        )
    hashes = [GENESIS, *(entry.sha256 for entry in found)]
    places = [place for place, known in enumerate(hashes) if known.startswith(head)]
    if not places:
        raise CorruptState(
            f"privacy ledger: its {len(found)} entries do not hold the noted head {head}: cut off or written anew; "
            "restore the ledger from a copy, nothing may be released until then"
        )
    return len(found) - places[0]
