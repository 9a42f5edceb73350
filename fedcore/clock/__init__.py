"""The virtual clock: how long simulated devices take, when they can start, and which of them are lost."""

from fedcore.clock.devices import Charges, Devices, Work

__all__ = ["Charges", "Devices", "Work"]
