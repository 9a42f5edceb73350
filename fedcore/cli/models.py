"""``fedcore models``: the built-in models, and what each costs."""

import json
from dataclasses import asdict

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Column, Table

from fedcore.cli.run import AsJson

app = typer.Typer(help="Built-in models.", rich_markup_mode="markdown")


@app.command()
def models(as_json: AsJson = False) -> None:
    """Show the built-in models: frameworks, parameters, FLOPs of one row forward and bytes, on typical rows.

    A multiplication and an addition are two FLOPs; biases, activations, pooling and normalisation are not counted.

    Example:

        fedcore models --json
    """
    from fedcore.adapters.zoo import ZOO, cost

    costs = [cost(name) for name in ZOO]
    if as_json:
        print(json.dumps([asdict(entry) for entry in costs], ensure_ascii=False))
        return
    numbers = [Column(name, justify="right") for name in ("rows", "outputs", "parameters", "FLOPs", "bytes")]
    table = Table(
        Column("model.name", no_wrap=True), "what it is", "model.framework", *numbers, box=SIMPLE_HEAD
    )
    for entry in costs:
        shape = " x ".join(map(str, entry.input_shape))
        counted = (entry.outputs, entry.parameters, entry.flops, entry.bytes)
        table.add_row(
            entry.name,
            entry.title,
            ", ".join(entry.frameworks),
            shape,
            *(f"{number:,}" for number in counted),
        )
    width = None if Console().is_terminal else 160  # a file or a pipe has no edge to keep within
    Console(width=width).print(table)
