"""``fedcore privacy``: what it would cost, what was spent, what leaves a site, and whether the claim stands."""

import typer

from fedcore.cli.privacy.audit import audit
from fedcore.cli.privacy.inversion import inversion
from fedcore.cli.privacy.ledger import ledger
from fedcore.cli.privacy.membership import membership
from fedcore.cli.privacy.plan import plan
from fedcore.cli.privacy.report import report
from fedcore.cli.privacy.sweep import sweep

app = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown")
for command in (plan, ledger, report, sweep, audit, membership, inversion):
    app.command()(command)
