"""BLAS on one thread as long as anybody asks: the same bytes on any machine, and threads that share its cores.

A BLAS has one limit for its whole process. threadpoolctl lets only the thread that set it first set it again, leaves what
others ask undone without a word, and knows no BLAS that was loaded after it looked: scipy's, which compiled training
loads, ran on all cores in each of the threads that train clients. So the limit here belongs to no thread. Whoever is
first sets it, whoever finds new modules looks for a new BLAS, and the last puts back what was before.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any

from threadpoolctl import OpenBLASController, ThreadpoolController


class _Limit:
    """The libraries of this process that are limited now, and to what each goes back."""

    def __init__(self) -> None:
        self._lock, self._within, self._modules = Lock(), 0, 0
        self._libraries: dict[str, Any] = {}
        self._before: dict[str, int] = {}

    def enter(self) -> None:
        with self._lock:
            self._within += 1
            if self._modules != len(sys.modules):  # libraries come with modules
                found = ThreadpoolController().select(user_api="blas").lib_controllers
                self._libraries = {library.filepath: library for library in found}
                self._modules = len(sys.modules)
            free = [name for name in self._libraries if name not in self._before]
            self._before |= {name: self._libraries[name].num_threads for name in free}
            self._set(dict.fromkeys(free, 1))

    def leave(self) -> None:
        with self._lock:
            self._within -= 1
            if not self._within:
                self._set(self._before)
                self._before = {}

    def _set(self, threads: dict[str, int]) -> None:
        if threads:
            OpenBLASController.clear_controlling_thread(force=True)
            for name, number in threads.items():
                self._libraries[name].set_num_threads(number)
            OpenBLASController.clear_controlling_thread(force=True)


_LIMIT = _Limit()


@contextmanager
def one_thread() -> Iterator[None]:
    """Every BLAS of the process computes on one thread, in all threads, until the last that asked is through."""
    _LIMIT.enter()
    try:
        yield
    finally:
        _LIMIT.leave()
