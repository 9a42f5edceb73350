"""Whether a service answers, asked over HTTP; None means yes, a few words mean not yet and why."""

import json
import socket
import urllib.error
import urllib.request
from datetime import datetime

from fedcore.errors import ServiceError


def answers(url: str) -> str | None:
    """None when `url` answers with a success."""
    try:
        with urllib.request.urlopen(url, timeout=5):
            return None
    except urllib.error.HTTPError as error:
        with error:
            return f"{url} answers {error.code}"
    except OSError as error:
        return f"{url} does not answer ({getattr(error, 'reason', error)})"


def airflow_part_beats(url: str, part: str, since: float) -> str | None:
    """None when Airflow's `part` (scheduler, triggerer, dag_processor) had a heartbeat after `since`.

    Airflow itself calls a killed process healthy for half a minute, hence the time.
    """
    try:
        with urllib.request.urlopen(f"{url}/api/v2/monitor/health", timeout=10) as response:
            facts = json.load(response)[part]
    except (OSError, ValueError, KeyError) as error:
        return f"Airflow's health page does not answer ({error})"
    beat = facts.get(f"latest_{part}_heartbeat")
    if not beat or datetime.fromisoformat(beat).timestamp() < since:
        return f"no heartbeat of the {part} yet"
    return None


def choose_port(service: str, asked: int | None, before: int | None) -> int:
    """A free port of this machine: `asked`, or the one of last time when still free, or any.

    Raises `ServiceError` naming the port when `asked` is taken.
    """
    if asked:
        if not _is_free(asked):
            raise ServiceError(
                f"port {asked} for {service} is taken by another program; "
                f"stop that program or choose another port for {service}"
            )
        return asked
    if before and _is_free(before):
        return before
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
