"""The virtual clock: how long simulated devices take, when they can start, which are lost, and so how long rounds last."""

from fedcore.clock.devices import Charges, Devices, Work
from fedcore.clock.schedule import Charge, Schedule, Timing, Visit

__all__ = ["Charge", "Charges", "Devices", "Schedule", "Timing", "Visit", "Work"]
