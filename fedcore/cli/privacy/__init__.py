"""``fedcore privacy``: what it would cost, what was spent, and whether the claim stands."""

import typer

from fedcore.cli.privacy.ledger import ledger
from fedcore.cli.privacy.plan import plan

app = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown")
app.command()(ledger)
app.command()(plan)
