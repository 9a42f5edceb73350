"""MLflow's own database is there whole or not at all, whenever the process that makes it is killed."""

import os
import signal
import sys

from fedcore.tracking.mlflow import connect


def make_and_die(uri: str, events: int) -> bool:
    """Whether a process that makes the database was killed at its `events`-th touch of a file."""
    child = os.fork()
    if child == 0:
        left = [events]

        def watch(event: str, _: object) -> None:
            if event in ("open", "os.link", "os.remove", "os.mkdir", "sqlite3.connect"):
                left[0] -= 1
                if left[0] <= 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(watch)
        try:
            connect(uri)
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def test_killed_while_it_is_made_it_can_be_made_again(tmp_path):
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    assert make_and_die(uri, 2)
    assert make_and_die(uri, 12)
    assert connect(uri).search_experiments()
