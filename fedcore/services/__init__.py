"""MLflow, Airflow and one edge device in the background, each folder with its own: up, down, status.

`up` picks free ports, starts what does not run yet in the order its needs allow, and returns when
all of it answers. `down` leaves nothing, orphans included. Both may be repeated.
"""

from fedcore.services.lifecycle import Endpoints, down, endpoints, status, up
from fedcore.services.parts import GROUPS, Options

__all__ = ["GROUPS", "Endpoints", "Options", "down", "endpoints", "status", "up"]
