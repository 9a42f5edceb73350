"""The section ``time``: which clock a run has, and the devices of a virtual one."""

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from fedcore.config.kinds import CLOSED, Name, Positive, Share

Seconds = Annotated[float, Field(ge=0)]


@dataclass(frozen=True, config=CLOSED)
class DeviceClass:
    """One kind of device; `share` is relative to the shares of the other classes.

    Training takes `delay_s` and `seconds_per_row` for each row of each epoch. A message takes `latency_s`
    each way and its bits at `down_mbps` or `up_mbps` (10⁶ bits a second; None: no time). `memory_mb` is
    what training may use (10⁶ bytes; None: enough). `dropout` is used instead of ``time.dropout``.
    """

    name: Name = "device"
    share: Positive = 1.0
    seconds_per_row: Seconds = 0.0
    delay_s: Seconds = 0.0
    memory_mb: Positive | None = None
    down_mbps: Positive | None = None
    up_mbps: Positive | None = None
    latency_s: Seconds = 0.0
    dropout: Share | None = None


@dataclass(frozen=True, config=CLOSED)
class AvailabilityConfig:
    """When a device may start: inside its `windows` of each period, from and to in seconds.

    Each client's period begins at a moment of its own, or, with `phase` ``none``, at 0 for all.
    """

    period_s: Positive = 86_400.0
    windows: tuple[tuple[Seconds, Seconds], ...] = ((0.0, 28_800.0),)
    phase: Literal["random", "none"] = "random"


@dataclass(frozen=True, config=CLOSED)
class BatteryConfig:
    """A full charge lasts for `work_s` seconds of work, and takes `charge_s` seconds while the device rests.

    A device does not start below the level `limit`, and is lost when its charge ends during the work.
    """

    work_s: Positive = 3600.0
    charge_s: Positive = 7200.0
    limit: Share = 0.2


@dataclass(frozen=True, config=CLOSED)
class TimeConfig:
    """``real``: rounds take the time they take. ``virtual``: it is computed from the devices.

    `dropout` is the chance that a device is lost in a round. `jitter` is the deviation of the logarithm
    of its training time (`jitter_law` ``lognormal``), or the part of that time, up to 1, that is drawn
    with the same mean from an ``exponential`` or ``half_normal`` law. `row_kb` is the memory that one row
    takes while it is trained on (10³ bytes); None: taken from the layers of a built-in model.
    """

    mode: Literal["real", "virtual"] = "real"
    classes: Annotated[tuple[DeviceClass, ...], Field(min_length=1)] = (DeviceClass(),)
    availability: AvailabilityConfig | None = None
    battery: BatteryConfig | None = None
    dropout: Share = 0.0
    jitter: Annotated[float, Field(ge=0)] = 0.0
    jitter_law: Literal["lognormal", "exponential", "half_normal"] = "lognormal"
    row_kb: Positive | None = None
