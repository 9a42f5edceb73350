"""Progress where nobody watches a bar: a line now and then, in the log."""

import io

from rich.console import Console

from fedcore.cli.counted import Counted


def told(terminal: bool, every: float) -> str:
    out = io.StringIO()
    with Counted(Console(file=out, force_terminal=terminal, width=100), every) as bar:
        cells, rounds = bar.add_task("cells", total=2), bar.add_task("rounds", total=50)
        bar.update(rounds, description="IID, FedAvg [1]", completed=12)
        bar.update(cells, advance=1)
    return out.getvalue()


def test_a_log_gets_a_line_when_one_is_due_and_a_terminal_a_bar():
    assert told(False, 0).splitlines() == [
        "cells 0/2  IID, FedAvg [1] 12/50",
        "cells 1/2  IID, FedAvg [1] 12/50",
    ]
    assert told(False, 60) == ""
    assert "━" in told(True, 0)
