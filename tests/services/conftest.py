"""Interrupts reach the tests even where the shell that started them has told them not to listen."""

import signal
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def interrupts() -> Iterator[None]:
    """A background job of a shell inherits a SIGINT that is ignored; here it counts again."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
