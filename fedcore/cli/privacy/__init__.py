"""``fedcore privacy``: what it would cost, what was spent, and whether the claim stands."""

import typer

from fedcore.cli.privacy.ledger import ledger
from fedcore.cli.privacy.report import report
from fedcore.cli.privacy.sweep import sweep

app = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown")
app.command()(ledger)
app.command()(report)
app.command()(sweep)
