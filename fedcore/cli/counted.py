"""Counted steps on standard error: a bar where somebody watches, else a line a minute for the log."""

import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

LINE_S = 60.0  # seconds between two lines


class Counted(Progress):
    """A bar that writes a line a minute instead where standard error is no terminal."""

    def __init__(self, console: Console, every: float = LINE_S) -> None:
        super().__init__(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._every, self._written = every, time.monotonic()

    def update(self, task_id: TaskID, **changes: Any) -> None:
        """Change a task, see `rich.progress.Progress.update`, and tell of all tasks if that is due."""
        super().update(task_id, **changes)
        if self.disable and time.monotonic() - self._written >= self._every:
            self._written = time.monotonic()
            told = (f"{task.description} {task.completed:g}/{task.total or 0:g}" for task in self.tasks)
            self.console.print("  ".join(told), markup=False, highlight=False, soft_wrap=True)


def counted() -> Counted:
    """The bar, to be entered and given tasks with a total."""
    return Counted(Console(stderr=True))
