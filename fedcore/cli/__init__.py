"""The command line: one library call a command, and what it returned, for people or as JSON.

`main` turns the error tree into one sentence on standard error and the class's exit code.
"""

import sys

import typer

from fedcore.errors import FedcoreError

app = typer.Typer(
    name="fedcore",
    help="Federated learning that can be operated.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; exits with the code of the error tree."""
    _mount()
    try:
        app(arguments, standalone_mode=True)
    except FedcoreError as error:
        print(f"fedcore: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("fedcore: interrupted; run the same command again to go on", file=sys.stderr)
        sys.exit(130)


def _mount() -> None:
    """Add each room's commands to the app, once."""
    if app.registered_commands or app.registered_groups:
        return
    from fedcore.cli import (
        adapt,
        compare,
        data,
        distill,
        edge,
        models,
        privacy,
        registry,
        robustness,
        run,
        services,
        tables,
        timeline,
        verify,
    )

    run.add_to(app)
    app.command()(adapt.adapt)
    app.command()(timeline.timeline)
    app.command()(distill.distill)
    app.registered_commands += registry.app.registered_commands + compare.app.registered_commands
    app.registered_commands += models.app.registered_commands
    robustness.add_to(app)
    tables.add_to(app)
    services.add_to(app)
    app.add_typer(data.app, name="data", help="Get, split and check data.")
    app.add_typer(privacy.app, name="privacy", help="What privacy was spent, and by whom.")
    app.add_typer(verify.app, name="verify")
    app.add_typer(edge.app, name="edge", help="Sign models, and run them on a device.")
